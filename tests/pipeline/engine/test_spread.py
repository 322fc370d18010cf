"""Who does many things: threads where there is no cluster or little to do, else the cluster; in order either way."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from difffusr.pipeline.engine import spread
from difffusr.pipeline.engine.pool import Resources


def test_without_a_cluster_results_come_in_order_and_not_all_at_once():
    begun, lock = [], threading.Lock()

    def double(number: int) -> int:
        with lock:
            begun.append(number)
        return 2 * number

    results = spread.in_order(double, range(100))
    assert next(results) == 0
    assert len(begun) < 100
    assert list(results) == [2 * number for number in range(1, 100)]


@pytest.mark.parametrize(("count", "on_ray"), [(0, False), (1, False), (spread.FEW, False), (spread.FEW + 1, True)])
def test_in_a_cluster_threads_do_the_few_and_ray_the_many(monkeypatch, count, on_ray):
    asked: list[dict[str, Any]] = []

    def remote(**options: Any) -> Any:
        asked.append(options)
        return lambda function: SimpleNamespace(remote=function)

    monkeypatch.setattr(spread, "in_cluster", lambda: True)
    monkeypatch.setattr(spread, "resources", lambda: Resources(gpus=0, cpus=4))
    monkeypatch.setitem(__import__("sys").modules, "ray", SimpleNamespace(remote=remote, get=lambda made: made))
    assert list(spread.in_order(lambda number: number + 1, range(count))) == list(range(1, count + 1))
    assert bool(asked) == on_ray


@pytest.mark.parametrize("count", [3, 60])
def test_what_the_function_raises_is_raised_where_its_result_is_taken(count):
    def broken(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    results = spread.in_order(broken, range(count))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
