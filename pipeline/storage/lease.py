"""One driver at a time: a lease in the staging folder, kept alive by a heartbeat.

A lease is a numbered object that can be created only once; the highest number counts. Its holder rewrites it every
few seconds. A driver that finds a lease watches it for one term, on its own clock: if the beat changes, the holder is
alive; if not, it is taken for dead, and the next number is free. Clocks of two machines are never compared.

Who was taken for dead may only have been frozen, and wakes up. So a holder reads its lease from the store before each
phase of its work (`check`), asks its own clock before each step (`guard`), and the lease's number is in the names of
what it writes.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from difffusr.pipeline.ground.errors import DifffusrError, StoreError
from difffusr.pipeline.storage.documents import read_document
from difffusr.pipeline.storage.holder import Holder
from difffusr.pipeline.storage.objects import Storage

#: Seconds between two beats, and seconds without a beat after which a holder counts as dead.
BEAT_S, TERM_S = 5.0, 30.0

#: Leases whose holders nobody has heard of again that are remembered.
_REMEMBERED = 50

_FOLDER = "lease"

#: Names of leases; whatever else lies in the folder is a stranger's.
_NUMBERED = re.compile(r"(\d{8,18})\.json", re.ASCII)

_ADVICE = "delete it if no driver is running"


class LeaseError(DifffusrError):
    """Another driver works on this store. The message names its host and process."""


class Lease:
    """The right to work on a store, held until released or lost.

    End it with `release`. If a process dies without, the next one takes the lease over.

    Attributes:
        number: of the lease: that of later holders is higher.
        holder: this driver.
        lost: why it is lost; None while it is held.
    """

    def __init__(
        self,
        staging: Storage,
        number: int,
        holder: Holder,
        beat_s: float,
        term_s: float = TERM_S,
    ) -> None:
        self.number, self.holder = number, holder
        self._staging, self._beat_s, self._term_s = staging, beat_s, term_s
        self._ended, self._writing = threading.Event(), threading.Lock()
        self._last = _clock()
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
            waiting: called with the reason if it takes a while, and if the store cannot keep two drivers apart.

        Raises:
            LeaseError: another driver holds it and is alive.
            StoreError: the store refuses.
        """
        holder = Holder.of_this_process(run)
        while True:
            number, other = _latest(staging)
            silent, after = (other.silent, other.after) if other is not None else ((), ())
            if other is None or other.released:
                after = ()
            else:
                after = (*after, number)[-_REMEMBERED:]
                if not other.is_surely_dead():
                    if not _is_silent(staging, number, other, waiting, term_s):
                        continue
                    silent = (*silent, number)[-_REMEMBERED:]
            holder = replace(holder, silent=silent, after=after)
            if _created(staging, number + 1, holder):
                _confirm(staging, number + 1, holder, waiting, beat_s)
                _forget(staging, number + 1)
                return cls(staging, number + 1, holder, beat_s, term_s)

    @property
    def age_s(self) -> float:
        """Seconds since the last beat that was stored, those included in which this machine was suspended."""
        return _clock() - self._last

    def on_lost(self, watcher: Callable[[], None]) -> None:
        """Call this once, in the thread that notices, when another driver has taken over."""
        self._watchers.append(watcher)

    def check(self) -> None:
        """Read the lease from the store: before each phase of the work.

        Raises:
            LeaseError: another driver has taken over: nothing may be written any more.
            StoreError: the store refuses.
        """
        self._look()
        if self.age_s > self._term_s:
            self._beat()  # whoever watches sees it alive
            self._look()

    def guard(self) -> None:
        """Before each step of a phase. Asks the store only if the lease is older than its term. Raises as `check`."""
        if self.age_s > self._term_s:
            self.check()
        self._stop_if_lost()

    def release(self) -> None:
        """Free the lease for the next driver. Does nothing if the lease is lost."""
        self._ended.set()
        self._thread.join()
        if self.lost is None and self.age_s > self._term_s:
            self._compare(*_latest(self._staging))
        if self.lost is None:
            self._staging.write(_name(self.number), replace(self.holder, released=True).to_json())

    def _look(self) -> None:
        self._stop_if_lost()
        self._compare(*_latest(self._staging))
        self._stop_if_lost()

    def _stop_if_lost(self) -> None:
        if self.lost is not None:
            raise LeaseError(self.lost)

    def _compare(self, number: int, other: Holder | None) -> None:
        """Note that the lease is lost if this is another's, of the same number or a higher one."""
        if other is None or number < self.number or other.id == self.holder.id or self.lost is not None:
            return
        self.lost = (
            f"{self._staging.url}: {other} has taken over, because this driver gave no sign of life; it stops here, "
            "and nothing is lost"
        )
        for watcher in self._watchers:
            watcher()

    def _keep(self) -> None:
        while not self._ended.wait(self._beat_s):
            try:
                self._compare(*_latest(self._staging))
                if self.lost is not None:
                    return
                self._beat()
            except StoreError:
                continue  # the store may be back soon; the watchdog decides how long is too long

    def _beat(self) -> None:
        with self._writing:
            self.holder = replace(self.holder, beat=self.holder.beat + 1)
            self._staging.write(_name(self.number), self.holder.to_json())
            self._last = _clock()


def holder_of(staging: Storage) -> Holder | None:
    """The holder of a store's lease, or None."""
    _, holder = _latest(staging)
    return None if holder is None or holder.released else holder


def _is_silent(staging: Storage, number: int, other: Holder, waiting: Callable[[str], None], term_s: float) -> bool:
    """Whether a holder gives no sign of life for a term; False once the lease is another's or free.

    Raises:
        LeaseError: it is alive.
    """
    waiting(f"{other} worked on this store; checking for up to {term_s:.0f} s whether it is still alive")
    deadline = time.monotonic() + term_s
    while time.monotonic() < deadline:
        time.sleep(min(0.5, term_s / 10))
        latest, seen = _latest(staging)
        if latest != number or seen is None or seen.released:
            return False
        if seen.beat != other.beat:
            raise LeaseError(_working(staging, other))
    return True


def _working(staging: Storage, other: Holder) -> str:
    return (
        f"{staging.url}: {other} is working on this store; wait for it, or stop it first "
        "(it then continues where it was)"
    )


def _created(staging: Storage, number: int, holder: Holder) -> bool:
    """Create a lease; False if its number is another's."""
    if staging.create(_name(number), holder.to_json()):
        return True
    # The store may have created it, and its answer was lost: then the client's second attempt has failed.
    latest, there = _latest(staging)
    return latest == number and there is not None and there.id == holder.id


def _confirm(staging: Storage, number: int, holder: Holder, waiting: Callable[[str], None], beat_s: float) -> None:
    """Make sure that a created lease is this driver's alone.

    A store that creates an object twice ignores conditions. There whoever wrote last has it, and others see that when
    they read it again.

    Raises:
        LeaseError: it is another driver's.
    """
    if staging.create(_name(number), holder.to_json()):
        waiting(
            f"{staging.url}: this store ignores conditional writes (If-None-Match), so nothing locks it: "
            "see to it that one driver at a time works on it"
        )
        time.sleep(beat_s)
    latest, there = _latest(staging)
    if there is not None and latest >= number and there.id != holder.id:
        raise LeaseError(_working(staging, there))


def _latest(staging: Storage) -> tuple[int, Holder | None]:
    """The highest number and its holder; (0, None) if there is no lease yet."""
    for _ in range(5):
        numbers = _numbers(staging)
        if not numbers:
            return 0, None
        try:
            return max(numbers), read_document(staging, _name(max(numbers)), Holder, _ADVICE)
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


def _name(number: int) -> str:
    return f"{_FOLDER}/{number:08d}.json"


def _clock() -> float:
    """Seconds of a clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
