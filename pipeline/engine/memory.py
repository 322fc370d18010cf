"""Memory that a worker has freed stays its own: chips come and go, and fresh pages cost as much as work."""

from __future__ import annotations

#: Environment in which a worker keeps memory that it has freed (glibc; other C libraries ignore it): one arena, for the
#: heap of other threads is given back piece by piece; blocks up to 32 MiB on the heap; up to 256 MiB free at its end.
KEEP_FREED = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}

#: Bytes of an idle worker that writes shards: interpreter and libraries (210 MB measured), thread and codec buffers.
WORKER_BYTES = 320 << 20
