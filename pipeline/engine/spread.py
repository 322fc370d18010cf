"""One function over many things: on Ray where it runs, else on threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import ray

Item = TypeVar("Item")


Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of the items, computed ahead of their use, but never more than a few at a time.

    The function and its items must be able to travel to other machines; what it raises is raised here.
    """
    if not ray.is_initialized():
        with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
            yield from _ahead(lambda item: pool.submit(function, item), lambda future: future.result(), items, 16)
        return

    def apply(item: Item) -> Result:  # Ray takes plain functions alone, not what `partial` makes
        return function(item)

    task = ray.remote(num_cpus=1, max_retries=3)(apply)
    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1))) + 2
    yield from _ahead(task.remote, ray.get, items, ahead)


def _ahead(
    submit: Callable[[Item], Any], collect: Callable[[Any], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) >= ahead:
            yield collect(waiting.popleft())
    while waiting:
        yield collect(waiting.popleft())
