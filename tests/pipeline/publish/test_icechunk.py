"""A cube in an Icechunk repository: a run works where no reader looks, and publishing is one step for all of them."""

from __future__ import annotations

import pickle
from pathlib import Path

import icechunk
import pytest
import xarray as xr
from small_cubes import EPSG, GRID, SHARDS, drafted, label, pixels, published, raw, readers, seen, write

from difffusr.pipeline.cube.documents import metadata, object_bytes
from difffusr.pipeline.cube.icechunk import open_repository
from difffusr.pipeline.cube.reading import CubeReader
from difffusr.pipeline.cube.store import open_store
from difffusr.pipeline.geo.grid import ShardIndex
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.publish.door import open_target, rollback
from difffusr.pipeline.publish.icechunk import IcechunkTarget
from difffusr.pipeline.publish.publications import history
from difffusr.pipeline.storage.objects import Storage


@pytest.fixture(params=["disk", "s3"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, Storage]:
    """A cube and its staging folder, on a file system and on S3."""
    staging = Storage(str(tmp_path / "cube.staging"))
    if request.param == "disk":
        return Storage(f"icechunk+{tmp_path}/cube.icechunk"), staging
    bucket, options = request.getfixturevalue("bucket"), request.getfixturevalue("s3_options")
    return Storage(f"icechunk+s3://{bucket}/cube", options), staging


@pytest.fixture
def local(tmp_path: Path) -> tuple[Storage, Storage]:
    """A cube and its staging folder on a file system."""
    return Storage(f"icechunk+file://{tmp_path}/cube.icechunk"), Storage(str(tmp_path / "cube.staging"))


def opened(storage: Storage) -> xr.Dataset:
    """As a reader who knows Icechunk opens the cube."""
    repository = open_repository(storage)
    assert repository is not None
    return raw(xr.open_zarr, repository.readonly_session("main").store, consolidated=False)


def target_of(storage: Storage, staging: Storage, number: int, revise: int | None = None) -> IcechunkTarget:
    target = open_target(storage, staging, drafted(storage, number, revise=revise), label(number))
    assert isinstance(target, IcechunkTarget)
    return target


def test_readers_see_whole_states_alone(places):
    storage, staging = places
    published(storage, staging, 1, 11)
    first = opened(storage)
    with readers(lambda: opened(storage)) as found:
        published(storage, staging, 2, 12)
        second = opened(storage)
        published(storage, staging, 1, 13, revise=4)
        published(storage, staging, 3, 14)
    states = [{"2023-01": {11}}, {"2023-01": {11}, "2023-02": {12}}, {"2023-01": {13}, "2023-02": {12}}]
    states.append({**states[-1], "2023-03": {14}})
    assert found
    assert all(state in states for state in found)
    assert seen(opened(storage)) == states[-1]
    # who opened before still reads what there was then
    assert seen(first) == states[0]
    assert seen(second) == states[1]


def test_a_shard_that_stays_is_not_written_again(local):
    storage, staging = local
    published(storage, staging, 1, 11)
    published(storage, staging, 1, 12, revise=4, shards=SHARDS[:1])
    assert seen(opened(storage)) == {"2023-01": {11, 12}}
    assert int((opened(storage).source == 12).sum()) == GRID.shard_px**2


def test_nothing_is_written_before_a_run_begins(local, tmp_path):
    storage, staging = local
    target = target_of(storage, staging, 1)
    assert target.present().keys() == set()
    assert not target.lineage(EPSG)
    assert not target.published(EPSG)
    assert list(tmp_path.iterdir()) == []


def test_forks_taken_at_one_time_are_merged_one_by_one_as_they_come_back(places):
    storage, staging = places
    target = target_of(storage, staging, 1)
    target.begin()
    early = pickle.dumps(target.writer())  # as it travels to every task
    for i, shard in enumerate(SHARDS[:3]):
        receipt = pickle.loads(early).write(EPSG, shard, pixels(21 + i))
        target.accept([pickle.loads(pickle.dumps(receipt))])
    late = target.writer().write(EPSG, SHARDS[3], pixels(24))
    target.accept([late])
    target.publish(shards_written=4, keep=1)
    assert seen(opened(storage)) == {"2023-01": {21, 22, 23, 24}}


def test_several_shards_come_back_at_once_from_one_writer(local):
    storage, staging = local
    target = target_of(storage, staging, 1)
    write(target, 7)
    target.accept([])
    target.publish(shards_written=4, keep=1)
    assert seen(opened(storage)) == {"2023-01": {7}}


def test_receipts_tell_the_objects_that_readers_find(local):
    import hashlib

    storage, staging = local
    target = target_of(storage, staging, 1)
    target.begin()
    receipt = target.writer().write(EPSG, SHARDS[0], pixels(7))
    assert set(receipt.objects) == set(target.draft.shard_objects(EPSG, SHARDS[0]))
    assert target.present().keys() == set()  # not before it is accepted
    target.accept([receipt])
    assert target.present().keys() == set(receipt.objects)
    target.publish(shards_written=1, keep=1)
    for path, checksum in receipt.objects.items():
        data = object_bytes(storage, path)
        assert data is not None
        assert hashlib.sha256(data).hexdigest() == checksum


def test_an_interrupted_run_goes_on_where_it_was(places):
    storage, staging = places
    published(storage, staging, 1, 11)
    first = target_of(storage, staging, 2)
    write(first, 22, SHARDS[:2])
    state = first.state(EPSG)
    again = target_of(storage, staging, 2)
    assert state in again.lineage(EPSG)
    expected = {path for shard in SHARDS[:2] for path in again.draft.shard_objects(EPSG, shard)}
    assert again.present().keys() == expected
    again.begin()
    assert {state, again.state(EPSG)} <= set(again.lineage(EPSG))
    assert again.replaced(EPSG) == {state, again.state(EPSG)}  # what either entered goes once a shard is written anew
    assert again.present().keys() == expected
    write(again, 22, SHARDS[2:])
    again.publish(shards_written=4, keep=1)
    assert seen(opened(storage)) == {"2023-01": {11}, "2023-02": {22}}
    assert state in target_of(storage, staging, 2).published(EPSG)


def test_what_a_run_left_before_another_publication_counts_for_nothing(local):
    storage, staging = local
    abandoned = target_of(storage, staging, 2)
    write(abandoned, 22)
    published(storage, staging, 1, 11)
    again = target_of(storage, staging, 2)
    assert abandoned.state(EPSG) not in again.lineage(EPSG)
    assert again.present().keys() == set()
    again.begin()
    assert again.state(EPSG) != abandoned.state(EPSG)
    assert again.present().keys() == set()


def test_what_readers_see_is_told_from_what_is_to_come(local):
    storage, staging = local
    published(storage, staging, 1, 11)
    revision = target_of(storage, staging, 1, revise=4)
    write(revision, 12, SHARDS[:1])
    state = revision.state(EPSG)
    as_seen, to_come = target_of(storage, staging, 1), target_of(storage, staging, 1, revise=4)
    assert state not in as_seen.lineage(EPSG)
    assert as_seen.lineage(EPSG) == as_seen.published(EPSG) == to_come.published(EPSG)
    places = to_come.lineage(EPSG)
    assert places[state] == max(places.values()) > max(as_seen.published(EPSG).values())
    assert seen(opened(storage)) == {"2023-01": {11}}


def test_a_shard_that_is_no_longer_planned_is_dropped(local):
    storage, staging = local
    published(storage, staging, 1, 11)
    published(storage, staging, 2, 12)
    target = target_of(storage, staging, 1, revise=4)
    target.begin()
    target.settle({(EPSG, shard) for shard in SHARDS[1:]}, set())
    target.settle({(EPSG, shard) for shard in SHARDS[1:]}, set())
    target.publish(shards_written=0, keep=1)
    here = opened(storage)
    assert seen(here) == {"2023-01": {0, 11}, "2023-02": {12}}
    assert int((here.source.isel(time=0) == 0).sum()) == GRID.shard_px**2


def test_two_publishers_do_not_undo_one_another(places):
    storage, staging = places
    published(storage, staging, 1, 11)
    slow = target_of(storage, staging, 2)
    write(slow, 22)
    published(storage, staging, 3, 33)
    with pytest.raises(StoreError, match="somebody else has published") as caught:
        slow.publish(shards_written=4, keep=1)
    assert "\n" not in str(caught.value)
    assert seen(opened(storage)) == {"2023-01": {11}, "2023-03": {33}}
    with pytest.raises(StoreError, match="somebody else has published"):
        slow.begin()
    assert [record.number for record in history(staging)] == [2, 1]
    published(storage, staging, 2, 22)
    assert seen(opened(storage)) == {"2023-01": {11}, "2023-03": {33}, "2023-02": {22}}


def test_a_first_publication_by_somebody_else_is_noticed_too(local):
    storage, staging = local
    slow = target_of(storage, staging, 2)
    published(storage, staging, 1, 11)
    with pytest.raises(StoreError, match="somebody else has published"):
        slow.begin()


def test_a_rollback_brings_a_state_back_and_is_itself_remembered(places):
    storage, staging = places
    published(storage, staging, 1, 11)
    published(storage, staging, 2, 12)
    published(storage, staging, 1, 13, revise=4)
    before = opened(storage)
    now = rollback(storage, staging)
    assert (now.number, now.kind, now.restores) == (4, "rollback", 2)
    assert seen(opened(storage)) == {"2023-01": {11}, "2023-02": {12}}
    assert rollback(storage, staging).restores == 1
    assert seen(opened(storage)) == {"2023-01": {11}}
    assert seen(before) == {"2023-01": {13}, "2023-02": {12}}
    assert rollback(storage, staging, to=3).restores == 3  # and forward again
    assert seen(opened(storage)) == {"2023-01": {13}, "2023-02": {12}}
    told = history(staging)
    assert [record.number for record in told] == [6, 5, 4, 3, 2, 1]
    assert [record.current for record in told] == [True] + [False] * 5
    assert all(record.where.startswith("snapshot ") for record in told)


def test_after_a_rollback_another_period_takes_the_place(local):
    storage, staging = local
    published(storage, staging, 1, 11)
    published(storage, staging, 2, 12)
    undone = opened(storage)
    rollback(storage, staging)
    published(storage, staging, 3, 33)
    assert seen(opened(storage)) == {"2023-01": {11}, "2023-03": {33}}
    assert seen(undone) == {"2023-01": {11}, "2023-02": {12}}
    # what was undone counts for nothing any more
    assert target_of(storage, staging, 2).present().keys() == set()
    rollback(storage, staging, to=2)
    assert seen(opened(storage)) == {"2023-01": {11}, "2023-02": {12}}


def test_what_a_rollback_may_need_survives_garbage_collection(local):
    import datetime as dt

    storage, staging = local
    published(storage, staging, 1, 11)
    published(storage, staging, 2, 12)
    rollback(storage, staging)
    repository = open_repository(storage)
    assert repository is not None
    repository.garbage_collect(dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    rollback(storage, staging, to=2)
    assert seen(opened(storage)) == {"2023-01": {11}, "2023-02": {12}}


def test_a_driver_that_dies_after_publishing_is_made_up_for(local, monkeypatch):
    storage, staging = local
    published(storage, staging, 1, 11)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("difffusr.pipeline.publish.icechunk._remember", die)
    with pytest.raises(KeyboardInterrupt):
        published(storage, staging, 2, 12)
    monkeypatch.undo()
    assert seen(opened(storage)) == {"2023-01": {11}, "2023-02": {12}}
    published(storage, staging, 3, 13)
    assert [(record.number, record.kind) for record in history(staging)] == [
        (3, "period"),
        (2, "period"),
        (1, "period"),
    ]
    assert rollback(storage, staging).restores == 2


def test_a_driver_that_dies_before_publishing_leaves_readers_alone(local, monkeypatch):
    storage, staging = local
    published(storage, staging, 1, 11)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(icechunk.Repository, "reset_branch", die)
    with pytest.raises(KeyboardInterrupt):
        published(storage, staging, 2, 12)
    monkeypatch.undo()
    assert seen(opened(storage)) == {"2023-01": {11}}
    assert [record.number for record in history(staging)] == [1]
    again = target_of(storage, staging, 2)
    assert len(again.present()) == 3 * (len(SHARDS) + 1)  # all of it is there, the overview too
    again.begin()
    again.publish(shards_written=4, keep=1)
    assert seen(opened(storage)) == {"2023-01": {11}, "2023-02": {12}}
    assert [record.number for record in history(staging)] == [2, 1]


def test_zones_join_without_touching_one_another(local):
    storage, staging = local
    published(storage, staging, 1, 11)
    published(storage, staging, 1, 12, zones=(32649,))
    assert seen(opened(storage)) == {"2023-01": {11}}
    root = metadata(storage, "zarr.json")
    assert root is not None
    assert root["attributes"]["difffusr:zones"] == [EPSG, 32649]
    assert "consolidated_metadata" not in root


def test_the_cube_s_own_reader_reads_it(local):
    storage, staging = local
    published(storage, staging, 1, 11)
    draft = drafted(storage, 1)
    window = GRID.shard_window(SHARDS[0])._replace(row=-140)  # past the edge
    got = CubeReader(storage, draft).read(EPSG, "source", window)
    assert (got[:12] == 0).all()
    assert (got[12:] == 11).all()


def test_a_place_without_a_repository_has_no_cube(local):
    storage, _ = local
    assert metadata(storage, "zarr.json") is None
    with pytest.raises(StoreError, match="there is no Icechunk repository"):
        open_store(storage)


def test_what_icechunk_refuses_is_said_in_one_line(s3_options, tmp_path):
    storage = Storage("icechunk+s3://nowhere/cube", s3_options)
    with pytest.raises(StoreError) as caught:
        published(storage, Storage(str(tmp_path)), 1, 11)
    text = str(caught.value)
    assert text.startswith("icechunk+s3://nowhere/cube: ")
    assert "\n" not in text
    assert s3_options["secret"] not in text
    assert "run again, or check the store's URL" in text


@pytest.mark.parametrize(
    ("url", "options", "part"),
    [
        ("icechunk+memory://a", {}, "expected icechunk+s3://bucket/prefix"),
        ("icechunk+s3://a/b", {"key": "me"}, "one of key and secret"),
    ],
)
def test_places_that_icechunk_does_not_know_are_named(url, options, part):
    with pytest.raises(ConfigError) as caught:
        open_repository(Storage(url, options))
    assert part in str(caught.value)
    assert "me" not in str(caught.value).split("store.")[0]


def test_a_shard_outside_the_plan_of_the_period_is_left_alone_in_others(local):
    storage, staging = local
    published(storage, staging, 1, 11)
    target = target_of(storage, staging, 2)
    write(target, 12, SHARDS[:1])
    target.settle({(EPSG, ShardIndex(-2, 5))}, {(EPSG, ShardIndex(-2, 5))})
    target.publish(shards_written=1, keep=1)
    assert seen(opened(storage)) == {"2023-01": {11}, "2023-02": {0, 12}}
