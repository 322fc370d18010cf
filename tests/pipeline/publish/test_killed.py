"""Whoever dies at whichever request of a store, and is called again, ends where one call would have."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from months import run_month, shown, told
from small_cubes import EPSG, SHARDS, drafted, label, write
from store_requests import Drivers, Killed, Requests

from difffusr.pipeline.publish.door import open_target, rollback
from difffusr.pipeline.storage.holder import Holder
from difffusr.pipeline.storage.objects import Storage

Places = tuple[Storage, Storage]


@pytest.fixture
def drivers() -> Iterator[Drivers]:
    drivers = Drivers()
    yield drivers
    drivers.end()


def a_new_month(places: Places, drivers: Drivers) -> None:
    command(places, drivers, lambda lease: run_month(*places, 2, 12, lease))


def a_month_written_again(places: Places, drivers: Drivers) -> None:
    """The third revision: of the one before the last, the objects are deleted."""
    command(places, drivers, lambda lease: run_month(*places, 1, 15, lease, keep=1))


def a_month_over_another_s_leftovers(places: Places, drivers: Drivers) -> None:
    command(places, drivers, lambda lease: run_month(*places, 3, 13, lease))


def back_by_one(places: Places, drivers: Drivers) -> None:
    command(places, drivers, lambda lease: rollback(*places, None, lease))


def back_to_the_first(places: Places, drivers: Drivers) -> None:
    command(places, drivers, lambda lease: rollback(*places, 1, lease))


def command(places: Places, drivers: Drivers, do: Callable[[Any], object]) -> None:
    lease = drivers.lease(places[1], do.__qualname__)
    do(lease)
    lease.release()


def january(places: Places) -> None:
    run_month(*places, 1, 11, None)


def revisions(places: Places) -> None:
    for value in (11, 13, 14):
        run_month(*places, 1, value, None, keep=2)


def months(places: Places) -> None:
    for number in (1, 2, 3):
        run_month(*places, number, 10 + number, None)


def leftovers(places: Places) -> None:
    january(places)
    write(open_target(*places, drafted(places[0], 2), label(2)), 12, SHARDS[:2])


CASES = {
    a_new_month: january,
    a_month_written_again: revisions,
    a_month_over_another_s_leftovers: leftovers,
    back_by_one: months,
    back_to_the_first: months,
}

#: Of so many requests, tests kill at one; `make test-slow` at each.
SOME = 61


@pytest.mark.parametrize("every", [pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]), SOME])
@pytest.mark.parametrize("kind", ["plain", "icechunk"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
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

    CASES[case](at_place("before"))
    before = shown(at_place("before")[0])
    undisturbed = prepared("undisturbed")
    requests.watch()
    case(undisturbed, drivers)
    requests.rest()
    count = len(requests.made)
    wanted = state(undisturbed, tmp_path / "undisturbed", kind)
    assert count > 20
    # The last one releases the lease: who is killed there has done everything.
    # And where Icechunk moves `main`, every time.
    moved = [at for at, name in enumerate(requests.made, 1) if name == "reset_branch"]
    for at in sorted({*range(1 + count % every, count, every), *moved, count}):
        places = prepared(f"at-{at}")
        requests.watch(at)
        with pytest.raises(Killed):
            case(places, drivers)
        requests.rest()
        assert shown(places[0]) in (before, wanted[0]), f"readers see neither state after {at} requests"
        case(places, drivers)
        assert state(places, tmp_path / f"at-{at}", kind) == wanted, f"killed at {at}, {requests.made[at - 1]}"


def state(places: Places, folder: Path, kind: str) -> Any:
    """What readers see, every object of a plain store, the history."""
    assert not (folder / "cube" / ".partial").exists()
    files = sorted(path for path in (folder / "cube").rglob("*") if path.is_file())
    objects = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if kind == "plain" and not path.name.startswith(".partial-")
    }
    return shown(places[0]), objects, told(places[1])


def test_so_does_one_that_is_killed_again_and_again(tmp_path, monkeypatch, drivers):
    monkeypatch.setattr(Holder, "is_surely_dead", lambda _: True)
    requests = Requests(monkeypatch)
    places = Storage(f"{tmp_path}/cube"), Storage(f"{tmp_path}/staging")
    months(places)
    for at in (12, 30, 17, 44, 26, 35):
        requests.watch(at)
        with pytest.raises(Killed):
            back_by_one(places, drivers)
        requests.rest()
    back_by_one(places, drivers)
    assert shown(places[0]) == {label(1): {11}, label(2): {12}}
    back_by_one(places, drivers)
    assert shown(places[0]) == {label(1): {11}}
    assert EPSG in drafted(places[0], 1).zones
