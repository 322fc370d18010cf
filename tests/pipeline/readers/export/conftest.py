"""A cube on both sides of a border between zones, and the command on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from two_zones import publish_zones, waves, windows_at

from difffusr.pipeline.commands import cli
from difffusr.pipeline.readers.export import sources
from difffusr.pipeline.storage.objects import Storage

LON, LAT, CODES = 12.0, 48.0, (32632, 32633)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def kept_zones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 × 256 pixels of each zone, both of the same ground; its folder is not to be changed."""
    folder = tmp_path_factory.mktemp("zones")
    windows = windows_at(LON, LAT, CODES, (2, 4))
    publish_zones(Storage(f"{folder}/zones.zarr"), windows, dict.fromkeys(windows, waves(LON, LAT)))
    return folder / "zones.zarr"


@pytest.fixture(autouse=True)
def _small_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a mosaic whole squares are warped, which are larger than what tests look at."""
    monkeypatch.setattr(sources, "SQUARE_PX", 128)


@pytest.fixture
def zones(kept_zones: Path, tmp_path: Path) -> Path:
    """A copy of it, with its staging folder, for who changes it."""
    for name in ("zones.zarr", "zones.staging"):
        shutil.copytree(kept_zones.parent / name, tmp_path / "own" / name)
    return tmp_path / "own" / "zones.zarr"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`difffusr export`: its exit code, what it prints, its errors."""

    def export(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["difffusr", "export", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return export
