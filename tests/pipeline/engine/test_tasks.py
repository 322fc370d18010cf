"""Tasks over a queue: so many at a time, none after a halt, and never one that no node could run."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from difffusr.pipeline.engine import tasks
from difffusr.pipeline.engine.tasks import dispatch, task_options


class SlowRay:
    """Runs tasks one after the other; the longest running ends first. Knows how many there were at once, at most."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.running: list[Any] = []
        self.most = 0

    def begin(self, key: Any) -> Any:
        """Start a task."""
        self.begun.append(key)
        self.running.append(key)
        self.most = max(self.most, len(self.running))
        return f"task of {key}"

    def wait(self, references: list[Any], **how: Any) -> tuple[list[Any], list[Any]]:
        """As `ray.wait`."""
        self.running.pop(0)
        return references[:1], references[1:]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> SlowRay:
    """In Ray's place."""
    fake = SlowRay()
    monkeypatch.setattr(tasks.ray, "wait", fake.wait)
    monkeypatch.setattr(tasks, "result_of", lambda task: task.removeprefix("task of "))
    return fake


def test_results_come_as_tasks_end_and_never_more_run_than_may(cluster):
    ended = list(dispatch(deque("abcde"), cluster.begin, lambda: 2, lambda: False))
    assert ended == [[(key, key)] for key in "abcde"]
    assert cluster.most == 2


def test_the_limit_may_change_meanwhile(cluster):
    limits = iter([1, 1, 3, 3, 3, 3, 3, 3])
    list(dispatch(deque("abcdef"), cluster.begin, lambda: next(limits), lambda: False))
    assert cluster.most == 3


def test_after_a_halt_nothing_is_begun_and_what_runs_ends(cluster):
    ready = deque("abcdef")
    ended = [key for part in dispatch(ready, cluster.begin, lambda: 2, lambda: bool(cluster.begun)) for key, _ in part]
    assert ended == cluster.begun == ["a"]
    assert list(ready) == ["b", "c", "d", "e", "f"]


def test_what_need_not_run_takes_no_place(cluster):
    begun = dispatch(deque("aBCd"), lambda key: cluster.begin(key) if key.islower() else None, lambda: 1, lambda: False)
    assert [key for part in begun for key, _ in part] == ["a", "d"]


def test_what_becomes_ready_later_is_begun_too(cluster):
    ready, news, waits = deque("a"), deque([None, "b", None, "c"]), []

    def hear(wait: bool) -> bool:
        waits.append(wait)
        if news and (key := news.popleft()):
            ready.append(key)
        return bool(news)

    ended = dispatch(ready, cluster.begin, lambda: 4, lambda: False, hear)
    assert [key for part in ended for key, _ in part] == ["a", "b", "c"]
    assert waits[0] is False  # there is something to begin
    assert waits[2] is True  # nothing runs and nothing is ready: time to wait


def test_a_halted_queue_waits_for_news_without_turning_in_circles(cluster):
    waits = []

    def hear(wait: bool) -> bool:
        waits.append(wait)
        return len(waits) < 3

    assert list(dispatch(deque("abc"), cluster.begin, lambda: 1, lambda: True, hear)) == []
    assert waits == [True] * 3


def node(cpus: float, memory: int, alive: bool = True) -> dict[str, Any]:
    """A node as Ray lists it."""
    return {"Alive": alive, "Resources": {"CPU": cpus, "memory": float(memory)}}


@pytest.mark.parametrize(
    ("nodes", "memory"),
    [
        ([node(4, 900), node(8, 5000)], 1000),  # the small one is left alone
        ([node(4, 600), node(8, 700)], 700),  # none holds it: the largest takes it nevertheless
        ([node(0, 9000), node(8, 700)], 700),  # a head that runs no tasks does not count
        ([node(4, 700), node(8, 5000, alive=False)], 700),
        ([], 1000),  # an autoscaler starts what is asked for
        ([{"Alive": True, "Resources": {"CPU": 4.0}}], 1000),
    ],
)
def test_a_task_asks_for_its_memory_but_not_for_more_than_any_node_has(monkeypatch, nodes, memory):
    monkeypatch.setattr(tasks.ray, "nodes", lambda: nodes)
    assert task_options(0.1, 1000) == {"num_cpus": 0.1, "memory": memory, "max_retries": 5}
