"""What a driver that died has left to do is done by the next one, though readers see all of it already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from months import run_month, shown
from small_cubes import EPSG, SHARDS, drafted, finish, label, write
from store_requests import Drivers

from difffusr.pipeline.assemble.ledger import Entry, Ledger, write_entry
from difffusr.pipeline.geo.names import NAME_DIGITS, PlaceName
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.run import publishing, work
from difffusr.pipeline.run.publishing import finish_what_was_left
from difffusr.pipeline.run.result import RunResult
from difffusr.pipeline.storage.objects import Storage

CHIPS = tuple(f"chips/32648/-1_{col}-{'0' * NAME_DIGITS}.chip" for col in (4, 5))


@pytest.fixture
def drivers() -> Iterator[Drivers]:
    drivers = Drivers()
    yield drivers
    drivers.end()


@pytest.fixture
def places(tmp_path) -> tuple[Storage, Storage]:
    return Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "cube.staging"))


@pytest.fixture(autouse=True)
def _plan(monkeypatch) -> None:
    """A plan is one small object here."""
    monkeypatch.setattr(
        publishing, "keep_plan", lambda plan, grid, staging, name: staging.write(f"{name}/manifest.json", plan)
    )


def left(places: tuple[Storage, Storage], lease: Any, **store: Any) -> tuple[Any, Any, RunResult]:
    """A run of January that finds everything published, and what is staged beside."""
    storage, cube_staging = places
    staging = cube_staging.child(f"runs/{label(1)}")
    for name in CHIPS:
        staging.write(name, b"")
    draft = drafted(storage, 1)
    config = SimpleNamespace(store=SimpleNamespace(**{"keep_revisions": 1, "keep_chips": False, **store}))
    run = SimpleNamespace(
        config=config, staging=staging, lease=lease, grid=None, places=SimpleNamespace(cube_staging=cube_staging)
    )
    target = open_target(storage, cube_staging, draft, label(1), lease)
    plan: Any = b"the plan that readers see"
    return run, SimpleNamespace(draft=draft, target=target, plan=plan), RunResult(plan)


def test_a_driver_that_died_after_publishing_is_made_up_for(places, drivers):
    dead = drivers.lease(places[1])
    run_month(*places, 1, 11, dead)
    run, found, result = left(places, drivers.lease(places[1]))
    run.staging.write("published/manifest.json", b"a stale one")
    finish_what_was_left(run, found, result)
    assert run.staging.read("published/manifest.json") == found.plan
    assert run.staging.names("chips") == set()
    assert result.publication is not None
    assert (result.publication.number, result.state) == (1, "published")

    # once: what is staged later is another run's
    run, found, result = left(places, drivers.lease(places[1]))
    finish_what_was_left(run, found, result)
    assert (result.publication, result.state) == (None, "unchanged")
    assert len(run.staging.names("chips")) == len(CHIPS)


@pytest.mark.parametrize("mark", [None, b"", b"{", b"[]", b'{"publication": "x"}'])
def test_after_one_that_ended_nothing_is_new_whatever_is_noted(places, drivers, mark):
    lease = drivers.lease(places[1])
    run_month(*places, 1, 11, lease)
    lease.release()
    run, found, result = left(places, drivers.lease(places[1]))
    if mark is not None:
        run.staging.write("published/done.json", mark)
    finish_what_was_left(run, found, result)
    assert result.publication is None
    assert json.loads(run.staging.read("published/done.json")) == {"publication": 1}


def test_chips_that_are_to_stay_stay(places, drivers):
    run_month(*places, 1, 11, drivers.lease(places[1]))
    run, found, result = left(places, drivers.lease(places[1]), keep_chips=True)
    finish_what_was_left(run, found, result)
    assert len(run.staging.names("chips")) == len(CHIPS)


def test_another_period_s_publication_leaves_nothing_to_this_one(places, drivers):
    run_month(*places, 1, 11, drivers.lease(places[1]))
    run, found, result = left(places, drivers.lease(places[1]))
    finish_what_was_left(run, found, result)
    run_month(*places, 2, 12, drivers.lease(places[1]))
    run, found, result = left(places, drivers.lease(places[1]))
    finish_what_was_left(run, found, result)
    assert result.publication is None
    assert len(run.staging.names("chips")) == len(CHIPS)


def test_records_of_other_months_are_read_once(places, drivers, monkeypatch):
    for number in range(1, 6):
        run_month(*places, number, 10 + number, drivers.lease(places[1]))
    run, found, result = left(places, drivers.lease(places[1]))
    read, asked = Storage.read, list[str]()
    monkeypatch.setattr(Storage, "read", lambda self, name: asked.append(name) or read(self, name))
    counts = []
    for _ in range(4):  # the first makes up for a driver that was taken over
        asked.clear()
        finish_what_was_left(run, found, result)
        counts.append(len([name for name in asked if name.startswith("history/")]))
    assert counts[1] >= 5
    assert counts[2:] == [1, 1]


def test_a_shard_that_was_dropped_is_dropped_once(places):
    storage, staging = places
    names = [str(PlaceName(EPSG, *shard)) for shard in SHARDS]
    run_month(*places, 1, 11, None)
    for name in names:
        write_entry(staging, Entry(name, "d1", "r0"), {"objects": {}})
    plan: Any = SimpleNamespace(zones=lambda: [EPSG], shards=SimpleNamespace(names=lambda: names[:3]))

    def gone() -> tuple[str, ...]:
        target = open_target(storage, staging, drafted(storage, 1), label(1))
        return work._no_longer_planned(plan, target, Ledger.read(staging))

    assert gone() == (names[3],)
    target = open_target(storage, staging, drafted(storage, 1, revise=1), label(1))
    write(target, 12, SHARDS[:1])
    finish(target, staging, {(EPSG, shard) for shard in SHARDS[:3]}, {(EPSG, SHARDS[0])})
    target.publish(shards_written=1, keep=1)
    assert shown(storage) == {label(1): {0, 11, 12}}
    assert gone() == ()


@pytest.mark.parametrize("taken", [(), (1,), (1, 2), (1, 2, 3)])
def test_a_new_revision_has_keys_that_nobody_else_may_write(places, drivers, caplog, taken):
    storage, staging = places
    run_month(*places, 1, 11, None)
    for revision in taken:
        target = open_target(
            storage, staging, drafted(storage, 1, revise=revision), label(1), drivers.lease(staging), {EPSG: "other"}
        )
        target.begin()
    draft = drafted(storage, 1)
    mine = open_target(storage, staging, draft, label(1), drivers.lease(staging), {EPSG: "mine"})
    run: Any = SimpleNamespace(places=SimpleNamespace(cube=storage, cube_staging=staging))
    assert work._new_revision(run, mine, EPSG) == (len(taken) + 1 if len(taken) < 3 else 1)
    assert bool(caplog.records) == (len(taken) == 3)
