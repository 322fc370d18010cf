"""The run's actor: what it gives to the device when, what the board hears of it, and what memory errors change."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from difffusr.pipeline.chips.batch import LEFT, STAGED, TO_STAGE, Batch
from difffusr.pipeline.chips.device import Made, OnCores
from difffusr.pipeline.chips.leaving import Leaving
from difffusr.pipeline.chips.resolver import PinnedResolver
from difffusr.pipeline.engine.board import Board, Worker

WORKER = Worker("one", "node", "10.0.0.1", 1)


class Wire:
    """A pin whose board is in this process."""

    def __init__(self, board: Board, stopping: bool = False) -> None:
        self.board, self.dead, self._stopping = board, False, stopping

    def begin(self, stage: str, chips: list[str]) -> list[int]:
        assert not self.dead, "the dead begin nothing"
        return self.board.begin(WORKER, stage, chips)

    def begin_behind(self, chips: list[str]) -> list[int] | None:
        assert not self.dead, "the dead begin nothing"
        return self.board.begin_behind(WORKER, chips)

    def done(self, chips: list[str] = ()) -> None:  # type: ignore[assignment]
        self.board.end(WORKER, chips)

    def stopping(self) -> bool:
        return self._stopping


class Gate(OnCores):
    """A device whose batches end when the test says so, or fail."""

    beside = True

    def __init__(self) -> None:
        self.given_to: list[list[Made]] = []
        self.ends: list[Future[None]] = []
        self.arrived = threading.Semaphore(0)

    def sent(self, parts: Any) -> Any:
        made, end = super().sent(parts).wait(), Future[None]()
        self.given_to.append(made)
        self.ends.append(end)
        self.arrived.release()
        return type("UnderWay", (), {"wait": lambda _: (end.result(20), made)[1]})()

    def drain(self) -> bool:
        waited = [end.result(20) for end in self.ends if not end.done()]
        return bool(waited)

    def came(self) -> bool:
        """Whether a batch arrives soon."""
        return self.arrived.acquire(timeout=5)

    def stays_away(self) -> bool:
        return not self.arrived.acquire(timeout=0.05)


class Told:
    """Who hears that an actor leaves."""

    def going(self, source: str, seconds: float) -> None: ...

    def gone(self, source: str) -> None: ...


class Actor(PinnedResolver):
    """With a device of the test's, whose models return what they are asked for."""

    def __init__(self, board: Board, lane: OnCores, stopping: bool = False) -> None:
        self.lane, self.batch, self.samples, self.device = lane, 2, 0, torch.device("cpu")
        self.staged: set[str] = set()
        self.ended = threading.Event()
        self._pin, self._staging = Wire(board, stopping), None
        self._models, self._leaving = ThreadPoolExecutor(1), Leaving(Told(), self.ended.set)
        self._flights, self._free_since, self._clock = [], 0.0, threading.Lock()
        self.lacks: Counter[int] = Counter()

    def super_resolve(self, batch: Batch, chosen: list[int]) -> Made:
        if self.lacks[len(chosen)]:
            self.lacks[len(chosen)] -= 1
            raise torch.OutOfMemoryError("out of memory")
        return {"dn": np.ones((len(chosen), 12, 8, 8), np.uint16)}


@pytest.fixture(autouse=True)
def _staged(monkeypatch):
    monkeypatch.setattr("difffusr.pipeline.chips.staging.is_staged", lambda _, name: name in STAGED_THERE)
    STAGED_THERE.clear()


STAGED_THERE: set[str] = set()


def chips(*names: str) -> Batch:
    count = len(names)
    return {
        "name": np.array(names, object), "object": np.array(names, object), "error": np.array([""] * count, object),
        "quality": np.ones((count, 2, 2), np.uint8),
    }  # fmt: skip


def doing(board: Board) -> list[tuple[str, ...]]:
    return [entry.chips for entry in board.look()]


@pytest.fixture
def calls():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_the_device_has_the_next_batch_before_the_last_has_ended_and_no_third(calls):
    board, gate = Board(), Gate()
    actor = Actor(board, gate)
    outs = []
    for names in ("ab", "cd", "ef"):
        outs.append(calls.submit(actor, chips(*names)))
        assert gate.stays_away() if names == "ef" else gate.came()
    assert doing(board) == [("a", "b")]
    gate.ends[0].set_result(None)
    assert outs[0].result(5)["fate"].tolist() == [TO_STAGE] * 2
    assert gate.came()
    assert doing(board) == [("c", "d")]
    for end in gate.ends[1:]:
        end.set_result(None)
    assert all(out.result(5)["dn"].all() for out in outs)
    assert doing(board) == []


@pytest.mark.parametrize("late", [0, 1])
def test_a_chip_that_may_have_killed_a_worker_is_alone_with_its_batch(calls, late):
    board, gate = Board(), Gate()
    board.begin(Worker("dead", "node", "10.0.0.2", 2), "super_resolve", ["b"])
    actor = Actor(board, gate)
    batches = [chips("a", "b"), chips("c", "d")]
    outs = [calls.submit(actor, batches[late])]
    assert gate.came()
    outs.append(calls.submit(actor, batches[1 - late]))
    assert gate.stays_away()
    assert board._begun == Counter({"b": 2, "a": 1} if not late else {"b": 1, "c": 1, "d": 1})
    gate.ends[0].set_result(None)
    assert gate.came()
    gate.ends[1].set_result(None)
    assert [out.result(5)["fate"].tolist() for out in outs] == [[TO_STAGE] * 2] * 2


@pytest.mark.parametrize(
    ("chips_of_run", "killers"),
    [("ab", "a"), ("ab", "b"), ("abcd", "a"), ("abcd", "c"), ("abcd", "bc"), ("abc", "abc")],
)
def test_only_chips_that_kill_workers_are_given_up(calls, chips_of_run, killers):
    """Whoever is under way with such a chip dies with it once, and is computed alone after that."""
    board, left, given_up, deaths = Board(), list(chips_of_run), "", 0
    while left:
        gate = Gate()
        actor = Actor(board, gate)
        board.forget(WORKER.id)
        out = {}
        for name in left[:2]:
            out[name] = calls.submit(actor, chips(name))
            gate.arrived.acquire(timeout=0.05)
        for at, name in enumerate(list(out)):
            while len(gate.ends) <= at:
                threading.Event().wait(0.001)
            if name in killers and gate.given_to[at]:
                deaths += 1
                actor._pin.dead = True
                for end in gate.ends:
                    if not end.done():
                        end.set_exception(RuntimeError("dead"))
                break
            gate.ends[at].set_result(None)
            given_up += name if out[name].result(5)["error"][0] else ""
            left.remove(name)
        for one in out.values():
            one.exception(5)
    assert given_up == killers
    assert Actor.attempts <= deaths <= Actor.attempts * len(killers)


def test_a_batch_that_fails_on_the_device_fails_alone_and_holds_up_nobody(calls):
    board, gate = Board(), Gate()
    actor = Actor(board, gate)
    outs = [calls.submit(actor, chips("a", "b")), calls.submit(actor, chips("c", "d"))]
    assert gate.came()
    assert gate.came()
    gate.ends[0].set_exception(RuntimeError("the device failed"))
    gate.ends[1].set_result(None)
    failed = [out.exception(5) for out in outs]
    assert [str(error) for error in failed if error] == ["the device failed"]
    outs.append(calls.submit(actor, chips("e", "f")))
    assert gate.came()
    gate.ends[2].set_result(None)
    assert outs[2].result(5)["dn"].all()


def test_memory_that_lacks_beside_another_batch_is_asked_for_again_when_that_has_ended(calls):
    gate = Gate()
    actor = Actor(Board(), gate)
    first = calls.submit(actor, chips("a", "b"))
    assert gate.came()
    actor.lacks[2] = 1
    second = calls.submit(actor, chips("c", "d"))
    assert gate.stays_away()
    gate.ends[0].set_result(None)
    assert gate.came()
    assert actor.batch == 2  # the run's number stays
    third = calls.submit(actor, chips("e", "f"))
    assert gate.stays_away()  # from now on one at a time
    gate.ends[1].set_result(None)
    assert gate.came()
    gate.ends[2].set_result(None)
    assert not any(error for out in (first, second, third) for error in out.result(5)["error"])


def test_memory_that_lacks_alone_halves_the_batch(calls):
    gate = Gate()
    actor = Actor(Board(), gate)
    actor.lacks[2] = 1
    out = calls.submit(actor, chips("a", "b"))
    assert gate.came()
    gate.ends[0].set_result(None)
    assert out.result(5)["dn"].all()
    assert actor.batch == 1
    assert [len(part["dn"]) for part in gate.given_to[0]] == [1, 1]


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(
    ("case", "fate"), [("staged", [STAGED, TO_STAGE]), ("given up", [TO_STAGE, TO_STAGE]), ("left", [LEFT, LEFT])]
)
def test_what_is_staged_what_is_given_up_and_what_is_left_reach_no_model(case, fate, beside):
    board, lane = Board(), OnCores()
    lane.beside = beside
    actor = Actor(board, lane, stopping=case == "left")
    if case == "staged":
        STAGED_THERE.add("a")
        board.end(WORKER, ["a"])
    for _ in range(actor.attempts if case == "given up" else 0):
        board.begin(WORKER, "super_resolve", ["a"])
    out = actor(chips("a", "b"))
    assert out["fate"].tolist() == fate
    assert bool(out["error"][0]) == (case == "given up")
    assert not out["dn"][0].any()
    assert out["dn"][1].any() == (case != "left")
    assert doing(board) == []


def test_on_cores_the_board_hears_of_one_batch_at_a_time():
    board = Board()
    actor, seen = Actor(board, OnCores()), []
    inner = actor.super_resolve
    actor.super_resolve = lambda batch, chosen: (seen.append(doing(board)), inner(batch, chosen))[1]  # type: ignore[method-assign]
    for names in ("ab", "cd"):
        actor(chips(*names))
    assert seen == [[("a", "b")], [("c", "d")]]
    assert doing(board) == []


def test_seconds_of_batches_one_behind_the_other_add_up_to_the_time_that_the_device_was_at_work(calls, monkeypatch):
    gate, now = Gate(), [0.0]
    monkeypatch.setattr("difffusr.pipeline.chips.resolver.time.perf_counter", lambda: now[0])
    actor = Actor(Board(), gate)
    outs = []
    for when, names in ((1.0, "ab"), (2.0, "cd")):
        now[0] = when
        outs.append(calls.submit(actor, chips(*names)))
        assert gate.came()
        while len(actor._flights) < len(outs):
            threading.Event().wait(0.001)
    for when, end, out in ((5.0, gate.ends[0], outs[0]), (9.0, gate.ends[1], outs[1])):
        now[0] = when
        end.set_result(None)
        out.result(5)
    assert [out.result(5)["resolve_s"].sum() for out in outs] == [4.0, 4.0]
