"""Actors asked for before it is planned what they will do: nodes start, and read what actors import, meanwhile."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import ray

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine.pool import actor_share, actors_that_fit, gpus_per_actor
from difffusr.pipeline.engine.session import resources


def ask_ahead(config: RunConfig, module: str) -> Callable[[], None]:
    """Ask a cluster for a run's actors: for as many as it holds; for the fewest where it starts nodes for them.

    For each it asks for a task as large, which imports what an actor imports: on a node that is new its files are read
    from a disk, or over a network, for the first time, which takes many times as long as the second. On a node that is
    still to come the task waits as an actor would, and an autoscaler sees it. On this machine alone nothing is asked:
    its files were just read, and cores are few.

    Args:
        module: of the actor's class.

    Returns:
        what takes back the tasks that have not begun.

    Raises:
        ConfigError: an actor asks for more GPUs than there are, and nodes are not waited for.
    """
    compute = config.compute
    if compute.address is None:
        return lambda: None
    there = resources()
    count = max(compute.actors_min, 1)
    if not compute.wait_minutes:
        fit = actors_that_fit(config, there)
        count = min(compute.actors_max or fit, fit)
    share = actor_share(config, gpus_per_actor(config, there.gpus))
    task = ray.remote(scheduling_strategy="SPREAD", **share)(_import)
    asked: list[Any] = [task.remote(module) for _ in range(count)]

    def take_back() -> None:
        for one in asked:
            ray.cancel(one)

    return take_back


def _import(module: str) -> None:
    importlib.import_module(module)
