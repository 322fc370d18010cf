"""Readers can be given an earlier state again: whole, remembered, and by number."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from plain_cubes import BOTH, JANUARY, DyingStorage, appended, opened, revised
from small_cubes import EPSG, GROUP, SHARDS, drafted, label, readers, seen, write

from difffusr.pipeline.cube.documents import metadata
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.publish.door import open_target, rollback
from difffusr.pipeline.publish.publications import history


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


def test_a_half_published_state_can_be_rolled_back(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    draft = drafted(DyingStorage(storage.url), 1, revise=1)
    target = open_target(draft.storage, staging, draft, label(1))
    DyingStorage.left = 1000
    write(target, 13)
    target.settle({(EPSG, shard) for shard in SHARDS}, {(EPSG, shard) for shard in SHARDS})
    DyingStorage.left = len(draft.objects) - 1  # all but the root's document, which xarray reads
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
