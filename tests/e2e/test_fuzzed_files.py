"""Every small file that a run leaves, damaged at random, under every command: no traceback, and nothing lost.

A share of the cases runs with the suite. `make test-slow` runs all of them, and prints how they ended.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from damaged_files import ODD, damaged, damaged_text

from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.readers.view import serve
from difffusr.pipeline.run import execution

QUICK, ALL = 30, 500

#: Words of every command after the configuration's name, how often it is drawn, and the exit codes that it may have.
COMMANDS: dict[str, tuple[tuple[str, ...], int, frozenset[int]]] = {
    "status": ((), 3, frozenset({0, 1})),
    "history": ((), 3, frozenset({0, 1})),
    "verify": ((), 3, frozenset({0, 1})),
    "rollback": ((), 2, frozenset({0, 1})),
    "rollback to": (("--to", "1"), 3, frozenset({0, 1})),
    "plan": ((), 3, frozenset({0, 1, 2})),
    "plan diff": (("--diff",), 3, frozenset({0, 1, 2})),
    "stac": (("records",), 3, frozenset({0, 1})),
    "export": (("--cog", "cogs", "--overwrite", "--variable", "quality"), 2, frozenset({0, 1})),
    "report": (("--output", "report.html"), 1, frozenset({0, 1})),
    "view": (("--no-browser",), 3, frozenset({0, 1})),
    "run": ((), 4, frozenset({0, 1, 2})),
}

#: Those that only look: afterwards every file is as it was.
LOOKING = frozenset({"status", "history", "plan diff", "stac", "export", "report", "view"})


@dataclass
class Kept:
    """A run's files, and what they hold: put back after every case.

    Attributes:
        config: the configuration.
        files: bytes by path, of cube and staging folder.
    """

    config: Path
    files: dict[Path, bytes]

    @classmethod
    def of(cls, config: Path) -> Kept:
        return cls(config, {path: path.read_bytes() for path in _files(config.parent)})

    @property
    def small(self) -> list[Path]:
        """Those that are damaged; of the cube's many documents of arrays few."""
        found = sorted(path for path in self.files if path.suffix in (".json", ".parquet"))
        arrays = [path for path in found if "run.zarr" in path.parts and path.parts[-3:-2] in (("0",), ("1",), ("2",))]
        return [path for path in found if path not in arrays] + arrays[::6]

    def put_back(self) -> None:
        for path in set(_files(self.config.parent)) - self.files.keys():
            path.unlink()
        for path, data in self.files.items():
            if not path.exists() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def pixels(self) -> dict[str, np.ndarray]:
        """What any reader sees."""
        cube = xr.open_zarr(self.config.parent / "run.zarr", group="32632/0", mask_and_scale=False, chunks=None)
        return {name: np.asarray(cube[name]) for name in ("reflectance", "quality", "source")}


def _files(folder: Path) -> Iterator[Path]:
    for part in ("run.zarr", "run.staging"):
        yield from (path for path in (folder / part).rglob("*") if path.is_file())


@pytest.fixture
def kept(finished: Path, difffusr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.chdir(finished.parent)
    monkeypatch.setattr(serve, "maplibre_files", lambda *_: {})
    monkeypatch.setattr(serve._Server, "run", lambda self, sockets=None: None)
    difffusr("verify", finished)  # it leaves a file, too
    difffusr("run", finished)
    return Kept.of(finished)


@contextmanager
def _nothing_computed() -> Iterator[None]:
    """Instead of a cluster: what a run would do is known before it starts one."""
    raise DifffusrError("it would compute")
    yield


def tried(kept: Kept, call: Callable[..., Any], draw: random.Random) -> str:
    """One case; how it ended. Fails where a command ends in anything but its words, or something is lost."""
    path = draw.choice(kept.small)
    name = draw.choices(list(COMMANDS), [weight for _, weight, _ in COMMANDS.values()])[0]
    words, _, codes = COMMANDS[name]
    what, data = damaged(draw, path.name, kept.files[path])
    path.unlink() if data is None else path.write_bytes(data)
    case = f"{name}, {path.relative_to(kept.config.parent)}: {what}"
    try:
        ended = call(name.partition(" ")[0], kept.config, *words)
    except Exception as error:
        raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
    assert ended.code in codes, f"{case}: exit code {ended.code}: {ended.err}"
    assert "Traceback" not in ended.err, case
    if ended.code and name != "verify":
        assert ended.err.count("error: ") == 1, f"{case}: {ended.err}"
    _check_kept(kept, name, path, case)
    return f"exit {ended.code}" + (
        ", not clean" if name == "verify" and "error: " not in ended.err and ended.code else ""
    )


def _check_kept(kept: Kept, name: str, touched: Path, case: str) -> None:
    """Nothing of the cube is lost: every other file is there and as it was, unless the command writes such files."""
    for path, data in kept.files.items():
        if path == touched:
            continue
        written = name not in LOOKING and "run.staging" in path.parts
        written |= name.startswith("rollback") and path.name == "zarr.json"
        assert written or path.exists(), f"{case}: {path} is gone"
        assert written or path.read_bytes() == data, f"{case}: {path} is another"


def fuzz(kept: Kept, call: Callable[..., Any], seed: int, cases: int) -> Counter[str]:
    """How cases ended. Fails after the last one, with all that went wrong."""
    ends: Counter[str] = Counter()
    wrong = []
    for number in range(cases):
        try:
            ends[tried(kept, call, random.Random(f"{seed} {number}"))] += 1
        except AssertionError as error:
            wrong.append(f"case {seed} {number}: {error}")
        finally:
            kept.put_back()
    assert not wrong, "\n".join(wrong)
    return ends


def test_a_damaged_file_ends_in_words_and_nothing_is_lost(kept, difffusr, monkeypatch):
    monkeypatch.setattr(execution, "cluster", lambda *_: _nothing_computed())
    assert sum(fuzz(kept, difffusr, 1, QUICK).values()) == QUICK


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_five_hundred_damaged_files_end_in_words_and_nothing_is_lost(kept, difffusr, monkeypatch, capsys):
    monkeypatch.setattr(execution, "cluster", lambda *_: _nothing_computed())
    before = kept.pixels()
    ends = fuzz(kept, difffusr, 2, ALL)
    with capsys.disabled():
        print("\ndamaged files:", ", ".join(f"{count} {how}" for how, count in ends.most_common()))
    assert sum(ends.values()) == ALL
    assert all(np.array_equal(values, before[name]) for name, values in kept.pixels().items())


# ---- configurations and items ----------------------------------------------------------------------------------------


def fuzz_inputs(
    folder: Path, config: Path, archive: Path, call: Callable[..., Any], seed: int, cases: int
) -> Counter[str]:
    """Configurations and items damaged at random, under `plan`."""
    ends: Counter[str] = Counter()
    items = sorted(path for path in archive.rglob("*.json") if path.name != "catalog.json")
    text, kept = config.read_text(), {path: path.read_bytes() for path in archive.rglob("*.json")}
    wrong = []
    for number in range(cases):
        draw = random.Random(f"{seed} {number}")
        if draw.random() < 0.5:
            what, new = damaged_text(draw, text)
            config.write_text(new, encoding="utf-8", errors="surrogateescape")
            case = f"the configuration: {what}"
        else:
            path = draw.choice([*items, archive / "catalog.json"])
            what, data = damaged(draw, path.name, kept[path])
            path.unlink() if data is None else path.write_bytes(data)
            case = f"{path.name}: {what}"
        try:
            ends[planned(call, config, draw.random() < 0.2)] += 1
        except Exception as error:
            wrong.append(f"case {seed} {number}, {case}: {type(error).__name__}: {error}")
        config.write_text(text)
        for path, data in kept.items():
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
    assert not wrong, "\n".join(wrong)
    return ends


def planned(call: Callable[..., Any], config: Path, diff: bool) -> str:
    """How `plan` ended. Fails where that is in anything but its words."""
    ended = call("plan", config, *(["--diff"] if diff else []))
    assert ended.code in (0, 1, 2), f"{ended.code}: {ended.err}"
    assert "Traceback" not in ended.err
    assert ended.err.count("error: ") == (ended.code != 0), ended.err
    return f"exit {ended.code}"


@pytest.fixture
def inputs(world: Any, tmp_path: Path) -> tuple[Path, Path]:
    """A configuration for a copy of the generated world, and the copy."""
    from tests.e2e.conftest import write_config

    shutil.copytree(world.catalog.parent, tmp_path / "archive")
    config = write_config(world, tmp_path, source={"static_catalog": str(tmp_path / "archive" / world.catalog.name)})
    return config, tmp_path / "archive"


def test_a_damaged_configuration_or_item_ends_in_words(inputs, command, tmp_path):
    assert sum(fuzz_inputs(tmp_path, *inputs, command, 3, QUICK).values()) == QUICK


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_five_hundred_damaged_configurations_and_items_end_in_words(inputs, command, tmp_path, capsys):
    ends = fuzz_inputs(tmp_path, *inputs, command, 4, ALL)
    with capsys.disabled():
        print("\ndamaged inputs:", ", ".join(f"{count} {how}" for how, count in ends.most_common()))
    assert sum(ends.values()) == ALL


def test_damage_comes_in_every_kind():
    draw = random.Random(5)
    kinds = {damaged(draw, "a.json", b'{"a": [1, {"b": "c"}]}')[0].split()[0] for _ in range(300)}
    assert kinds >= {"gone", "another", "cut", "torn", "put", "drop", "wrap", "nest", "add"}
    assert len(ODD) > 25
