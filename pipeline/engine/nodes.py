"""Waiting until the cluster has a node for an actor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import ray

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine.pool import actor_share, gpus_per_actor
from difffusr.pipeline.engine.session import resources
from difffusr.pipeline.ground.errors import DifffusrError

log = logging.getLogger("difffusr.chips")

#: Seconds between two checks for a node.
_CHECK_S = 2.0


def await_node(config: RunConfig, stopping: Callable[[], bool]) -> None:
    """Wait until the cluster has a node that holds an actor; returns at once where `compute.wait_minutes` is 0.

    It asks for a task as large as an actor: an autoscaler sees it pending, and forgets it if this driver dies.

    Args:
        stopping: whether to give up waiting.

    Raises:
        DifffusrError: there is none after `compute.wait_minutes`.
    """
    minutes = config.compute.wait_minutes
    if not minutes:
        return
    share = actor_share(config, gpus_per_actor(config, resources().gpus))
    room = ray.remote(**share)(_nothing).remote()
    until, told = time.monotonic() + minutes * 60, False
    while not ray.wait([room], timeout=_CHECK_S)[0]:
        if stopping() or time.monotonic() > until:
            ray.cancel(room)
            break
        if not told:
            log.warning("no node holds an actor yet: waiting up to %g minutes for the cluster to start one", minutes)
            told = True
    else:
        return
    if not stopping():
        asked = " and ".join(f"{amount:g} {name[4:-1].upper()}" for name, amount in share.items() if amount)
        raise DifffusrError(
            f"no node of the cluster has {asked} for an actor, and none was started within compute.wait_minutes = "
            f"{minutes:g}; look at the autoscaler's log and at quotas, then run again"
        )


def _nothing() -> None:
    """A task that only takes up room."""
