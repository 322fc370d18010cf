"""The status of a run as an object in its folder: written every few seconds by the driver, read from anywhere."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage import Storage, read_document

_NAME = "progress.json"


@dataclass(frozen=True)
class RunStatus:
    """The status of a run.

    Attributes:
        run, period: its name and label.
        state: `running`, `stopped` (resume it), `failed`, `published`.
        why: the reason for `stopped` or `failed`.
        began: when this driver began, seconds since 1970.
        updated: when this was written, seconds since 1970.
        chips, chips_done, chips_failed: planned; staged or no longer needed; failed in this attempt.
        shards, shards_done: planned, written.
        rate: chips a second lately; 0 while unknown.
        gpus, cpus: that the run holds.
        gpu_hours, cpu_hours: held so far, earlier attempts included.
        gpu_hours_before, cpu_hours_before: those of them until the period was last published.
        cost: of those hours by `costs.prices`, in `currency`.
        spent: that of the hours since then, which a budget is for.
        preempted: actors whose machine was taken away after a notice, in this attempt.
        given_back: chips that these had begun and did not end.
        failures: chips by kind of failure.
        reasons: a message for some of the chips that failed, by name.
    """

    run: str
    period: str
    state: str = "running"
    why: str = ""
    began: float = 0.0
    updated: float = 0.0
    chips: int = 0
    chips_done: int = 0
    chips_failed: int = 0
    shards: int = 0
    shards_done: int = 0
    rate: float = 0.0
    gpus: float = 0.0
    cpus: float = 0.0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours_before: float = 0.0
    cpu_hours_before: float = 0.0
    cost: float = 0.0
    spent: float = 0.0
    currency: str = ""
    preempted: int = 0
    given_back: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last chip at the present rate; None while the rate is unknown."""
        left = self.chips - self.chips_done - self.chips_failed
        return left / self.rate if self.rate > 0 else 0.0 if left <= 0 else None


def read_status(staging: Storage) -> RunStatus | None:
    """The status that was last written of a run; None where there is none.

    Raises:
        StoreError: it cannot be read.
    """
    if not staging.exists(_NAME):
        return None
    return read_document(staging, _NAME, RunStatus, "delete it")


def clock_skew(staging: Storage) -> float | None:
    """Seconds by which the clock of the driver that last wrote a run's status is ahead of the store's; None if the
    store does not say when objects were written, or the status was written again meanwhile.

    Raises:
        StoreError: there is no status, or it cannot be read.
    """
    before, said, after = staging.modified(_NAME), read_status(staging), staging.modified(_NAME)
    return None if before is None or said is None or before != after else said.updated - before


#: Seconds between two writings.
PULSE_S = 10.0

#: The rate is that of the last so many seconds: older chips say little about what is left.
_WINDOW_S = 600.0


class Pulse:
    """Keeps a run's status while it runs; a thread writes it into the run's folder.

    Attributes:
        now: the latest status.
    """

    #: Messages of failed chips that are kept: enough to see what is wrong.
    KEPT = 20

    def __init__(self, staging: Storage, first: RunStatus) -> None:
        before = _quietly(lambda: read_status(staging))
        self._staging = staging
        self._watchers: list[Callable[[RunStatus], None]] = []
        self._gpu_hours = before.gpu_hours if before else 0.0
        self._cpu_hours = before.cpu_hours if before else 0.0
        if before and before.state == "published":
            paid = before.gpu_hours, before.cpu_hours
        else:
            paid = (before.gpu_hours_before, before.cpu_hours_before) if before else (0.0, 0.0)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._prices = 0.0, 0.0
        self._since = time.monotonic()
        self._moved = time.monotonic(), 0
        self._marks: list[tuple[float, int]] = []
        self._failures: Counter[str] = Counter()
        self.now = replace(first, began=time.time(), gpu_hours_before=paid[0], cpu_hours_before=paid[1])
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._thread.start()

    def holds(self, gpus: float, cpus: float, gpu_hour: float, cpu_hour: float, currency: str) -> None:
        """From now on the run holds so many GPUs and cores, at these prices an hour."""
        with self._lock:
            self._prices = gpu_hour, cpu_hour
            now = time.monotonic()
            self._gpu_hours += (now - self._since) / 3600 * self.now.gpus
            self._cpu_hours += (now - self._since) / 3600 * self.now.cpus
            self._since = now
            self.now = replace(self.now, gpus=gpus, cpus=cpus, currency=currency)

    def watch(self, watcher: Callable[[RunStatus], None]) -> None:
        """Call this with the status at every writing, in the thread that writes."""
        self._watchers.append(watcher)

    @property
    def still_s(self) -> float:
        """Seconds since a chip or a shard was last done."""
        return time.monotonic() - self._moved[0]

    def update(self, **values: Any) -> None:
        """Replace attributes of `now`."""
        with self._lock:
            self.now = replace(self.now, **values)

    def chip_done(self, count: int = 1) -> None:
        """So many more chips are staged."""
        with self._lock:
            self.now = replace(self.now, chips_done=self.now.chips_done + count)

    def chip_failed(self, name: str, kind: str, reason: str) -> None:
        """A chip has failed.

        Args:
            kind: one of `reasons.REASONS`.
            reason: its message.
        """
        with self._lock:
            self._failures[kind] += 1
            reasons = self.now.reasons
            if len(reasons) < self.KEPT:
                reasons = {**reasons, name: reason}
            failed = self.now.chips_failed + 1
            self.now = replace(self.now, chips_failed=failed, failures=dict(self._failures), reasons=reasons)

    def actor_preempted(self) -> None:
        """An actor's machine has given notice."""
        with self._lock:
            self.now = replace(self.now, preempted=self.now.preempted + 1)

    def given_back(self, chips: int) -> None:
        """A preempted actor has ended amid so many chips."""
        with self._lock:
            self.now = replace(self.now, given_back=self.now.given_back + chips)

    def shard_done(self) -> None:
        """One more shard is written."""
        with self._lock:
            self.now = replace(self.now, shards_done=self.now.shards_done + 1)

    def end(self, state: str, why: str = "") -> None:
        """Stop the thread and write the final status."""
        self._ended.set()
        self._thread.join()
        self.update(state=state, why=why)
        self._write()

    def _beat(self) -> None:
        self._write()
        while not self._ended.wait(PULSE_S):
            self._write()

    def _write(self) -> None:
        with self._lock:
            done = self.now.chips_done + self.now.chips_failed + self.now.shards_done
            if done != self._moved[1]:
                self._moved = time.monotonic(), done
            hours = (time.monotonic() - self._since) / 3600
            gpu, cpu = self._gpu_hours + hours * self.now.gpus, self._cpu_hours + hours * self.now.cpus
            cost = gpu * self._prices[0] + cpu * self._prices[1]
            before = self.now.gpu_hours_before * self._prices[0] + self.now.cpu_hours_before * self._prices[1]
            self.now = replace(
                self.now,
                updated=time.time(),
                rate=self._rate(),
                gpu_hours=gpu,
                cpu_hours=cpu,
                cost=cost,
                spent=max(cost - before, 0.0),
            )
            said = self.now
        data = json.dumps(asdict(said), indent=1, sort_keys=True).encode()
        _quietly(lambda: self._staging.write(_NAME, data, durable=False))
        for watcher in self._watchers:
            watcher(said)

    def _rate(self) -> float:
        """Chips a second over the last `_WINDOW_S`."""
        now = time.monotonic()
        self._marks = [mark for mark in self._marks if now - mark[0] <= _WINDOW_S]
        self._marks.append((now, self.now.chips_done))
        (first, then), (last, count) = self._marks[0], self._marks[-1]
        return (count - then) / (last - first) if last > first else 0.0


def _quietly(do: Callable[[], Any]) -> Any:
    """None instead of a StoreError: a store that is away for a moment must not end a run over its status."""
    try:
        return do()
    except StoreError:
        return None
