"""Numbers of tiles that are kept, and how many are read at once: both bound by memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock
from typing import Any, Final

from numpy.typing import NDArray

#: Bytes that are kept, so that new colours need no reading: some thirty tiles of three bands, both sides of a screen.
KEPT_BYTES: Final = 48 << 20

#: Tiles that are read or drawn at once: each may take some 50 MB for a moment.
AT_ONCE: Final = 3

#: Locks shared by all keys.
_LOCKS: Final = 64


class Kept:
    """Arrays by key, the least recently used of which are dropped."""

    def __init__(self, most_bytes: int = KEPT_BYTES, at_once: int = AT_ONCE) -> None:
        self._most = most_bytes
        self._turns = BoundedSemaphore(at_once)
        self._arrays: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._guard = Lock()
        # Both sides of a map may ask for the same numbers at once; the lock makes sure that they are read once.
        self._locks = [Lock() for _ in range(_LOCKS)]

    def get(self, key: Hashable, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array of a key: kept, or read, in turn, and kept from now on."""
        with self._locks[hash(key) % _LOCKS]:
            with self._guard:
                found = self._arrays.get(key)
                if found is not None:
                    self._arrays.move_to_end(key)
                    return found
            with self.turn():
                found = read()
            with self._guard:
                self._arrays[key] = found
                self._bytes += found.nbytes
                while self._bytes > self._most and self._arrays:
                    self._bytes -= self._arrays.popitem(last=False)[1].nbytes
            return found

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until few enough others read."""
        with self._turns:
            yield
