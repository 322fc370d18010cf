"""A published cube changes all at once, and whole: a plain Zarr store on disk and on S3."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from plain_cubes import BOTH, JANUARY, DyingStorage, appended, opened, revised
from small_cubes import EPSG, GRID, GROUP, SHARDS, drafted, label, published, readers, seen, write

from difffusr.pipeline.cube.documents import metadata
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.publish.publications import history
from difffusr.pipeline.publish.revisions import next_revision
from difffusr.pipeline.storage.objects import Storage


@pytest.fixture(params=["on_disk", "on_s3"])
def places(request: pytest.FixtureRequest) -> tuple[Storage, Storage]:
    """One after the other."""
    places: tuple[Storage, Storage] = request.getfixturevalue(request.param)
    return places


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
        assert again.present().keys() == expected
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


@pytest.mark.parametrize("revises", [False, True])
def test_a_driver_that_dies_amid_publishing_leaves_whole_states(on_disk, revises):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    number, value = (1, 13) if revises else (2, 12)
    new = {"2023-01": {13}} if revises else BOTH
    plan = {(EPSG, shard) for shard in SHARDS}
    deaths = 0
    while True:
        draft = drafted(DyingStorage(storage.url), number, revise=1 if revises else None)
        target = open_target(draft.storage, staging, draft, label(number))
        DyingStorage.left = 1000
        if deaths == 0:
            write(target, value)
        target.settle(plan, plan)
        DyingStorage.left = deaths
        try:
            target.publish(shards_written=4, keep=1)
        except KeyboardInterrupt:
            deaths += 6  # `test_killed` dies at each request
            assert seen(opened(storage)) in (JANUARY, new)
        else:
            break
    assert deaths > 30
    assert seen(opened(storage)) == new
    assert [record.number for record in history(staging)] == [2, 1]


def test_one_period_s_unfinished_shards_are_not_taken_for_another_s(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    february = open_target(storage, staging, drafted(storage, 2), label(2))
    write(february, 12)
    march = open_target(storage, staging, drafted(storage, 3), label(3))
    write(march, 13)
    again = open_target(storage, staging, drafted(storage, 2), label(2))
    there = again.present().keys() >= set(again.draft.shard_objects(EPSG, SHARDS[0]))
    assert not (there and february.state(EPSG) in again.lineage(EPSG))


def test_a_shard_that_is_refused_is_said_in_one_line(on_disk, tmp_path):
    storage, staging = on_disk
    (tmp_path / "cube.zarr").write_text("a file where the cube should be")
    with pytest.raises(StoreError) as caught:
        published(storage, staging, 1, 11)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "cube.zarr") in str(caught.value)
