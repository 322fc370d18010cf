"""What the driver hears of machines that are taken away, and what it tells the board."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from difffusr.pipeline.engine import preemption
from difffusr.pipeline.engine.board import Board, Preempted, Worker
from difffusr.pipeline.engine.notices import Notice
from difffusr.pipeline.engine.preemption import Preemptions, drain_this_node, draining_nodes

WORKER = Worker("one", "node", "10.0.0.1", 1)


class Handle:
    """A board in this process that is called as an actor is."""

    def __init__(self, board: Board) -> None:
        self.drains, self.fails = 0, 0
        self._board = board

    def __getattr__(self, name: str) -> Any:
        def remote(*words: Any) -> Any:
            if self.fails:
                self.fails -= 1
                raise ray.exceptions.RayActorError
            self.drains += name == "drain"
            return getattr(self._board, name)(*words)

        return SimpleNamespace(remote=remote)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    monkeypatch.setattr(preemption.ray, "get", lambda value, timeout: value)
    monkeypatch.setattr(preemption, "_LOOK_S", 0.01)


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_the_board_hears_of_nodes_that_ray_drains_once_and_whoever_is_preempted_is_told(monkeypatch, fails):
    ends = time.time() + 100
    monkeypatch.setattr(preemption, "draining_nodes", lambda: {"node": ends})
    board, told = Board(), list[Preempted]()
    handle = Handle(board)
    handle.fails = fails  # it is away for a moment
    watch = Preemptions(handle, told.append)
    deadline = time.monotonic() + 5
    while board.asked("node")[1] is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert board.asked("node") == (False, ends)
    board.preempt(WORKER, "actor", "ray", 99.0)
    board.leave(WORKER, "ray")
    watch.stop()
    assert [(one.source, one.given_back) for one in told] == [("ray", None), ("ray", 0)]
    assert handle.drains == 1


def test_what_came_last_is_told_as_well(monkeypatch):
    monkeypatch.setattr(preemption, "_LOOK_S", 60.0)
    monkeypatch.setattr(preemption, "draining_nodes", dict)
    board, told = Board(), list[Preempted]()
    watch = Preemptions(Handle(board), told.append)
    board.preempt(WORKER, "actor", "file", 1.0)
    watch.stop()
    assert len(told) == 1


@pytest.mark.parametrize(
    ("nodes", "found"), [({}, {}), ({"a": 5000}, {"a": 5.0}), ({"a": 0, "b": 1500}, {"a": float("inf"), "b": 1.5})]
)
def test_a_node_that_is_drained_without_a_time_goes_at_some_time(monkeypatch, nodes, found):
    state = SimpleNamespace(get_draining_nodes=lambda: nodes)
    monkeypatch.setattr(preemption.ray._private.state, "state", state)
    assert draining_nodes() == found


def test_a_ray_that_does_not_know_of_that_is_let_be(monkeypatch):
    monkeypatch.setattr(preemption.ray._private.state, "state", SimpleNamespace())
    assert draining_nodes() == {}


@pytest.mark.parametrize("error", [AttributeError("drain_node"), RuntimeError("the head is away")])
def test_an_actor_of_which_ray_does_not_hear_goes_by_itself(monkeypatch, error):
    def context() -> Any:
        raise error

    monkeypatch.setattr(preemption.ray, "get_runtime_context", context)
    assert drain_this_node(Notice("file", time.time() + 30)) is False
