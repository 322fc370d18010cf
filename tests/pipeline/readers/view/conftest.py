"""Small cubes and their maps."""

from __future__ import annotations

from typing import Any

import pytest
import xarray as xr
from mapped_cubes import BORDER, EPSG, SQUARE, WINDOW, client_of
from random_cubes import FLAT, random_cube
from starlette.testclient import TestClient

from difffusr.pipeline.commands import cli
from difffusr.pipeline.storage.objects import Storage


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """Two months of one zone, 128 × 192 pixels."""
    place = Storage(str(tmp_path_factory.mktemp("view") / "cube.zarr"))
    random_cube(place, {EPSG: WINDOW})
    return place


@pytest.fixture(scope="session")
def client(storage: Storage) -> TestClient:
    return client_of(storage)


@pytest.fixture(scope="session")
def stored(storage: Storage) -> xr.Dataset:
    """The second month as xarray reads it, DN."""
    return xr.open_zarr(storage.url, group=f"{EPSG}/0", mask_and_scale=False, chunks=None).isel(time=1).load()


@pytest.fixture(scope="session")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A month of 128 × 128 pixels without overviews."""
    place = Storage(str(tmp_path_factory.mktemp("flat") / "cube.zarr"))
    random_cube(place, {EPSG: SQUARE}, months=(2,), grid=FLAT)
    return place


@pytest.fixture(scope="session")
def two_zones(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """One month of both zones."""
    place = Storage(str(tmp_path_factory.mktemp("zones") / "cube.zarr"))
    random_cube(place, BORDER, months=(1,))
    return place


@pytest.fixture
def view(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command, where it does not come to serving: its exit code, what it prints, its errors."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["difffusr", "view", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run
