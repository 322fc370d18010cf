"""Asking a run to stop: signals, a lost lease, too many failures."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from difffusr.pipeline.ground.errors import DifffusrError

log = logging.getLogger("difffusr.run")

#: Why a run was stopped that somebody has asked to.
ASKED = "asked to"


class Stopped(BaseException):
    """A run was asked to stop before it had anything in flight. Its text says why."""

    def __init__(self, why: str = ASKED) -> None:
        super().__init__(why)


@contextmanager
def hearing(hear: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals meanwhile; outside the main thread, where Python allows no handlers, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_once(_number: int, _frame: FrameType | None) -> None:
    """A signal handler that raises Stopped."""
    raise Stopped


class Stop:
    """Whether a run was asked to take nothing new.

    Attributes:
        requested: whether it was.
        why: the error that the run ends with, where that is the reason.
        reason: why else, in a few words.
        machine_ends: when this machine is taken away, where that is why, seconds since 1970; else 0.
    """

    def __init__(self) -> None:
        self.requested = False
        self.why: DifffusrError | None = None
        self.reason = ASKED
        self.machine_ends = 0.0
        self._tell: list[Callable[[], object]] = []

    def request(self, why: DifffusrError | None = None, reason: str = ASKED) -> None:
        """Take nothing new; what is in flight is finished."""
        if not self.requested:
            self.requested, self.why, self.reason = True, why, reason
            for tell in self._tell:
                tell()

    def then(self, tell: Callable[[], object]) -> None:
        """Call this when a stop is requested."""
        self._tell.append(tell)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGTERM and the first SIGINT request a stop; the second SIGINT interrupts at once."""

        def hear(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.requested:
                raise KeyboardInterrupt
            again = "; interrupt again to stop at once" if number == signal.SIGINT else ""
            said = f"asked to stop: what is in flight is finished, nothing new is taken{again}"
            # By a thread: what the signal interrupts may hold the locks that a line on the terminal waits for.
            threading.Thread(target=_say, args=(said,), name="asked to stop").start()
            self.request()

        with hearing(hear, signal.SIGTERM, signal.SIGINT):
            yield


def _say(text: str) -> None:
    log.warning("%s", text, extra={"event": "asked_to_stop"})
