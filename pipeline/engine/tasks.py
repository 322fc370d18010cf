"""Ray tasks over a queue: what each asks for, so many at a time, results as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import ray

from difffusr.pipeline.engine.session import result_of

Key = TypeVar("Key")


#: Seconds between two looks at what has ended.
POLL_S = 0.2


#: Times that a task is started again on another worker when its own dies.
_RETRIES = 5


def _nothing_new(_: bool) -> bool:
    return False


def task_options(cpus: float, memory: int) -> dict[str, Any]:
    """What a task asks Ray for, as options.

    Args:
        cpus: cores.
        memory: bytes that it takes at most. Where no node has as many, all that the largest has is asked for: a task
            that asks for more would never be started.
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
    """Run a task for everything in a queue. Ends when all tasks have ended and nothing more can be begun.

    Args:
        ready: what can be begun, the first first; it may grow meanwhile.
        begin: starts the task of one and returns its reference; None where there is nothing to run.
        limit: so many tasks may be in flight now.
        halted: whether to begin nothing new.
        hear: called between two looks at the tasks to take in what has become ready; returns whether more may follow.
            It is passed whether it may wait for that: there is nothing else to do.

    Yields:
        what has ended since the last time: keys, and what their tasks returned.

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
