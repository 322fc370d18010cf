"""The board: an actor that knows what every worker is working on, and the watchdog that restarts stalled workers.

Ray Data runs the chips, but does not say which chip a worker is working on, and since when. Workers pin that to the
board. The board also works the other way: through it a run asks its workers to take nothing new, actors find out that
a chip has stalled or killed its worker several times, and workers hear that their node is about to go.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True)
class Preempted:
    """An actor whose machine is about to go.

    Attributes:
        worker: its process.
        source: who gave notice.
        seconds: that were left then.
        chips: that it was super-resolving then.
        given_back: those that it has not ended; None as long as it has not ended itself.
    """

    worker: Worker
    source: str
    seconds: float
    chips: int
    given_back: int | None = None


#: A chip may be given back so many times by actors that are preempted; then it counts as if it had killed them. Whoever
#: ends them by SIGTERM may do so because of this chip.
MOST_GIVEN_BACK = 20

#: Super-resolved chips that the board remembers: far more than are in flight.
_REMEMBERED = 20_000


class Board:
    """What every worker is working on: one entry a worker, and one a chip that the models have. A Ray actor on the
    driver's node, see `start_board`.

    A GPU's worker gives it the next chips while it computes the last ones. Until those have ended they are what the
    worker is working on, and the next ones lie behind them.
    """

    def __init__(self, home: str = "") -> None:
        self._home = home
        self._doing: dict[str, tuple[Worker, str, tuple[str, ...], float]] = {}
        self._behind: dict[str, tuple[str, ...]] = {}
        self._begun: Counter[str] = Counter()
        self._given_back: Counter[str] = Counter()
        self._resolved: dict[str, None] = {}
        self._stopping = False
        self._draining: dict[str, float] = {}
        self._preempted: list[Preempted] = []
        self._restarting: set[str] = set()

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
            self._given_back.pop(chip, None)
            self._resolved[chip] = None
        while len(self._resolved) > _REMEMBERED:
            self._resolved.pop(next(iter(self._resolved)))

    def stop(self) -> None:
        """Ask the workers to take nothing new."""
        self._stopping = True

    def stopping(self) -> bool:
        """Whether the workers are asked to take nothing new."""
        return self._stopping

    def home(self) -> str:
        """Ray's id of the driver's node."""
        return self._home

    def asked(self, node: str) -> tuple[bool, float | None]:
        """What a worker on a node asks for regularly: whether to take nothing new, and when its node goes, seconds
        since 1970; None as long as it stays."""
        return self._stopping, self._draining.get(node)

    def drain(self, nodes: Mapping[str, float]) -> None:
        """These nodes are about to go, by id: when."""
        self._draining = dict(nodes)

    def preempt(self, worker: Worker, actor: str, source: str, seconds: float) -> None:
        """An actor begins nothing more, as its machine is about to go in so many seconds. What it is at does not count
        as begun any more: if it does not end, the chips are not to blame."""
        chips = (*self._doing.get(worker.id, (worker, "", (), 0.0))[2], *self._behind.get(worker.id, ()))
        for chip in chips:
            if self._begun[chip] and self._given_back[chip] < MOST_GIVEN_BACK:
                self._given_back[chip] += 1
                self._begun[chip] -= 1
        self._preempted.append(Preempted(worker, source, seconds, len(chips)))
        self._restarting.add(actor)

    def leave(self, worker: Worker, source: str) -> None:
        """A preempted actor ends itself, whatever it is at."""
        chips = (*self._doing.get(worker.id, (worker, "", (), 0.0))[2], *self._behind.get(worker.id, ()))
        self._preempted.append(Preempted(worker, source, 0.0, len(chips), len(chips)))
        self.forget(worker.id)

    def preempted(self, since: int = 0) -> list[Preempted]:
        """The actors that were preempted, from the so-manyeth entry on."""
        return self._preempted[since:]

    def was_preempted(self, actor: str) -> bool:
        """Whether an actor that begins anew was preempted before; asked once each time."""
        found = actor in self._restarting
        self._restarting.discard(actor)
        return found

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
    node = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node, soft=True)
    actor = ray.remote(Board).options(num_cpus=0, max_restarts=-1, max_task_retries=3, scheduling_strategy=here)
    return actor.remote(node)


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
        going: called, in the pin's thread, when this node goes, seconds since 1970, as soon as the board knows.
    """

    def __init__(self, board: Any) -> None:
        self._board = board
        self.worker = Worker.this()
        self.going: Callable[[float], object] = lambda _: None
        self._lock = threading.Lock()
        self._now: _Current | None = None
        self._told: _Current | None = None
        self._behind: tuple[str, ...] | None = None
        self._stopping = False
        with suppress(ray.exceptions.ActorDiedError):
            self._stopping = self._ask()[0]
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
                stopping, goes = self._ask()
                self._stopping = stopping or self._stopping
                if goes is not None:
                    self.going(goes)

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

    def preempted(self, actor: str, source: str, seconds: float) -> None:
        """Tell the board that this actor is about to go; does not wait for it."""
        self._board.preempt.remote(self.worker, actor, source, seconds)

    def leave(self, source: str) -> None:
        """Tell the board that this actor ends itself now, and see to it that it has heard."""
        with suppress(ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            ray.get(self._board.leave.remote(self.worker, source), timeout=1)

    def was_preempted(self, actor: str) -> bool:
        """Whether this actor was preempted before; False where the board is away."""
        with suppress(ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            return bool(ray.get(self._board.was_preempted.remote(actor), timeout=10))
        return False

    def is_home(self) -> bool:
        """Whether this is the driver's node, or the board is away."""
        with suppress(ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            return bool(ray.get(self._board.home.remote(), timeout=10) == self.worker.node)
        return True

    def _ask(self) -> tuple[bool, float | None]:
        """As `Board.asked`; False and None where the board is away. Raises ActorDiedError where it is gone."""
        try:
            found: tuple[bool, float | None] = ray.get(self._board.asked.remote(self.worker.node), timeout=10)
        except ray.exceptions.ActorDiedError:
            raise
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            return False, None
        return found


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
