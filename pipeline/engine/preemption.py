"""Preemption: what a cluster does about a notice.

Ray drains a node that is about to go: nothing new is placed there, and Ray Data gives its actors nothing more. Where
Ray knows of it already (`ray drain-node`, an autoscaler, SIGTERM to `ray start`) the driver hears it from Ray; where
the machine itself is told, an actor on it tells Ray.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray

from difffusr.pipeline.engine.board import Preempted
from difffusr.pipeline.engine.notices import Notice

log = logging.getLogger("difffusr.preemption")


def drain_this_node(notice: Notice) -> bool:
    """Tell Ray that this process's node is about to go; returns whether Ray has taken it in.

    Ray has no public call for that: its command `ray drain-node` makes the same one.
    """
    from ray.core.generated import autoscaler_pb2

    try:
        node = ray.get_runtime_context().get_node_id()
        client: Any = ray._private.worker.global_worker.gcs_client
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        return bool(client.drain_node(node, reason, notice.source, int(notice.ends * 1000))[0])
    except Exception as error:  # another Ray, or its head is away: the actor drains by itself
        log.debug("Ray did not hear that the node goes: %s", type(error).__name__)
        return False


def draining_nodes() -> dict[str, float]:
    """Nodes that Ray drains, by id: when they go, seconds since 1970; infinite where nobody has said."""
    try:
        found = ray._private.state.state.get_draining_nodes()
    except Exception:  # as above
        return {}
    return {str(node): ends / 1000 if ends else float("inf") for node, ends in found.items()}


#: Seconds between two looks of `Preemptions`.
_LOOK_S = 2.0


class Preemptions:
    """The driver's part: tells the board of nodes that Ray drains, and hears from it which actors are preempted.

    Args:
        board: handle from `start_board`.
        told: called with every preempted actor, and when it has ended with how many chips it has given back.
    """

    def __init__(self, board: Any, told: Callable[[Preempted], object]) -> None:
        self._board, self._told = board, told
        self._known: dict[str, float] = {}
        self._seen = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="preemptions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look once more, and stop."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            last = self._ended.wait(_LOOK_S)
            with suppress(ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
                self._look()
            if last:
                return

    def _look(self) -> None:
        draining = draining_nodes()
        if draining != self._known:
            ray.get(self._board.drain.remote(draining), timeout=10)
            self._known = draining
        preempted: list[Preempted] = ray.get(self._board.preempted.remote(self._seen), timeout=10)
        self._seen += len(preempted)
        for one in preempted:
            self._told(one)
