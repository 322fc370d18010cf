"""One function over many things: over many on Ray in a cluster, else on threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from difffusr.pipeline.engine.session import in_cluster, resources

Item = TypeVar("Item")
Result = TypeVar("Result")


#: So many items are done by threads also in a cluster: sooner than a worker has imported what they need.
FEW = 32


def in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results in the order of the items, computed ahead of their use, but never more than a few at a time.

    In a cluster the function and its items must be picklable; what it raises is raised here.
    """
    if len(items) <= FEW or not in_cluster():
        with ThreadPoolExecutor(max_workers=threads_on(os.cpu_count() or 1)) as pool:
            yield from _ahead(lambda item: pool.submit(function, item), lambda future: future.result(), items, 16)
        return
    import ray

    def apply(item: Item) -> Result:  # Ray takes plain functions, but no `functools.partial`
        return function(item)

    task = ray.remote(num_cpus=1, max_retries=3)(apply)
    ahead = 2 * max(1, int(resources().cpus)) + 2
    yield from _ahead(task.remote, ray.get, items, ahead)


def threads_on(cpus: int) -> int:
    """How many items are worked on at a time outside a cluster, on a machine with so many cores."""
    return min(8, 2 * cpus)


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
