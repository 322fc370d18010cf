"""A process that is killed from outside: this one, and no other that has its number by now."""

from __future__ import annotations

import time

import psutil


def is_called(process: psutil.Process, words: str) -> bool:
    """Whether a process has words in its command line, and lives."""
    try:
        return words in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False  # it has just ended


def kill_process(pid: int, words: str = "") -> bool:
    """Kill a process, and see to it that it was this one and died of that. It is stopped first: who is stopped, and
    still what it was, ends by nothing but the signal.

    Args:
        words: that its command line has to have.

    Returns:
        Whether it was killed; not if it has just ended, or gone over to something else.
    """
    try:
        victim = psutil.Process(pid)
        victim.suspend()
        deadline = time.monotonic() + 5
        while (status := victim.status()) != psutil.STATUS_STOPPED:
            if status == psutil.STATUS_ZOMBIE:
                return False
            if time.monotonic() > deadline:
                raise AssertionError(f"process {pid} does not stop")
            time.sleep(0.001)
        if words and not is_called(victim, words):
            victim.resume()
            return False
        victim.kill()
    except psutil.NoSuchProcess:
        return False
    deadline = time.monotonic() + 20
    while victim.is_running() and victim.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} does not die"
        time.sleep(0.01)
    return True
