"""A published cube changes all at once, whole, and back: a plain Zarr store on disk and on S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from small_cubes import EPSG, GRID, GROUP, SHARDS, drafted, label, month, pixels, published, raw, readers, seen, write

from difffusr.pipeline.cube.documents import metadata, object_bytes
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.reading import CubeReader
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.ground.errors import DifffusrError, StoreError
from difffusr.pipeline.publish.door import open_target, rollback
from difffusr.pipeline.publish.publications import history
from difffusr.pipeline.publish.revisions import next_revision, was_seen
from difffusr.pipeline.storage.objects import Storage

JANUARY, BOTH = {"2023-01": {11}}, {"2023-01": {11}, "2023-02": {12}}


@pytest.fixture
def on_disk(tmp_path: Path) -> tuple[Storage, Storage]:
    """A cube and its staging folder on a file system."""
    return Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "cube.staging"))


@pytest.fixture
def on_s3(bucket: str, s3_options: dict[str, Any]) -> tuple[Storage, Storage]:
    """A cube and its staging folder in a bucket."""
    return Storage(f"s3://{bucket}/cube.zarr", s3_options), Storage(f"s3://{bucket}/cube.staging", s3_options)


@pytest.fixture(params=["on_disk", "on_s3"])
def places(request: pytest.FixtureRequest) -> tuple[Storage, Storage]:
    """One after the other."""
    places: tuple[Storage, Storage] = request.getfixturevalue(request.param)
    return places


def opened(storage: Storage) -> xr.Dataset:
    """As anybody opens a cube: nothing but xarray."""
    options = dict(storage.options) or None
    return raw(xr.open_zarr, storage.url, storage_options=options)


def revised(storage: Storage, staging: Storage, number: int, value: int, **more: Any) -> Any:
    """A published month again, with other pixels, in the revision that a run would choose."""
    zone = drafted(storage, number).zones[EPSG]
    return published(storage, staging, number, value, revise=next_revision(staging, EPSG, zone.lineage), **more)


def appended(storage: Storage, staging: Storage, number: int, value: int, **more: Any) -> Any:
    """A new month, in a new revision where a run would choose one."""
    zone = drafted(storage, number).zones[EPSG]
    if was_seen(staging, EPSG, zone.revision, zone.step):
        return revised(storage, staging, number, value, **more)
    return published(storage, staging, number, value, **more)


def test_readers_see_whole_states_alone(places):
    storage, staging = places
    appended(storage, staging, 1, 11)
    first = opened(storage)
    with readers(lambda: opened(storage)) as found:
        appended(storage, staging, 2, 12)
        second = opened(storage)
        revised(storage, staging, 1, 13)
        # who opened before still reads what there was then
        assert seen(first) == JANUARY
        assert seen(second) == BOTH
        appended(storage, staging, 3, 14)
    states = [JANUARY, BOTH, {"2023-01": {13}, "2023-02": {12}}]
    states.append({**states[-1], "2023-03": {14}})
    assert found
    assert all(state in states for state in found), found
    assert seen(opened(storage)) == states[-1]


def test_the_path_of_a_zone_is_the_same_in_every_revision(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 1)
    for value in range(2, 8):
        revised(storage, staging, 1, value)
        assert seen(opened(storage)) == {"2023-01": {value}}


def test_root_and_zone_tell_the_same_in_every_consolidated_document(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    revised(storage, staging, 1, 12)
    appended(storage, staging, 2, 13)
    own = zarr.open_consolidated(storage.url, path=GROUP)
    for path, inside in (("", GROUP), (str(EPSG), "0")):
        group = zarr.open_consolidated(storage.url, path=path)[inside]
        assert isinstance(group, zarr.Group)
        assert dict(group.attrs) == dict(own.attrs)
        for name, array in own.arrays():
            assert group[name].metadata == array.metadata, (path, name)


def test_the_root_stays_consolidated_where_zones_join(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 1, 12, zones=(32649,))
    root = zarr.open_consolidated(storage.url)
    assert int(np.asarray(root[f"{GROUP}/source"]).max()) == 11
    assert int(np.asarray(root["32649/0/source"]).max()) == 12
    before = metadata(storage, f"{GROUP}/zarr.json")
    appended(storage, staging, 2, 13, zones=(32649,))
    assert metadata(storage, f"{GROUP}/zarr.json") == before


def test_shards_that_stay_are_linked_on_disk(on_disk, tmp_path):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    revised(storage, staging, 1, 13, shards=SHARDS[:1])
    assert seen(opened(storage)) == {"2023-01": {11, 13}, "2023-02": {12}}
    files = [path for path in (tmp_path / "cube.zarr" / GROUP / "reflectance").rglob("*") if path.is_file()]
    shared = [path for path in files if path.stat().st_nlink == 2]
    assert len(shared) == 2 * 7  # four shards of one month and three of the other, each under two names


def test_where_there_are_no_links_shards_are_copied(on_disk, monkeypatch):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    zone = drafted(storage, 1).zones[EPSG]
    target = open_target(
        storage, staging, drafted(storage, 1, revise=next_revision(staging, EPSG, zone.lineage)), label(1)
    )
    write(target, 13, SHARDS[:1])
    monkeypatch.setattr("os.link", refuse)
    target.settle({(EPSG, shard) for shard in SHARDS}, {(EPSG, SHARDS[0])})
    monkeypatch.undo()
    target.publish(shards_written=1, keep=1)
    assert seen(opened(storage)) == {"2023-01": {11, 13}}


def test_writing_over_a_link_leaves_the_older_revision_alone(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    before = opened(storage)
    revision = next_revision(staging, EPSG, drafted(storage, 1).zones[EPSG].lineage)
    target = open_target(storage, staging, drafted(storage, 1, revise=revision), label(1))
    target.begin()
    planned = {(EPSG, shard) for shard in SHARDS}
    target.settle(planned, set())  # all of them linked; then the run is interrupted, and two have changed
    write(target, 13, SHARDS[:2])
    target.settle(planned, {(EPSG, shard) for shard in SHARDS[:2]})
    target.publish(shards_written=2, keep=1)
    assert seen(before) == JANUARY
    assert seen(opened(storage)) == {"2023-01": {11, 13}}


def test_a_shard_that_is_no_longer_planned_is_dropped(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    revision = next_revision(staging, EPSG, drafted(storage, 1).zones[EPSG].lineage)
    target = open_target(storage, staging, drafted(storage, 1, revise=revision), label(1))
    target.begin()
    target.settle({(EPSG, shard) for shard in SHARDS[1:]}, set())
    target.publish(shards_written=0, keep=1)
    here = opened(storage)
    assert seen(here) == {"2023-01": {0, 11}, "2023-02": {12}}
    assert int((here.source.isel(time=0) == 0).sum()) == GRID.shard_px**2


def test_a_resumed_run_finds_what_is_written_by_listing(places):
    storage, staging = places
    appended(storage, staging, 1, 11)
    for revise in (None, 1):
        number = 2 if revise is None else 1
        target = open_target(storage, staging, drafted(storage, number, revise=revise), label(number))
        write(target, 22, SHARDS[:2])
        again = open_target(storage, staging, drafted(storage, number, revise=revise), label(number))
        again.begin()
        expected = {path for shard in SHARDS[:2] for path in again.draft.shard_objects(EPSG, shard)}
        assert again.present() == expected
        assert again.state(EPSG) == target.state(EPSG)
        assert again.state(EPSG) in again.lineage(EPSG)
    assert seen(opened(storage)) == JANUARY


def test_what_readers_see_is_told_from_what_is_to_come(on_disk):
    storage, staging = on_disk
    assert not open_target(storage, staging, drafted(storage, 1), label(1)).published(EPSG)
    appended(storage, staging, 1, 11)
    revision = open_target(storage, staging, drafted(storage, 1, revise=1), label(1))
    as_seen = open_target(storage, staging, drafted(storage, 1), label(1))
    assert revision.state(EPSG) not in as_seen.lineage(EPSG)
    assert as_seen.published(EPSG) == as_seen.lineage(EPSG) == revision.published(EPSG)
    assert set(revision.lineage(EPSG)) == {*as_seen.lineage(EPSG), revision.state(EPSG)}
    assert not open_target(storage, staging, drafted(storage, 2), label(2)).published(EPSG)


# ---- history and rollback -------------------------------------------------------------------------------------------


def test_the_history_tells_every_publication(on_disk):
    storage, staging = on_disk
    assert history(staging) == []
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    revised(storage, staging, 1, 13, shards=SHARDS[:1])
    told = history(staging)
    assert [(r.number, r.kind, r.shards_written, r.current) for r in told] == [
        (3, "revision", 1, True),
        (2, "period", 4, False),
        (1, "period", 4, False),
    ]
    assert [dict(r.zones) for r in told] == [{EPSG: 1}, {EPSG: 0}, {EPSG: 0}]
    assert told[0].where == "revision 1"
    assert told[0].when >= told[1].when >= told[2].when


def test_a_rollback_brings_a_state_back_and_is_itself_remembered(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    revised(storage, staging, 1, 13)
    before = opened(storage)
    now = rollback(storage, staging)
    assert (now.number, now.kind, now.restores) == (4, "rollback", 2)
    assert seen(opened(storage)) == BOTH
    assert rollback(storage, staging).restores == 1
    assert seen(opened(storage)) == JANUARY
    assert seen(before) == {"2023-01": {13}, "2023-02": {12}}
    assert rollback(storage, staging, to=3).restores == 3  # and forward again
    assert seen(opened(storage)) == {"2023-01": {13}, "2023-02": {12}}
    assert [record.number for record in history(staging)] == [6, 5, 4, 3, 2, 1]


def test_readers_see_whole_states_alone_while_a_state_is_brought_back(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    revised(storage, staging, 1, 13)
    states = [JANUARY, BOTH, {"2023-01": {13}, "2023-02": {12}}]
    with readers(lambda: opened(storage)) as found:
        for number in (2, 3, 1, 3, 2):
            rollback(storage, staging, to=number)
            assert seen(opened(storage)) == states[number - 1]
    assert found
    assert all(state in states for state in found), found


def test_there_must_be_something_to_go_back_to(on_disk):
    storage, staging = on_disk
    with pytest.raises(DifffusrError, match="nothing was published yet"):
        rollback(storage, staging)
    appended(storage, staging, 1, 11)
    for to, part in ((None, "nothing before"), (7, "no publication 7")):
        with pytest.raises(DifffusrError, match=part) as caught:
            rollback(storage, staging, to=to)
        assert "\n" not in str(caught.value)
    assert seen(opened(storage)) == JANUARY


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_so_many_earlier_revisions_are_kept(on_disk, keep):
    storage, staging = on_disk
    appended(storage, staging, 1, 1)
    cubes = [opened(storage)]
    for value in range(2, 8):
        revised(storage, staging, 1, value, keep=keep)
        cubes.append(opened(storage))
        for back in range(min(keep, value - 1)):
            assert seen(cubes[-2 - back]) == {"2023-01": {value - 1 - back}}
    names = {name.split("/")[0] for name in storage.names(f"{GROUP}/reflectance")} - {"zarr.json"}
    shards = [name for name in storage.names(f"{GROUP}/reflectance") if name != "zarr.json"]
    assert len(shards) == (keep + 1) * len(SHARDS), names
    for number in range(7 - keep, 7):
        rollback(storage, staging, to=number)
        assert seen(opened(storage)) == {"2023-01": {number}}
    with pytest.raises(DifffusrError, match="have been deleted") as caught:
        rollback(storage, staging, to=7 - keep - 1)
    assert "keep_revisions" in str(caught.value)


def test_after_a_rollback_another_period_takes_the_place(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    undone = opened(storage)
    rollback(storage, staging)
    appended(storage, staging, 3, 33)
    assert seen(opened(storage)) == {**JANUARY, "2023-03": {33}}
    assert seen(undone) == BOTH
    rollback(storage, staging, to=2)
    assert seen(opened(storage)) == BOTH


def test_a_place_that_was_taken_twice_shows_the_month_that_it_held(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    for number in (2, 3, 4):
        appended(storage, staging, number, 10 + number, keep=3)
        rollback(storage, staging, to=1)
    for publication, number in ((2, 2), (4, 3), (6, 4)):
        rollback(storage, staging, to=publication)
        assert seen(opened(storage)) == {**JANUARY, f"2023-0{number}": {10 + number}}


def test_no_revision_takes_the_keys_that_readers_look_at(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    for value in range(12, 20):
        before = opened(storage)
        revised(storage, staging, 1, value)
        assert seen(before) == JANUARY
        rollback(storage, staging, to=1)
        assert seen(opened(storage)) == JANUARY


def test_a_rollback_reaches_the_zones_of_other_runs(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 1, 21, zones=(32649,))
    appended(storage, staging, 2, 12)
    appended(storage, staging, 2, 22, zones=(32649,))
    rollback(storage, staging, to=2)
    root = zarr.open_consolidated(storage.url)
    for zone in (EPSG, 32649):
        alone = zarr.open_consolidated(storage.url, path=f"{zone}/0")
        assert alone["source"].shape[0] == 1
        inside = root[f"{zone}/0/source"]
        assert isinstance(inside, zarr.Array)
        assert inside.shape[0] == 1
    rollback(storage, staging, to=1)
    assert metadata(storage, "32649/0/zarr.json") is None


# ---- interruptions --------------------------------------------------------------------------------------------------


class _Dying(Storage):
    """A store whose driver dies after so many writes."""

    left = 0

    def write(self, name: str, data: bytes) -> None:
        if type(self).left == 0:
            raise KeyboardInterrupt
        type(self).left -= 1
        super().write(name, data)


@pytest.mark.parametrize("revises", [False, True])
def test_a_driver_that_dies_amid_publishing_leaves_whole_states(on_disk, revises):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    number, value = (1, 13) if revises else (2, 12)
    new = {"2023-01": {13}} if revises else BOTH
    plan = {(EPSG, shard) for shard in SHARDS}
    deaths = 0
    while True:
        draft = drafted(_Dying(storage.url), number, revise=1 if revises else None)
        target = open_target(draft.storage, staging, draft, label(number))
        _Dying.left = deaths
        if deaths == 0:
            write(target, value)
        target.settle(plan, plan)
        try:
            target.publish(shards_written=4, keep=1)
        except KeyboardInterrupt:
            deaths += 1
            assert seen(opened(storage)) in (JANUARY, new)
        else:
            break
    assert deaths > 10
    assert seen(opened(storage)) == new
    assert [record.number for record in history(staging)] == [2, 1]


def test_a_half_published_state_can_be_rolled_back(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    draft = drafted(_Dying(storage.url), 1, revise=1)
    target = open_target(draft.storage, staging, draft, label(1))
    write(target, 13)
    target.settle({(EPSG, shard) for shard in SHARDS}, {(EPSG, shard) for shard in SHARDS})
    _Dying.left = len(draft.objects) - 1  # all but the root's document, which xarray reads
    with pytest.raises(KeyboardInterrupt):
        target.publish(shards_written=4, keep=1)

    def alone() -> set[int]:
        group = zarr.open_consolidated(storage.url, path=GROUP)
        return set(np.unique(np.asarray(group["source"])).tolist())

    assert seen(opened(storage)) == BOTH
    assert alone() == {12, 13}
    rollback(storage, staging, to=2)
    assert seen(opened(storage)) == BOTH
    assert alone() == {11, 12}


def test_one_period_s_unfinished_shards_are_not_taken_for_another_s(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    february = open_target(storage, staging, drafted(storage, 2), label(2))
    write(february, 12)
    march = open_target(storage, staging, drafted(storage, 3), label(3))
    write(march, 13)
    again = open_target(storage, staging, drafted(storage, 2), label(2))
    there = again.present() >= set(again.draft.shard_objects(EPSG, SHARDS[0]))
    assert not (there and february.state(EPSG) in again.lineage(EPSG))


def test_a_shard_that_is_refused_is_said_in_one_line(on_disk, tmp_path):
    storage, staging = on_disk
    (tmp_path / "cube.zarr").write_text("a file where the cube should be")
    with pytest.raises(StoreError) as caught:
        published(storage, staging, 1, 11)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "cube.zarr") in str(caught.value)


# ---- the store ------------------------------------------------------------------------------------------------------


def test_scenes_keep_their_numbers(on_disk):
    storage, staging = on_disk
    for number in (1, 2, 3):
        appended(storage, staging, number, 10 + number)
    revised(storage, staging, 2, 22)
    root = metadata(storage, "zarr.json")
    assert root is not None
    ids = {n: facts["id"] for n, facts in root["attributes"]["difffusr:scenes"].items()}
    assert ids == {str(n): f"scene of {label(n)}" for n in (1, 2, 3)}


def test_an_object_is_read_back_as_it_was_written(on_disk):
    import hashlib

    storage, staging = on_disk
    target = open_target(storage, staging, drafted(storage, 1), label(1))
    target.begin()
    receipt = target.writer().write(EPSG, SHARDS[0], pixels(5))
    for path, checksum in receipt.objects.items():
        assert hashlib.sha256(object_bytes(storage, path) or b"").hexdigest() == checksum
    assert object_bytes(storage, f"{GROUP}/nothing") is None
    assert metadata(storage, "zarr.json") is None


def test_the_cube_s_own_reader_follows_the_revisions(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    revised(storage, staging, 1, 12)
    got = CubeReader(storage, drafted(storage, 1)).read(EPSG, "source", GRID.shard_window(SHARDS[0]))
    assert set(np.unique(got).tolist()) == {12}


def test_other_ground_is_refused(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    with pytest.raises(DifffusrError, match="already holds zone"):
        draft_cube(storage, GRID, {EPSG: PixelWindow(0, 0, 128, 128)}, month(2), [], {})


def test_every_document_of_a_publication_is_in_the_history(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    kept = json.loads(staging.read("history/000001.json"))
    for path, text in kept["documents"].items():
        assert storage.read(path) == text.encode(), path
    assert {"zarr.json", f"{EPSG}/zarr.json", f"{GROUP}/zarr.json", f"{GROUP}/time/zarr.json"} <= set(kept["documents"])
