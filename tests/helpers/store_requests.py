"""Every request that this process makes of a store, counted: at one of them the process dies, or is frozen while others
work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from zarr.storage import FsspecStore, LocalStore

from difffusr.pipeline.publish import placing, plain
from difffusr.pipeline.storage import Lease
from difffusr.pipeline.storage.objects import Storage

#: Methods that make one request.
_OF_STORAGE = ("write", "put", "create", "exchange", "tag", "modified", "read", "exists", "names", "delete")

#: And of an Icechunk repository, where a request is what changes something.
_OF_REPOSITORY = ("reset_branch", "create_branch", "delete_branch", "create_tag")


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
        for name in _OF_STORAGE:
            monkeypatch.setattr(Storage, name, self._counted(name, getattr(Storage, name)))
        for store in (LocalStore, FsspecStore):
            for name in ("set", "get"):
                monkeypatch.setattr(store, name, self._awaited(name, getattr(store, name)))
        monkeypatch.setattr(plain, "_link", self._counted("link", plain._link))

    def of_icechunk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count what changes a repository, too."""
        import icechunk

        for name in _OF_REPOSITORY:
            monkeypatch.setattr(icechunk.Repository, name, self._counted(name, getattr(icechunk.Repository, name)))
        monkeypatch.setattr(icechunk.Session, "commit", self._counted("commit", icechunk.Session.commit))

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

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            self._note(name)
            return method(*args, **more)

        return counted

    def _awaited(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def awaited(*args: Any, **more: Any) -> Any:
            self._note(name)
            return await method(*args, **more)

        return awaited


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
