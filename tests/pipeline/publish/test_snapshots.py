"""What a stranger commits to the repository of a published cube is found by the snapshot that was published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from small_cubes import EPSG, GROUP, drafted, label, published
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from difffusr.pipeline.cube.icechunk import open_repository
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.cube.store import store_of
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.door import open_target, rollback
from difffusr.pipeline.publish.kept import (
    as_published,
    damaged_documents,
    damaged_history,
    lost_publications,
    mend_documents,
)
from difffusr.pipeline.publish.publications import history
from difffusr.pipeline.storage.objects import Storage

Places = tuple[Storage, Storage]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two months."""
    folder = tmp_path_factory.mktemp("made")
    places = Storage(f"icechunk+{folder}/cube.icechunk"), Storage(str(folder / "cube.staging"))
    published(*places, 1, 11)
    published(*places, 2, 12)
    return folder


@pytest.fixture
def places(made: Path, tmp_path: Path) -> Places:
    """The same, to do with as a test likes."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Storage(f"icechunk+{tmp_path}/cube.icechunk"), Storage(str(tmp_path / "cube.staging"))


def committed(storage: Storage, change: Callable[[Any], object]) -> str:
    """Somebody changes something in what readers see."""
    repository = open_repository(storage)
    assert repository is not None
    session = repository.writable_session("main")
    change(session.store)
    return session.commit("a stranger's")


def edit(path: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Any], None]:
    def edited(store: Any) -> None:
        document = json.loads(sync(store.get(path, default_buffer_prototype())).to_bytes())
        change(document)
        sync(store.set(path, default_buffer_prototype().buffer.from_bytes(json.dumps(document).encode())))

    return edited


def set_values(name: str, value: float) -> Callable[[Any], None]:
    def changed(store: Any) -> None:
        array = zarr.open_array(store, path=name)
        array[:1] = value

    return changed


def page_deleted(store: Any) -> None:
    pages = dict(zarr.open_group(store, mode="r").attrs)["difffusr:scene_pages"]
    sync(store.delete(f"{min(pages.values())}/c"))


def moved_away(store: Any) -> None:
    sync(store.delete_dir(GROUP))


DAMAGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a title": (edit("zarr.json", lambda root: root["attributes"].update(title="mine")), "zarr.json"),
    "zones": (edit("zarr.json", lambda root: root["attributes"].pop("difffusr:zones")), "zarr.json"),
    "a zone's": (edit(f"{EPSG}/zarr.json", lambda zone: zone["attributes"].clear()), f"{EPSG}/zarr.json"),
    "periods": (
        edit(f"{GROUP}/zarr.json", lambda level: level["attributes"].update({"difffusr:periods": "[]"})),
        f"{GROUP}/zarr.json",
    ),
    "a scale": (
        edit(f"{GROUP}/reflectance/zarr.json", lambda array: array["attributes"].update(scale_factor=1.0)),
        f"{GROUP}/reflectance/zarr.json",
    ),
    "x": (set_values(f"{GROUP}/x", 0), f"{GROUP}/x/c/0"),
    "y of an overview": (set_values(f"{EPSG}/1/y", 7.5), f"{EPSG}/1/y/c/0"),
    "time": (set_values(f"{GROUP}/time", 3), f"{GROUP}/time/c/0"),
    "a page of scenes": (page_deleted, "/c"),
    "a level": (moved_away, f"{GROUP}/zarr.json"),
    "everything": (lambda store: sync(store.clear()), "zarr.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_stranger_has_changed_is_named_and_whole_again(places, damage):
    storage, staging = places
    before, (change, named) = values(storage), DAMAGES[damage]
    assert damaged_documents(*places) == {}
    theirs = committed(storage, change)
    found = damaged_documents(*places)
    assert any(path.endswith(named) for path in found)
    assert damaged_history(*places) == {}
    right = as_published(storage, staging, found)
    assert values(right) == before
    assert values(as_published(storage, staging, {}), fallback={}) != before
    assert mend_documents(*places, None) == sorted(found)
    assert values(storage) == before
    assert damaged_documents(*places) == {}
    repository = open_repository(storage)
    assert repository is not None
    assert repository.lookup_branch("main") == history(staging)[0].snapshot
    assert repository.lookup_tag(f"others-{theirs}") == theirs  # nothing of theirs is lost
    published(*places, 3, 13)
    assert len(Cube(storage).periods(EPSG)) == 3
    rollback(*places, to=1)
    assert len(Cube(storage).periods(EPSG)) == 1
    assert damaged_documents(*places) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda store: zarr.create_group(store, path="mine"),
        set_values(f"{GROUP}/source", 0),
        edit("zarr.json", lambda root: root.update(attributes=dict(reversed(root["attributes"].items())))),
    ],
    ids=["a group of their own", "pixels", "the order of words"],
)
def test_what_is_not_of_the_cube_s_documents_stays_and_the_ledger_is_good_still(places, change):
    """Pixels are compared with the ledger."""
    storage, staging = places
    lineage = open_target(storage, staging, drafted(storage, 2), label(2)).published(EPSG)
    assert len(lineage) == 2
    theirs = committed(storage, change)
    assert damaged_documents(*places) == {}
    assert mend_documents(*places, None) == []
    repository = open_repository(storage)
    assert repository is not None
    assert repository.lookup_branch("main") == theirs
    assert open_target(storage, staging, drafted(storage, 2), label(2)).published(EPSG) == lineage


def test_a_publication_that_the_history_does_not_know_is_nobody_s_damage(places):
    """The history was restored from a copy, or its driver died before it could write it down."""
    storage, staging = places
    kept = {name: staging.read(name) for name in ("history/000001.json", "history/000002.json")}
    published(*places, 3, 13)
    staging.delete("history/000003.json")
    assert kept.keys() == {f"history/{name}" for name in staging.names("history")}
    assert damaged_documents(*places) == {}
    assert mend_documents(*places, None) == []
    assert len(Cube(storage).periods(EPSG)) == 3


@pytest.mark.parametrize("what", ["gone", "empty"])
def test_a_rollback_to_a_snapshot_that_is_gone_is_one_line_and_takes_nothing_away(places, tmp_path, what):
    storage, staging = places
    before, latest = values(storage), history(staging)
    assert lost_publications(*places) == {}
    record = json.loads(staging.read("history/000001.json"))
    (file,) = (tmp_path / "cube.icechunk" / "snapshots").glob(f"{record['snapshot']}*")
    file.unlink() if what == "gone" else file.write_bytes(b"")
    with pytest.raises(StoreError) as said:
        rollback(*places)
    assert "\n" not in str(said.value)
    assert f"snapshot {record['snapshot']} is gone" in str(said.value)
    assert lost_publications(*places).keys() == {1}
    assert values(storage) == before
    assert [one.number for one in history(staging)] == [one.number for one in latest]
    published(*places, 3, 13)
    assert len(Cube(storage).periods(EPSG)) == 3


def values(storage: Storage, fallback: Any = None) -> dict[str, Any]:
    """All that readers see of a level, as lists; `fallback` where they see no cube."""
    try:
        cube = Cube(storage)
        group = cube.group(EPSG)
        attributes = [dict(cube.attributes), dict(group.attrs), cube.of_zone(EPSG)]
        arrays = {name: np.asarray(array[...]).tolist() for name, array in group.arrays()}
        inner = {name: dict(array.attrs) for name, array in group.arrays()}
        y = np.asarray(cube.group(EPSG, 1)["y"][...]).tolist()
        return {"attributes": attributes, **arrays, "inner": inner, "scenes": dict(cube.scenes), "y": y}
    except Exception:
        if fallback is None:
            raise
        return dict(fallback)


def test_the_snapshot_of_a_storage_is_what_is_read_of_it(places):
    storage, staging = places
    first = history(staging)[-1].snapshot
    earlier = Storage(storage.url, storage.options, first)
    assert len(Cube(earlier).periods(EPSG)) == 1
    assert store_of(earlier).objects()("zarr.json") != store_of(storage).objects()("zarr.json")
