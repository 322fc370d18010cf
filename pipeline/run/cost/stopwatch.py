"""A stopwatch for a machine that others use too: wall clock without their share, and core seconds."""

from __future__ import annotations

import time
from pathlib import Path


class Stopwatch:
    """Times the block inside.

    Attributes:
        seconds: wall clock, less the time that this process's `threads` busy threads were ready to run but waited for a
            core.
        cpu_seconds: seconds of core.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self.seconds = self.cpu_seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._begun = time.perf_counter(), time.process_time(), _waited()
        return self

    def __exit__(self, *_: object) -> None:
        wall, cpu, waited = time.perf_counter(), time.process_time(), _waited()
        wall, cpu, waited = wall - self._begun[0], cpu - self._begun[1], waited - self._begun[2]
        self.cpu_seconds = cpu
        # Threads that have ended are no longer counted, so the difference may even be negative.
        self.seconds = max(wall - max(waited, 0.0) / self._threads, min(cpu / self._threads, wall))


def _waited() -> float:
    """Seconds that this process's threads have waited for a core so far; 0 where the system does not say."""
    total = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(file.read_text().split()[1])
        except (OSError, IndexError):
            continue
    return total / 1e9
