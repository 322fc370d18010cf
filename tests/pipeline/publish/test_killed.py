"""Whoever dies at whichever request of a store, and is called again, ends where one call would have."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from cube_commands import (
    COMMANDS,
    Command,
    Places,
    a_month_over_another_s_leftovers,
    back_by_one,
    months,
    state,
)
from months import shown
from small_cubes import EPSG, drafted, label
from store_requests import Drivers, Killed, Requests

from difffusr.pipeline.storage.holder import Holder
from difffusr.pipeline.storage.objects import Storage


@pytest.fixture
def drivers() -> Iterator[Drivers]:
    drivers = Drivers()
    yield drivers
    drivers.end()


def call(do: Command, places: Places, drivers: Drivers) -> None:
    lease = drivers.lease(places[1], do.__qualname__)
    do(places, lease)
    lease.release()


#: Of so many requests, tests kill at one; `make test-slow` at each.
SOME = 61


@pytest.mark.parametrize("every", [pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]), SOME])
@pytest.mark.parametrize("kind", ["plain", "icechunk"])
@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: case.__name__)
def test_a_command_that_is_killed_and_repeated_ends_where_once_would_have(
    case, kind, every, tmp_path, monkeypatch, drivers
):
    monkeypatch.setattr(Holder, "is_surely_dead", lambda _: True)
    requests = Requests(monkeypatch)
    if kind == "icechunk":
        if case is a_month_over_another_s_leftovers:
            pytest.skip("drivers write to branches of their own")
        requests.of_icechunk(monkeypatch)

    def at_place(name: str) -> Places:
        url = f"icechunk+{tmp_path}/{name}/cube" if kind == "icechunk" else f"{tmp_path}/{name}/cube"
        return Storage(url), Storage(f"{tmp_path}/{name}/staging")

    def prepared(name: str) -> Places:
        shutil.copytree(tmp_path / "before", tmp_path / name)
        return at_place(name)

    COMMANDS[case](at_place("before"))
    before = shown(at_place("before")[0])
    undisturbed = prepared("undisturbed")
    requests.watch()
    call(case, undisturbed, drivers)
    requests.rest()
    count = len(requests.made)
    wanted = state(undisturbed)
    assert count > 20
    # The last one releases the lease: who is killed there has done everything.
    # And where Icechunk moves `main`, every time.
    moved = [at for at, name in enumerate(requests.made, 1) if name == "reset_branch"]
    for at in sorted({*range(1 + count % every, count, every), *moved, count}):
        places = prepared(f"at-{at}")
        requests.watch(at)
        with pytest.raises(Killed):
            call(case, places, drivers)
        requests.rest()
        assert shown(places[0]) in (before, wanted[0]), f"readers see neither state after {at} requests"
        call(case, places, drivers)
        assert state(places) == wanted, f"killed at {at}, {requests.made[at - 1]}"


def test_so_does_one_that_is_killed_again_and_again(tmp_path, monkeypatch, drivers):
    monkeypatch.setattr(Holder, "is_surely_dead", lambda _: True)
    requests = Requests(monkeypatch)
    places = Storage(f"{tmp_path}/cube"), Storage(f"{tmp_path}/staging")
    months(places)
    for at in (12, 30, 17, 44, 26, 35):
        requests.watch(at)
        with pytest.raises(Killed):
            call(back_by_one, places, drivers)
        requests.rest()
    call(back_by_one, places, drivers)
    assert shown(places[0]) == {label(1): {11}, label(2): {12}}
    call(back_by_one, places, drivers)
    assert shown(places[0]) == {label(1): {11}}
    assert EPSG in drafted(places[0], 1).zones
