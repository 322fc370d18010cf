"""Asking a run to stop: signals, a lost lease, too many failures."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from difffusr.pipeline.ground.errors import DifffusrError

log = logging.getLogger("difffusr.run")


class Stopped(BaseException):
    """A run was asked to stop before it had anything in flight."""


@contextmanager
def hearing(hear: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Have signals handled meanwhile; outside the main thread they are somebody else's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_once(number: int, frame: FrameType | None) -> None:
    raise Stopped


class Stop:
    """Whether a run was asked to take nothing new."""

    def __init__(self) -> None:
        self.requested = False
        self.why: DifffusrError | None = None
        self._tell: list[Any] = []

    def request(self, why: DifffusrError | None = None) -> None:
        """Take nothing new; what is in flight is finished."""
        if not self.requested:
            self.requested, self.why = True, why
            for tell in self._tell:
                tell()

    def then(self, tell: Any) -> None:
        """Call this when a stop is requested."""
        self._tell.append(tell)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGTERM and the first SIGINT request a stop; the second SIGINT interrupts at once."""

        def hear(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.requested:
                raise KeyboardInterrupt
            again = "; interrupt again to stop at once" if number == signal.SIGINT else ""
            log.warning("asked to stop: what is in flight is finished, nothing new is taken%s", again)
            self.request()

        with hearing(hear, signal.SIGTERM, signal.SIGINT):
            yield
