"""One driver at a time: a lease in the staging folder, kept alive by a heartbeat.

A lease is a numbered object that can be created only once; the highest number counts. Its holder rewrites it every
few seconds. A driver that finds a lease watches it for one term, on its own clock: if the beat changes, the holder is
alive; if not, it is dead, and the next number is free. Clocks of two machines are never compared.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import uuid4

from difffusr.pipeline.ground.errors import DifffusrError, StoreError
from difffusr.pipeline.storage.documents import read_document
from difffusr.pipeline.storage.objects import Storage

#: Seconds between two beats, and seconds without a beat after which a holder counts as dead.
BEAT_S, TERM_S = 5.0, 30.0

_FOLDER = "lease"

#: Names of leases; whatever else lies in the folder is a stranger's.
_NUMBERED = re.compile(r"(\d{8,18})\.json", re.ASCII)


class LeaseError(DifffusrError):
    """Another driver works on this store. The message names its host and process."""


@dataclass(frozen=True)
class Holder:
    """The holder of a lease, as the lease names it.

    Attributes:
        id: of this driver, random.
        run: name and period of the run.
        host, pid, boot: where it runs; `boot` distinguishes restarts of a machine.
        since: when it began, ISO 8601, UTC.
        beat: counts up while it lives.
        released: whether it ended properly.
    """

    id: str
    run: str
    host: str
    pid: int
    boot: str
    since: str
    beat: int = 0
    released: bool = False

    @classmethod
    def of_this_process(cls, run: str) -> Holder:
        """This driver."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return cls(uuid4().hex, run, socket.gethostname(), os.getpid(), _boot(), now)

    def is_surely_dead(self) -> bool:
        """Whether it ran on this machine and no longer does. False does not mean that it is alive."""
        if self.host != socket.gethostname() or not self.boot:
            return False
        if self.boot != _boot():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def to_json(self) -> bytes:
        """As an object of the store."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()


class Lease:
    """The right to work on a store, held until released or lost.

    End it with `release`. If a process dies without, the next one takes the lease over.
    """

    def __init__(self, staging: Storage, number: int, holder: Holder, beat_s: float) -> None:
        self._staging, self._number, self._holder, self._beat_s = staging, number, holder, beat_s
        self._ended = threading.Event()
        self._last = time.monotonic()
        self.lost: str | None = None
        self._watchers: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(
        cls,
        staging: Storage,
        run: str,
        waiting: Callable[[str], None] = lambda _: None,
        *,
        beat_s: float = BEAT_S,
        term_s: float = TERM_S,
    ) -> Lease:
        """Take the lease of a store.

        Args:
            run: name of the run, shown to other drivers.
            waiting: called once, with the reason, if it takes a while.

        Raises:
            LeaseError: another driver holds it and is alive.
            StoreError: the store refuses.
        """
        holder = Holder.of_this_process(run)
        while True:
            number, other = _latest(staging)
            if other is not None and not other.released and not other.is_surely_dead():
                _watch(staging, number, other, waiting, term_s)
            if staging.create(_name(number + 1), holder.to_json()):
                _forget(staging, number + 1)
                return cls(staging, number + 1, holder, beat_s)

    @property
    def age_s(self) -> float:
        """Seconds since the last beat that was stored."""
        return time.monotonic() - self._last

    def on_lost(self, watcher: Callable[[], None]) -> None:
        """Call this once, in the lease's own thread, when another driver has taken over."""
        self._watchers.append(watcher)

    def check(self) -> None:
        """Raise LeaseError if another driver has taken over: nothing may be written any more."""
        if self.lost is not None:
            raise LeaseError(self.lost)

    def release(self) -> None:
        """Free the lease for the next driver. Does nothing if the lease is lost."""
        self._ended.set()
        self._thread.join()
        if self.lost is None:
            self._staging.write(_name(self._number), replace(self._holder, released=True).to_json())

    def _keep(self) -> None:
        while not self._ended.wait(self._beat_s):
            try:
                number, other = _latest(self._staging)
                if number > self._number and other is not None:
                    self.lost = (
                        f"{self._staging.url}: {_described(other)} has taken over, because this driver gave no sign of "
                        "life; it stops here, and nothing is lost"
                    )
                    for watcher in self._watchers:
                        watcher()
                    return
                self._holder = replace(self._holder, beat=self._holder.beat + 1)
                self._staging.write(_name(self._number), self._holder.to_json())
                self._last = time.monotonic()
            except StoreError:
                continue  # the store may be back soon; the watchdog decides how long is too long


def holder_of(staging: Storage) -> Holder | None:
    """The holder of a store's lease, or None."""
    _, holder = _latest(staging)
    return None if holder is None or holder.released else holder


def _watch(staging: Storage, number: int, other: Holder, waiting: Callable[[str], None], term_s: float) -> None:
    """Return once a lease is free. Raises LeaseError if its holder is alive."""
    waiting(f"{_described(other)} worked on this store; checking for up to {term_s:.0f} s whether it is still alive")
    deadline = time.monotonic() + term_s
    while time.monotonic() < deadline:
        time.sleep(min(0.5, term_s / 10))
        latest, seen = _latest(staging)
        if latest != number or seen is None or seen.released:
            return
        if seen.beat != other.beat:
            raise LeaseError(
                f"{staging.url}: {_described(other)} is working on this store; wait for it, or stop it first "
                "(it then continues where it was)"
            )


def _latest(staging: Storage) -> tuple[int, Holder | None]:
    """The highest number and its holder; (0, None) if there is no lease yet."""
    for _ in range(5):
        numbers = _numbers(staging)
        if not numbers:
            return 0, None
        try:
            return max(numbers), read_document(staging, _name(max(numbers)), Holder, _TODO)
        except StoreError as error:
            failure = error
        if max(_numbers(staging), default=0) == max(numbers):
            break
        # else it was just replaced by a higher one
    raise failure


def _forget(staging: Storage, number: int) -> None:
    """Delete the leases before one."""
    for earlier in _numbers(staging):
        if earlier < number:
            staging.delete(_name(earlier))


def _numbers(staging: Storage) -> list[int]:
    """Of all leases that are there."""
    return [int(found[1]) for name in staging.names(_FOLDER) if (found := _NUMBERED.fullmatch(name))]


_TODO = "delete it if no driver is running"


def _name(number: int) -> str:
    return f"{_FOLDER}/{number:08d}.json"


def _described(holder: Holder) -> str:
    return f"run {holder.run} (process {holder.pid} on {holder.host}, since {holder.since})"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
