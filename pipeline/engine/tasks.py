"""Ray tasks over a queue: their resources, a bounded number in flight, results as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import ray

from difffusr.pipeline.engine.session import result_of

Key = TypeVar("Key")

#: Seconds between two checks for ended tasks.
POLL_S = 0.2

#: Times that a task is retried when its worker dies.
_RETRIES = 5


def _nothing_new(_: bool) -> bool:
    return False


def task_options(cpus: float, memory: int) -> dict[str, Any]:
    """Options of a Ray task.

    Args:
        cpus: cores.
        memory: most bytes that it takes. If no node has as many, the memory of the largest node: Ray never starts a
            task that asks for more.
    """
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    most = max((int(node.get("memory", 0)) for node in nodes if node.get("CPU", 0)), default=0)
    return {"num_cpus": cpus, "memory": min(memory, most) if most else memory, "max_retries": _RETRIES}


def dispatch(
    ready: deque[Key],
    begin: Callable[[Key], Any | None],
    limit: Callable[[], int],
    halted: Callable[[], bool],
    hear: Callable[[bool], bool] = _nothing_new,
) -> Iterator[list[tuple[Key, Any]]]:
    """Run a task for every key in a queue, until all have ended and no more can start.

    Args:
        ready: keys whose task can start, in order; may grow while this runs.
        begin: starts the task of a key and returns its reference; None if there is nothing to run.
        limit: number of tasks that may be in flight now.
        halted: whether to start nothing new.
        hear: called between two checks, may add to `ready`; returns whether more keys may come. Its argument says
            whether it may block for a moment: no task is running and none can start.

    Yields:
        keys of the tasks that have ended since the last time, with their results.

    Raises:
        DifffusrError: a task raised it; of other errors Ray's own.
    """
    running: dict[Any, Key] = {}
    more = True
    while more or running or (ready and not halted()):
        more = hear(not running and (not ready or halted()))
        most = limit()
        while ready and len(running) < most and not halted():
            key = ready.popleft()
            if (task := begin(key)) is not None:
                running[task] = key
        if running:
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=POLL_S)
            if ended:
                yield [(running.pop(task), result_of(task)) for task in ended]
