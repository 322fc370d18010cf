"""The board: an actor that knows what every worker is working on, and the watchdog that restarts stalled workers.

Ray Data runs the chips, but does not say which chip a worker is working on, and since when. Workers pin that to the
board. The board also works the other way: through it a run asks its workers to take nothing new, and actors find out
that a chip has stalled or killed its worker several times.
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

#: A chip is given up once so many actors began it and did not survive it.
ATTEMPTS = 5


@dataclass(frozen=True)
class Worker:
    """A worker process of a run.

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
        """The calling Ray worker."""
        context = ray.get_runtime_context()
        return cls(context.get_worker_id(), context.get_node_id(), ray.util.get_node_ip_address(), os.getpid())


@dataclass(frozen=True)
class Doing:
    """What a worker is working on.

    Attributes:
        worker: who.
        stage: `read`, `super_resolve` or `stage`.
        chips: names of the chips.
        seconds: for how long.
    """

    worker: Worker
    stage: str
    chips: tuple[str, ...]
    seconds: float


#: Super-resolved chips that the board remembers: far more than are in flight.
_REMEMBERED = 20_000


class Board:
    """What every worker is working on: one entry a worker, and one a chip that the models have. A Ray actor on the
    driver's node, see `start_board`.

    A GPU's worker gives it the next chips while it computes the last ones. Until those have ended they are what the
    worker is working on, and the next ones lie behind them.
    """

    def __init__(self) -> None:
        self._doing: dict[str, tuple[Worker, str, tuple[str, ...], float]] = {}
        self._behind: dict[str, tuple[str, ...]] = {}
        self._begun: Counter[str] = Counter()
        self._resolved: dict[str, None] = {}
        self._stopping = False

    def begin(self, worker: Worker, stage: str, chips: Sequence[str], seconds: float = 0.0) -> list[int]:
        """A worker began chips so many seconds ago.

        Returns:
            for the stage `super_resolve`, how often each chip was begun and not ended, this time included; 0 for a
            chip that was ended before: its result is staged, or was lost.
        """
        self._doing[worker.id] = (worker, stage, tuple(chips), time.monotonic() - seconds)
        return self._counted(chips) if stage == "super_resolve" else []

    def begin_behind(self, worker: Worker, chips: Sequence[str]) -> list[int] | None:
        """A worker begins to super-resolve chips before those that it is working on have ended.

        Returns:
            as `begin`; None, and nothing is begun, where a worker may have died of one of the chips: such a chip is to
            be alone with its batch, so that the next death tells whether it was this one.
        """
        if any(self._begun[chip] for chip in chips):
            return None
        if worker.id in self._doing:
            self._behind[worker.id] = tuple(chips)
        else:  # those have ended meanwhile
            self._doing[worker.id] = (worker, "super_resolve", tuple(chips), time.monotonic())
        return self._counted(chips)

    def _counted(self, chips: Sequence[str]) -> list[int]:
        self._begun.update(chips)
        return [0 if chip in self._resolved else self._begun[chip] for chip in chips]

    def end(self, worker: Worker, chips: Sequence[str] = ()) -> None:
        """What a worker was working on has ended: it goes on with what lies behind, or is idle. `chips` were
        super-resolved."""
        behind = self._behind.pop(worker.id, None)
        if behind is None:
            self._doing.pop(worker.id, None)
        else:
            self._doing[worker.id] = (worker, "super_resolve", behind, time.monotonic())
        for chip in chips:
            self._begun.pop(chip, None)
            self._resolved[chip] = None
        while len(self._resolved) > _REMEMBERED:
            self._resolved.pop(next(iter(self._resolved)))

    def stop(self) -> None:
        """Ask the workers to take nothing new."""
        self._stopping = True

    def stopping(self) -> bool:
        """Whether the workers are asked to take nothing new."""
        return self._stopping

    def look(self) -> list[Doing]:
        """What every worker is working on."""
        now = time.monotonic()
        return [Doing(worker, stage, chips, now - since) for worker, stage, chips, since in self._doing.values()]

    def forget(self, worker_id: str) -> None:
        """A worker is gone."""
        self._doing.pop(worker_id, None)
        self._behind.pop(worker_id, None)


def start_board() -> Any:
    """Start a board on the driver's node; returns its handle."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(Board).options(num_cpus=0, max_restarts=-1, max_task_retries=3, scheduling_strategy=here)
    return actor.remote()


@lru_cache(maxsize=2)  # once a process: a pin has a thread
def pin_to(board: Any) -> Pin:
    """This process's pin to a board.

    Args:
        board: handle from `start_board`.
    """
    return Pin(board)


#: Seconds between two reports of a pin to its board.
_BEAT_S = 1.0


class Pin:
    """A worker's end of the board. A board that is away for a moment does not block the worker.

    A message for every chip would cost more than reading a small one. A thread therefore reports, once a second, only
    what has lasted that long, and asks whether the run is to stop.

    Attributes:
        worker: the process that this is in.
    """

    def __init__(self, board: Any) -> None:
        self._board = board
        self.worker = Worker.this()
        self._lock = threading.Lock()
        self._now: _Current | None = None
        self._told: _Current | None = None
        self._behind: tuple[str, ...] | None = None
        self._stopping = False
        with suppress(ray.exceptions.ActorDiedError):
            self._stopping = self._ask()
        threading.Thread(target=self._tell, name="pin", daemon=True).start()

    def at(self, stage: str, chips: Sequence[str]) -> None:
        """Note what this worker begins; the board hears of it if it lasts."""
        self._now = _Current(stage, tuple(chips), time.monotonic())

    def begin(self, stage: str, chips: Sequence[str]) -> list[int]:
        """Tell the board what this worker begins; returns as `Board.begin`, 1 for each chip where the board is away."""
        begun = _Current(stage, tuple(chips), time.monotonic())
        try:
            attempts: list[int] = ray.get(self._board.begin.remote(self.worker, stage, begun.chips), timeout=10)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return [1] * len(chips)
        with self._lock:
            self._now = self._told = begun
        return attempts

    def begin_behind(self, chips: Sequence[str]) -> list[int] | None:
        """Tell the board that this worker begins to super-resolve chips behind those that it is working on; returns as
        `Board.begin_behind`, None where the board is away."""
        try:
            attempts: list[int] | None = ray.get(self._board.begin_behind.remote(self.worker, tuple(chips)), timeout=10)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return None
        with self._lock:
            if attempts is not None and self._now is None:  # those before have ended meanwhile
                self._now = self._told = _Current("super_resolve", tuple(chips), time.monotonic())
            elif attempts is not None:
                self._behind = tuple(chips)
        return attempts

    def done(self, chips: Sequence[str] = ()) -> None:
        """This worker is idle, or at what lies behind; `chips` were super-resolved. Does not wait for the board."""
        if not chips:
            self._now = None
            return
        with self._lock:
            behind, self._behind = self._behind, None
            self._now = self._told = None if behind is None else _Current("super_resolve", behind, time.monotonic())
            self._board.end.remote(self.worker, tuple(chips))

    def stopping(self) -> bool:
        """Whether to take nothing new, as of a second ago."""
        return self._stopping

    def _tell(self) -> None:
        """Report until the board is gone: workers outlive it where their cluster does."""
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
        """Whether to take nothing new; False where the board is away. Raises ActorDiedError where it is gone."""
        try:
            stopping: bool = ray.get(self._board.stopping.remote(), timeout=10)
        except ray.exceptions.ActorDiedError:
            raise
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            return False
        return stopping


@dataclass(frozen=True, eq=False)
class _Current:
    """What a worker is working on, and since when on its own clock."""

    stage: str
    chips: tuple[str, ...]
    since: float


class Watchdog:
    """Reads the board regularly, and restarts workers that have worked on the same chip for too long.

    Ray restarts a killed actor and gives it its chips again; `Board` counts that, and the actor gives a chip up after
    `ATTEMPTS`.

    Args:
        board: handle from `start_board`.
        limit_s: seconds that a worker may take for a chip.
        restarted: called with what a restarted worker was working on.
    """

    def __init__(self, board: Any, limit_s: float, restarted: Callable[[Doing], None] = lambda _: None) -> None:
        self._board, self._limit_s, self._restarted = board, limit_s, restarted
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
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
