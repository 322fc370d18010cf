"""Memory that a worker has freed stays its own: chips come and go, and fresh pages cost as much as work."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

#: Names of glibc's `mallopt` (malloc.h), and the greatest block that it lets be kept on its heap.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


_LARGEST = 32 << 20


#: Bytes that may lie free at the heap's end before they go back to the system.
_KEPT = 256 << 20


#: Bytes of an idle worker that writes shards: interpreter and libraries (210 MB measured), thread and codec buffers.
WORKER_BYTES = 320 << 20


@cache  # once a process
def keep_freed_memory() -> None:
    """From now on this process keeps up to 256 MB that it has freed. Without glibc nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_ARENA_MAX, 1)  # the heap of other threads is given back piece by piece
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
