"""The board: an actor that every worker tells what it is at, and the watchdog that reads it.

Ray Data runs the chips; what it does not tell is which chip a worker is at, and since when. Workers pin that to the
board in passing. It is the way back, too: through it a run asks its workers to take nothing new, and a chip that has
stalled or killed its worker again and again is told apart from the rest.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger("difffusr.board")


#: So many times a chip is begun by actors that do not survive it; then it is given up.
ATTEMPTS = 5


#: Chips that the board remembers to have been super-resolved: far more than are in flight.
_REMEMBERED = 20_000


#: Seconds between two looks of a worker's thread at what the worker is at, and at whether it is to stop.
_BEAT_S = 1.0


@dataclass(frozen=True)
class Worker:
    """A process of a run.

    Attributes:
        id: of the process, random.
        node: Ray's id of its node.
        host: its node's address.
        pid: on that node.
    """

    id: str
    node: str
    host: str
    pid: int

    @classmethod
    def this(cls) -> Worker:
        """The Ray worker that calls."""
        context = ray.get_runtime_context()
        return cls(context.get_worker_id(), context.get_node_id(), ray.util.get_node_ip_address(), os.getpid())


@dataclass(frozen=True)
class Doing:
    """What a worker is at.

    Attributes:
        worker: who.
        stage: `read`, `super_resolve` or `stage`.
        chips: names of the chips it has in hand.
        seconds: for how long.
    """

    worker: Worker
    stage: str
    chips: tuple[str, ...]
    seconds: float


class Board:
    """What every worker is at. Lives beside the driver; holds one line a worker and one a chip in the models' hands."""

    def __init__(self) -> None:
        self._doing: dict[str, tuple[Worker, str, tuple[str, ...], float]] = {}
        self._begun: Counter[str] = Counter()
        self._resolved: dict[str, None] = {}
        self._stopping = False

    def begin(self, worker: Worker, stage: str, chips: Sequence[str], seconds: float = 0.0) -> list[int]:
        """A worker has begun chips, so many seconds ago; returns how often each was begun and never ended, this time
        included. 0 stands for a chip that was ended before: what came of it was lost, or it is staged."""
        self._doing[worker.id] = (worker, stage, tuple(chips), time.monotonic() - seconds)
        if stage != "super_resolve":
            return []
        self._begun.update(chips)
        return [0 if chip in self._resolved else self._begun[chip] for chip in chips]

    def end(self, worker: Worker, chips: Sequence[str] = ()) -> None:
        """A worker has nothing in hand; `chips` were super-resolved."""
        self._doing.pop(worker.id, None)
        for chip in chips:
            self._begun.pop(chip, None)
            self._resolved[chip] = None
        while len(self._resolved) > _REMEMBERED:
            self._resolved.pop(next(iter(self._resolved)))

    def stop(self) -> None:
        """Nothing new is to be taken."""
        self._stopping = True

    def stopping(self) -> bool:
        """Whether nothing new is to be taken."""
        return self._stopping

    def look(self) -> list[Doing]:
        """What every worker is at."""
        now = time.monotonic()
        return [Doing(worker, stage, chips, now - since) for worker, stage, chips, since in self._doing.values()]

    def forget(self, worker_id: str) -> None:
        """A worker is gone."""
        self._doing.pop(worker_id, None)


def put_up() -> Any:
    """A board on the driver's node; a handle to it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(Board).options(num_cpus=0, max_restarts=-1, max_task_retries=3, scheduling_strategy=here)
    return actor.remote()


class Pin:
    """A worker's end of the board. A board that is away for a moment holds nobody up.

    A message a chip would cost more than reading a small one does. A thread therefore tells, once a second, only of
    what has been in hand for as long; and hears whether the run is asked to stop.

    Attributes:
        worker: the process that this is in.
    """

    def __init__(self, board: Any) -> None:
        self._board = board
        self.worker = Worker.this()
        self._lock = threading.Lock()
        self._now: _InHand | None = None
        self._told: _InHand | None = None
        self._stopping = False
        with suppress(ray.exceptions.ActorDiedError):
            self._stopping = self._ask()
        threading.Thread(target=self._tell, name="pin", daemon=True).start()

    def at(self, stage: str, chips: Sequence[str]) -> None:
        """Note what this worker begins."""
        self._now = _InHand(stage, tuple(chips), time.monotonic())

    def begin(self, stage: str, chips: Sequence[str]) -> list[int]:
        """Tell what this worker begins; returns as `Board.begin`."""
        begun = _InHand(stage, tuple(chips), time.monotonic())
        try:
            attempts: list[int] = ray.get(self._board.begin.remote(self.worker, stage, begun.chips), timeout=10)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return [1] * len(chips)
        with self._lock:
            self._now = self._told = begun
        return attempts

    def done(self, chips: Sequence[str] = ()) -> None:
        """Nothing is in hand; `chips` were super-resolved, which is told without waiting."""
        if not chips:
            self._now = None
            return
        with self._lock:
            self._now = self._told = None
            self._board.end.remote(self.worker, tuple(chips))

    def stopping(self) -> bool:
        """Whether nothing new is to be taken, as of a second ago."""
        return self._stopping

    def _tell(self) -> None:
        """As long as there is a board: workers outlive it where their cluster does."""
        with suppress(ray.exceptions.ActorDiedError):
            while True:
                time.sleep(_BEAT_S)
                self._tell_what_lasts()
                self._stopping = self._ask() or self._stopping

    def _tell_what_lasts(self) -> None:
        with self._lock:
            now = self._now
            if now is None and self._told is not None:
                self._board.end.remote(self.worker)
                self._told = None
            elif now is not None and now is not self._told:
                seconds = time.monotonic() - now.since
                if seconds >= _BEAT_S:
                    self._board.begin.remote(self.worker, now.stage, now.chips, seconds)
                    self._told = now

    def _ask(self) -> bool:
        """Whether nothing new is to be taken; False where the board is away. Raises ActorDiedError where it is gone."""
        try:
            stopping: bool = ray.get(self._board.stopping.remote(), timeout=10)
        except ray.exceptions.ActorDiedError:
            raise
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            return False
        return stopping


@dataclass(frozen=True, eq=False)
class _InHand:
    """What a worker is at, and since when on its own clock."""

    stage: str
    chips: tuple[str, ...]
    since: float


class Watchdog:
    """Looks at the board every so often, and restarts workers that have been at the same chip for too long.

    Ray starts a killed actor anew and gives it its chips again; `Board` counts that, and the actor gives a chip up
    that has outlived `ATTEMPTS` of its kind.
    """

    def __init__(self, board: Any, limit_s: float, restarted: Callable[[Doing], None] = lambda doing: None) -> None:
        self._board, self._limit_s, self._restarted = board, limit_s, restarted
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(self._limit_s / 4, 10.0)):
            try:
                stalled = [doing for doing in ray.get(self._board.look.remote(), timeout=30) if self._is_stalled(doing)]
                for doing in stalled:
                    self._restart(doing)
            except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
                continue

    def _is_stalled(self, doing: Doing) -> bool:
        return doing.seconds > self._limit_s

    def _restart(self, doing: Doing) -> None:
        log.warning(
            "%s: no progress for %.1f min at chip %s; the worker (process %d on %s) is restarted",
            doing.stage, doing.seconds / 60, ", ".join(doing.chips), doing.worker.pid, doing.worker.host,
        )  # fmt: skip
        there = NodeAffinitySchedulingStrategy(doing.worker.node, soft=False)
        kill = ray.remote(_kill).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        ray.get(kill.remote(doing.worker.pid), timeout=60)
        self._board.forget.remote(doing.worker.id)
        self._restarted(doing)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@lru_cache(maxsize=2)
def pin_to(board: Any) -> Pin:
    return Pin(board)
