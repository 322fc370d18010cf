"""A published cube damaged in every way: `verify` names it, and the command that it names makes it whole again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.cube.icechunk import open_repository
from difffusr.pipeline.cube.protocol import object_in
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.run.execution import execute
from difffusr.pipeline.storage.places import storage_of
from tests.e2e.conftest import _Silent, write_config

ZONE = "32632"


@dataclass(frozen=True)
class Place:
    """A run's folders.

    Attributes:
        config: its configuration.
    """

    config: Path

    @property
    def cube(self) -> Path:
        return self.config.with_suffix(".zarr")

    @property
    def run(self) -> Path:
        (folder,) = (self.config.with_suffix(".staging") / "runs").iterdir()
        return folder

    def objects(self, level: int, variable: str) -> list[Path]:
        """The objects of a variable, in order."""
        return sorted(path for path in (self.cube / ZONE / str(level) / variable / "c").rglob("*") if path.is_file())

    def largest(self, level: int, variable: str) -> list[Path]:
        """The two largest objects of a variable: shards at the edge are all alike, of no data."""
        return sorted(self.objects(level, variable), key=lambda path: path.stat().st_size)[-2:]

    def document(self, *parts: str) -> Path:
        return self.cube.joinpath(*parts, "zarr.json")

    def page(self) -> Path:
        """The page of scenes."""
        (page,) = (self.cube / "scenes").glob("*/c")
        return page

    def kept(self) -> list[Path]:
        """The history's documents."""
        return sorted((self.config.with_suffix(".staging") / "documents").iterdir())

    def chips(self) -> list[Path]:
        return sorted((self.run / "chips").rglob("*.chip"))

    def files(self) -> dict[str, bytes]:
        """Everything that readers may read, the staged chips, and the history's documents."""
        found = {*self.chips(), *self.kept(), *(path for path in self.cube.rglob("*") if path.is_file())}
        return {str(path.relative_to(self.config.parent)): path.read_bytes() for path in found}


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def swap(path: Path, other: Path) -> None:
    """Another's bytes in its place."""
    assert path.stat().st_size != other.stat().st_size
    path.write_bytes(other.read_bytes())


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Somebody's editor."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=2))


def a_whole_shard_is_gone(place: Place) -> None:
    for variable in ("reflectance", "quality", "source"):
        place.objects(0, variable)[3].unlink()


def an_entry_and_its_shard(place: Place) -> None:
    """The ledger does not know any more what the shard was."""
    cut(sorted((place.run / "shards").rglob("*.json"))[0])


def every_entry_of_overviews(place: Place) -> None:
    for path in (place.run / "overviews").rglob("*.json"):
        empty(path)


def a_shard_and_what_is_above(place: Place) -> None:
    flip(place.objects(0, "reflectance")[0])
    empty(place.objects(1, "reflectance")[0])
    place.objects(2, "quality")[0].unlink()


def a_bit_of_everything(place: Place) -> None:
    a_shard_and_what_is_above(place)
    flip(place.objects(1, "x")[0])
    place.document(ZONE, "1", "source").unlink()
    place.document().unlink()


def a_chip_before_it_is_blended(place: Place) -> None:
    """The shard has to be made again, of a chip that is broken."""
    place.objects(0, "reflectance")[0].unlink()
    flip(place.chips()[0])


def no_chip_can_be_blended(place: Place) -> None:
    empty(place.objects(0, "quality")[1])
    for chip in place.chips():
        cut(chip)


def _pages(root: dict[str, Any]) -> None:
    root["attributes"]["difffusr:scene_pages"].popitem()


#: What is done to the cube; the heading under which `verify` counts it; whether it belongs to the quick ones.
CASES: dict[str, tuple[Callable[[Place], object], str, bool]] = {
    "a shard's reflectance is gone": (lambda at: at.objects(0, "reflectance")[0].unlink(), "missing", False),
    "a shard's reflectance is empty": (lambda at: empty(at.objects(0, "reflectance")[1]), "damaged", False),
    "a bit of a shard's reflectance": (lambda at: flip(at.objects(0, "reflectance")[2]), "damaged", False),
    "a shard's quality is cut": (lambda at: cut(at.objects(0, "quality")[0]), "damaged", False),
    "a shard's reflectance is another's": (lambda at: swap(*at.largest(0, "reflectance")), "damaged", False),
    "a whole shard is gone": (a_whole_shard_is_gone, "missing", False),
    "an entry of the ledger": (an_entry_and_its_shard, "damaged", False),
    "a bit of an overview": (lambda at: flip(at.objects(1, "reflectance")[0]), "damaged", True),
    "an overview's source is gone": (lambda at: at.objects(1, "source")[1].unlink(), "missing", False),
    "an overview is empty": (lambda at: empty(at.objects(2, "reflectance")[0]), "damaged", False),
    "every entry of overviews": (every_entry_of_overviews, "damaged", False),
    "a shard and what is above": (a_shard_and_what_is_above, "damaged", False),
    "x is gone": (lambda at: at.objects(0, "x")[0].unlink(), "documents", True),
    "a bit of y": (lambda at: flip(at.objects(2, "y")[0]), "documents", False),
    "time is empty": (lambda at: empty(at.objects(0, "time")[0]), "documents", False),
    "time_bnds are cut": (lambda at: cut(at.objects(1, "time_bnds")[0]), "documents", False),
    "wavelength is x": (lambda at: swap(at.objects(0, "wavelength")[0], at.objects(0, "x")[0]), "documents", False),
    "band is gone": (lambda at: at.objects(0, "band")[0].unlink(), "documents", False),
    "the root is gone": (lambda at: at.document().unlink(), "documents", True),
    "the root is cut": (lambda at: cut(at.document()), "documents", False),
    "the root lacks a page": (lambda at: edit(at.document(), _pages), "documents", False),
    "a page of scenes is gone": (lambda at: at.page().unlink(), "documents", False),
    "a bit of a page of scenes": (lambda at: flip(at.page()), "documents", True),
    "a page's document is cut": (lambda at: cut(at.page().with_name("zarr.json")), "documents", False),
    "the document of all pages is gone": (lambda at: at.document("scenes").unlink(), "documents", False),
    "the root is not consolidated": (
        lambda at: edit(at.document(), lambda root: root.pop("consolidated_metadata")),
        "documents",
        False,
    ),
    "a zone's document is gone": (lambda at: at.document(ZONE).unlink(), "documents", True),
    "a bit of a level's document": (lambda at: flip(at.document(ZONE, "0")), "documents", True),
    "an array's document is empty": (lambda at: empty(at.document(ZONE, "0", "reflectance")), "documents", True),
    "x is in degrees": (
        lambda at: edit(at.document(ZONE, "0", "x"), lambda x: x["attributes"].update(units="degrees")),
        "documents",
        False,
    ),
    "a document of the history is gone": (lambda at: at.kept()[0].unlink(), "documents", False),
    "a document of the history is cut": (lambda at: cut(at.kept()[-1]), "documents", False),
    "all documents of the history are empty": (lambda at: [empty(path) for path in at.kept()], "documents", True),
    "a bit of everything": (a_bit_of_everything, "documents", False),
    "a bit of a chip that was blended": (lambda at: flip(at.chips()[5]), "chips", False),
    "a chip that was blended is another": (lambda at: swap(*at.chips()[:2]), "chips", False),
    "a chip before it is blended": (a_chip_before_it_is_blended, "chips", False),
    "no chip can be blended": (no_chip_can_be_blended, "chips", False),
}


@pytest.fixture(scope="session")
def kept_run(_ray, world, tmp_path_factory) -> Path:
    """As `finished_run`, with all chips staged still."""
    path = write_config(world, tmp_path_factory.mktemp("kept"), store={"url": "run.zarr", "keep_chips": True})
    assert execute(load_config(path), _Silent()).exit_code == 0
    return path


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(name, marks=() if quick else (pytest.mark.slow, pytest.mark.timeout(300)))
        for name, (_, _, quick) in CASES.items()
    ],
)
def test_what_is_damaged_is_named_and_made_whole_bit_for_bit(case, difffusr, request, tmp_path):
    damage, heading, quick = CASES[case]
    published = request.getfixturevalue("finished_run" if quick else "kept_run")
    check(Place(Path(shutil.copytree(published.parent, tmp_path / "run"), published.name)), damage, heading, difffusr)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["a shard's quality is cut", "a shard and what is above", "an entry of the ledger"])
def test_so_are_shards_whose_chips_have_to_be_computed_again(case, difffusr, finished):
    check(Place(finished), *CASES[case][:2], difffusr)


def check(place: Place, damage: Callable[[Place], object], heading: str, difffusr: Callable[..., Any]) -> None:
    before, told = place.files(), place.config.parent / "report.json"
    damage(place)
    checked = difffusr("verify", place.config, "--json", told)
    report = json.loads(told.read_text())
    assert checked.code == 1, checked.err
    assert report[heading]
    named = max(report[heading][0].split("/")[-2:], key=len)[:24]  # the table breaks long names
    assert named in re.sub(r"\s+", "", checked.out)
    (command,) = re.findall(r"`difffusr (\w+) ", checked.out)
    assert difffusr(command, place.config).code == 0
    after = place.files()
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == []
    assert "nothing has changed" in difffusr("run", place.config).out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_repository_gets_a_new_snapshot_without_the_damage(difffusr, configure, tmp_path):
    """Snapshots never change: what readers see is whole again, in another one."""
    path = configure(store={"url": "icechunk+run.ice", "keep_chips": True})
    assert difffusr("run", path).code == 0
    before = pixels(path)
    chunks = sorted((tmp_path / "run.ice" / "chunks").iterdir(), key=lambda chunk: chunk.stat().st_size)
    for damage, chunk in ((flip, chunks[-1]), (cut, chunks[-2])):
        whole = chunk.read_bytes()
        damage(chunk)
        checked = difffusr("verify", path, "--json", tmp_path / "report.json")
        report = json.loads((tmp_path / "report.json").read_text())
        assert (checked.code, len(report["damaged"])) == (1, 1), checked.err
        ended = difffusr("run", path)
        assert ended.code == 0, ended.err
        assert "(revision, snapshot" in ended.out
        now = pixels(path)
        assert all(np.array_equal(now[name], before[name]) for name in before)
        assert not (tmp_path / "run.staging" / "runs" / report_folder(path) / "damaged.json").exists()
        chunk.write_bytes(whole)
    for path_in_cube, change in (
        (f"{ZONE}/0/zarr.json", lambda data: data.replace(b"CF-1.11", b"CF-1.00")),
        (f"{ZONE}/1/y/c/0", lambda data: None),
        ("zarr.json", lambda data: None),
    ):
        committed(path, path_in_cube, change)
        checked = difffusr("verify", path, "--json", tmp_path / "report.json")
        report = json.loads((tmp_path / "report.json").read_text())
        assert checked.code == 1, checked.err
        assert path_in_cube in report["documents"]
        assert (report["damaged"], report["missing"]) == ([], [])
        ended = difffusr("run", path)
        assert ended.code == 0, ended.err
        now = pixels(path)
        assert all(np.array_equal(now[name], before[name]) for name in before)
        assert json.loads(difffusr("verify", path, "--json", "-").out)["documents"] == []


def committed(path: Path, path_in_cube: str, change: Callable[[bytes], bytes | None]) -> None:
    """A stranger commits another object, or takes it away."""
    repository = open_repository(storage_of(load_config(path)))
    assert repository is not None
    session = repository.writable_session("main")
    data = object_in(session.store, path_in_cube)
    assert data is not None
    new = change(data)
    assert new != data
    if new is None:
        sync(session.store.delete(path_in_cube))
    else:
        sync(session.store.set(path_in_cube, default_buffer_prototype().buffer.from_bytes(new)))
    session.commit("a stranger's")


def report_folder(path: Path) -> str:
    return load_config(path).period.label


def pixels(path: Path) -> dict[str, Any]:
    """What readers of a repository see, of every level."""
    cube = Cube(storage_of(load_config(path)))
    return {
        f"{level}/{name}": np.asarray(cube.array(int(ZONE), name, level)[...])
        for level in range(1 + cube.overviews(int(ZONE)))
        for name in ("reflectance", "quality", "source")
    }
