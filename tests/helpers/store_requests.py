"""Every request that this process makes of a store, counted: at one of them the process dies, or is frozen while others
work."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable

import pytest
from dying import REQUESTS, REQUESTS_OF_ICECHUNK, Place, counted

from difffusr.pipeline.publish import placing, plain
from difffusr.pipeline.storage import Lease
from difffusr.pipeline.storage.objects import Storage


class Killed(BaseException):
    """The process is dead: no request follows."""


class Requests:
    """Counts requests of this process, from the last `watch` on.

    Attributes:
        made: names of those counted.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self._at, self._then, self._dead, self._away = 0, _nothing, False, True
        self._lock = threading.Lock()
        # One request after the other, so that the n-th is the same each time.
        monkeypatch.setattr(plain, "_REQUESTS", 1)
        monkeypatch.setattr(placing, "_REQUESTS", 1)
        self._count(monkeypatch, REQUESTS)

    def of_icechunk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count what changes a repository, too."""
        self._count(monkeypatch, REQUESTS_OF_ICECHUNK)

    def _count(self, monkeypatch: pytest.MonkeyPatch, places: list[Place]) -> None:
        for place in places:
            owner = place.owner_in(importlib.import_module(place.module))
            monkeypatch.setattr(owner, place.name, counted(self._note, place.name)(getattr(owner, place.name)))

    def watch(self, at: int = 0, then: Callable[[], object] | None = None) -> None:
        """Count from now on; before the n-th request do something, or die. Requests made meanwhile are others'."""
        self.made, self._at, self._then = [], at, then or self._die
        self._dead = self._away = False

    def rest(self) -> None:
        """Count no more; who died is forgotten."""
        self._dead, self._away = False, True

    def _die(self) -> None:
        self._dead = True
        raise Killed

    def _note(self, name: str) -> None:
        if self._away:
            return
        with self._lock:
            if self._dead:
                raise Killed
            self.made.append(name)
            if len(self.made) == self._at:
                self._away = True
                try:
                    self._then()
                finally:
                    self._away = False


def _nothing() -> None: ...


class Drivers:
    """Leases that end with the test, as quick as a test needs them, without a beat: each is as good as frozen."""

    def __init__(self) -> None:
        self._held: list[Lease] = []

    def lease(self, staging: Storage, run: str = "another") -> Lease:
        """Take a lease; whoever holds it is taken for dead at once."""
        lease = Lease.acquire(staging, run, beat_s=3600, term_s=0.01)
        # Long enough for the test that nobody's own clock tells.
        lease._term_s = 3600
        self._held.append(lease)
        return lease

    def end(self) -> None:
        for lease in self._held:
            lease._ended.set()
