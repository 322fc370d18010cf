"""PinnedResolver: the run's actor, which tells the board what it is working on."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray

from difffusr.pipeline.chips.actor import Resolved, SuperResolver
from difffusr.pipeline.chips.batch import LEFT, STAGED, TO_STAGE, Batch
from difffusr.pipeline.chips.batch_size import Agreement
from difffusr.pipeline.chips.compiled import kernels_of
from difffusr.pipeline.chips.leaving import GoingError, Leaving
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine import ATTEMPTS, Notice, Pin, Watch, drain_this_node, hear_sigterm, sources_of
from difffusr.pipeline.storage import Storage
from difffusr.pipeline.watch import Cause, meters_of


@dataclass(frozen=True, eq=False)
class _Flight:
    """A batch on its way through the device.

    Attributes:
        fate: (B,) of its chips, of `TO_STAGE`, `STAGED`, `LEFT`.
        begun: names of its chips that the board was told of.
        since: when it was given to the device, `time.perf_counter`.
        alone: whether no other may be under way with it.
        ended: set once the device is done with it and the board knows.
    """

    fate: NDArray[np.uint8]
    begun: list[str]
    since: float
    alone: bool
    ended: threading.Event = field(default_factory=threading.Event)


#: Batches that a GPU has at a time: one computed, one behind it. What they take of its memory is planned with.
_UNDER_WAY = 2


class PinnedResolver(SuperResolver):
    """The run's actor, which tells the board what it is working on.

    Calls come several at a time. The models have a thread of their own, which loads them and gives the device one batch
    after the other; everything else goes on beside it, in the calls' own threads. A GPU gets the next batch while it
    computes the last one, so that it never waits for the board, for a copy or for a thread. Where that leaves in doubt
    which chip killed a worker, its batch is computed alone the next time.
    """

    #: So many actors may end or stall at a chip before it is given up.
    attempts = ATTEMPTS

    def __init__(self, config: RunConfig, board: Any, staging: Storage) -> None:
        self.prepare(board, staging)
        self.listen(config)
        with kernels_of(config):
            self._models.submit(SuperResolver.__init__, self, config, Agreement.of(config, staging)).result()
        if ray.get_runtime_context().was_current_actor_reconstructed:
            cause: Cause = "preemption" if self._pin.was_preempted(_this_actor()) else "death"
            meters_of(config.name, config.period.label).actor_restarted(cause)

    def prepare(self, board: Any, staging: Storage) -> None:
        """Everything an actor has besides its models."""
        self._pin, self._staging = Pin(board), staging
        self._leaving = Leaving(_Told(self._pin))
        self._models = ThreadPoolExecutor(max_workers=1, thread_name_prefix="models")
        self._flights: list[_Flight] = []
        self._free_since, self._clock = 0.0, threading.Lock()

    def listen(self, config: RunConfig) -> None:
        """From now on leave in order when the machine is about to go. On the driver's the driver listens: it stops."""
        self._pin.going = lambda ends: self._heard(Notice("ray", ends))
        if config.compute.preemption != "none":
            hear_sigterm(self._leaving.hear)
            if not self._pin.is_home():
                Watch(sources_of(config.compute.preemption), self._node_goes)

    def _node_goes(self, notice: Notice) -> None:
        """Others on this node hear it from Ray, by way of the driver and the board."""
        drain_this_node(notice)
        self._leaving.hear(notice)

    def _heard(self, notice: Notice) -> None:
        """Hear a notice by a thread: the pin goes on telling the board meanwhile."""
        threading.Thread(target=self._leaving.hear, args=(notice,), name="leaving", daemon=True).start()

    def __call__(self, batch: Batch) -> Batch:
        """As `SuperResolver`; a chip that killed `attempts` actors is given up, a staged one is not computed again.

        Ray repeats a task whose worker or node is lost, also for chips that were staged before.

        Returns:
            besides what `SuperResolver` returns, `fate` (B,): of `TO_STAGE`, `STAGED`, `LEFT`, and `resolve_s` (B,),
            the seconds that the device had a chip.
        """
        call = threading.get_ident()
        try:
            return self._called(batch, call)
        except GoingError:
            self._leaving.stay()
            raise
        finally:
            self._leaving.end(call)

    def _called(self, batch: Batch, call: int) -> Batch:
        flight, resolved = self._models.submit(self._begin, batch, call).result()
        try:
            out = self.fetch(resolved)
            seconds = self._seconds(flight)
            if flight.begun:
                self._pin.done(flight.begun)
        finally:
            flight.ended.set()
        fate = flight.fate
        out["error"] = np.where(fate == TO_STAGE, out["error"], "")
        return {**out, "fate": fate, "resolve_s": np.full(len(fate), seconds / len(fate))}

    def _begin(self, batch: Batch, call: int) -> tuple[_Flight, Resolved]:
        """In the models' thread: a call's batch is given to the device.

        Raises:
            GoingError: the machine is about to go.
        """
        names = [str(name) for name in batch["name"]]
        readable = [i for i, error in enumerate(batch["error"]) if not error]
        errors, fate, attempts = batch["error"].copy(), np.full(len(names), TO_STAGE, np.uint8), list[int]()
        if self._pin.stopping():
            fate[readable], readable = LEFT, []
        elif readable:
            attempts = self._begun([names[i] for i in readable], call)
        for i, attempt in zip(readable, attempts, strict=True):
            if attempt != 1 and self._is_staged(str(batch["object"][i])):
                fate[i] = STAGED
            elif attempt > self.attempts:
                errors[i] = _given_up(attempt)
        since = time.perf_counter()
        resolved = self.resolve({**batch, "error": np.where(fate == TO_STAGE, errors, "not to be computed")})
        alone = not self.lane.beside or any(attempt > 1 for attempt in attempts)
        flight = _Flight(fate, [names[i] for i in readable], since, alone)
        self._flights.append(flight)
        return flight, resolved

    def _is_staged(self, name: str) -> bool:
        from difffusr.pipeline.chips.staging import is_staged  # with codecs, which an actor does not wait for to begin

        return is_staged(self._staging, name)

    def _begun(self, names: list[str], call: int) -> list[int]:
        """Tell the board of chips, as soon as they may be under way; returns how often each was begun and not ended."""
        self._flights = [flight for flight in self._flights if not flight.ended.is_set()]
        alone = not self.lane.beside or any(flight.alone for flight in self._flights)
        self._land(0 if alone else _UNDER_WAY - 1)
        self._leaving.begin(call)
        attempts = self._pin.begin_behind(names) if self._flights else None
        if attempts is None:
            self._land()
            attempts = self._pin.begin("super_resolve", names)
        return attempts

    def _land(self, left: int = 0) -> None:
        """Wait until no more than so many batches are under way."""
        while len(self._flights) > left:
            self._flights.pop(0).ended.wait()

    def _seconds(self, flight: _Flight) -> float:
        """How long the device had a batch that has just ended: since it was given it, or since the one before ended."""
        with self._clock:
            before, self._free_since = self._free_since, time.perf_counter()
            return self._free_since - max(flight.since, before)


class _Told(NamedTuple):
    """What the board hears of an actor that leaves."""

    pin: Pin

    def going(self, source: str, seconds: float) -> None:
        """See `Teller`."""
        self.pin.preempted(_this_actor(), source, seconds)

    def gone(self, source: str) -> None:
        """See `Teller`."""
        self.pin.leave(source)


def _this_actor() -> str:
    return str(ray.get_runtime_context().get_actor_id())


def _given_up(attempts: int) -> str:
    return (
        f"super_resolve: given up after {attempts - 1} workers ended or stalled at it; the workers' memory may not be "
        "enough (lower compute.batch or grid.chip_px), see the log"
    )
