"""How an actor leaves when its machine is about to go: what is in flight is finished, nothing new is begun."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

from difffusr.pipeline.engine import Notice

#: Seconds from the end of a call until its result is certainly with the engine, on a busy machine.
HAND_OVER_S = 3.0

#: The largest share of the time that is left which is kept for handing over.
_HAND_OVER_SHARE = 0.2


class GoingError(Exception):
    """A batch was not begun, as the machine is about to go."""


class Teller(Protocol):
    """Who hears of it: the pin, for one actor."""

    def going(self, source: str, seconds: float) -> None:
        """The actor begins nothing more; so many seconds are left."""

    def gone(self, source: str) -> None:
        """The actor ends now, whatever it is at."""


class Leaving:
    """The calls that an actor has begun, and its end after a notice.

    It ends its own process once they are done, or as soon as the next of them could not be done in time. The engine
    starts an actor that has ended anew, on a machine that stays, and gives it the calls that had not returned: the work
    goes on at once, not only when the machine is missed. Results that were handed over outlive the process.

    Args:
        tell: who hears of it.
        end: ends the process.
    """

    def __init__(self, tell: Teller, end: Callable[[], object] = lambda: os._exit(0)) -> None:
        self._tell, self._end = tell, end
        self._changed = threading.Condition()
        self._open: dict[int, float] = {}
        self._lasts, self._last_end = 0.0, float("-inf")
        self._notice: Notice | None = None

    def begin(self, call: int) -> None:
        """A call's chips are given to the device.

        Raises:
            GoingError: they may not be.
        """
        with self._changed:
            if self._notice is not None:
                raise GoingError
            self._open[call] = time.monotonic()

    def end(self, call: int) -> None:
        """A call returns; also one that was not begun."""
        with self._changed:
            begun = self._open.pop(call, None)
            if begun is not None:
                self._last_end = time.monotonic()
                self._lasts = self._last_end - begun
                self._changed.notify_all()

    def stay(self) -> None:
        """What a call does that may not be begun: nothing, until the process ends."""
        threading.Event().wait()

    def hear(self, notice: Notice) -> None:
        """The machine is about to go. Does not return where it is heard first: it ends the process."""
        with self._changed:
            if self._notice is not None:
                return
            self._notice = notice
        self._tell.going(notice.source, notice.seconds)
        margin = min(HAND_OVER_S, _HAND_OVER_SHARE * notice.seconds)
        with self._changed:
            while self._open and notice.seconds - margin > self._lacks():
                self._changed.wait(0.05)
        if not self._open:
            handed_over = self._last_end + margin
            time.sleep(max(0.0, min(handed_over - time.monotonic(), notice.seconds)))
        self._tell.gone(notice.source)
        self._end()

    def _lacks(self) -> float:
        """Seconds until the oldest call returns, as the last one took; 0 while no call has returned."""
        return max(0.0, min(self._open.values()) + self._lasts - time.monotonic())
