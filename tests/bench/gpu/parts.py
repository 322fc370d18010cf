"""The parts of the measurement, each in a process of its own: one that fails, hangs or breaks the GPU's context takes
nothing with it but its own rows that are not measured yet."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

Row = dict[str, Any]

#: "not here": what it needs is missing. "dropped": no time was left for it.
State = Literal["done", "failed", "not here", "dropped"]

#: Seconds that a part has to end by itself once its time is out.
GRACE_S = 15.0


class NotHereError(Exception):
    """What a part needs is not on this machine; the text says what."""


@dataclass(frozen=True)
class Setting:
    """What a part is told.

    Attributes:
        device: "cuda" or "cpu".
        dry: whether it is tried on a CPU: small sizes, one round, no figure means anything.
        folder: for files; it is removed at the end.
        with_run: whether a dry run includes what takes a minute.
        found: rows of the parts before, by part.
        until: of `time.monotonic`, when its time is out.
    """

    device: str
    dry: bool
    folder: Path
    with_run: bool = False
    found: Mapping[str, list[Row]] = field(default_factory=dict)
    until: float = float("inf")

    @property
    def left(self) -> float:
        """Seconds until its time is out."""
        return self.until - time.monotonic()

    def has(self, seconds: float) -> bool:
        """Whether there is time for what takes so long; a dry run's steps take none."""
        return self.left > (0.0 if self.dry else seconds)


@dataclass(frozen=True)
class Part:
    """A part: `seconds` are its time, with less than `least` it is not begun."""

    name: str
    title: str
    function: Callable[[Setting], Iterator[Row]]
    seconds: float
    least: float


@dataclass
class Outcome:
    """What became of a part; `why` says more of every state but "done"."""

    state: State
    seconds: float
    why: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing failed, and all that was compared is within its tolerance."""
        return self.state != "failed" and all(row.get("ok", True) for row in self.rows)


def no_time(what: str) -> Row:
    """The row of something that is not measured any more."""
    return {"what": what, "note": "dropped: no time left"}


def tried(what: str, function: Callable[[], Row]) -> Row:
    """The row that a function makes, or one that says why it could not: the next may be possible all the same."""
    try:
        return function()
    except NotHereError:
        raise
    except Exception as error:
        traceback.print_exc()
        return {"what": what, "note": _first_line(error), "ok": False}


def carry_out(part: Part, setting: Setting, seconds: float, keep: Callable[[Row], None]) -> Outcome:
    """Run a part in a fork of this process, which must not have used the GPU.

    Args:
        seconds: that are left for everything; a dry run may take them all.
        keep: is called with each row as it comes.
    """
    begun = time.monotonic()
    if seconds < part.least:
        return Outcome("dropped", 0.0, f"no time left: {max(seconds, 0):.0f} s, it takes {part.least:.0f} at the least")
    setting = replace(setting, until=begun + (seconds if setting.dry else min(part.seconds, seconds)))
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_in_fork, args=(part, setting, there), name=part.name)
    child.start()
    there.close()
    rows: list[Row] = []
    state, why = "failed", ""
    end = min(setting.until + GRACE_S, begun + seconds)
    try:
        while True:
            if not here.poll(max(end - time.monotonic(), 0.0)):
                why = f"took longer than the {end - begun:.0f} s that it had, and was ended"
                break
            kind, value = here.recv()
            if kind == "row":
                rows.append(value)
                keep(value)
                continue
            state, why = kind, value
            break
    except EOFError:
        child.join(10.0)
        why = f"its process ended with exit code {child.exitcode}"
    finally:
        _end(child)
    return Outcome(state, time.monotonic() - begun, why, rows)  # type: ignore[arg-type]


def _in_fork(part: Part, setting: Setting, there: Connection) -> None:
    """A part's process: all that it starts is ended with it."""
    os.setpgid(0, 0)
    try:
        for row in part.function(setting):
            there.send(("row", row))
        there.send(("done", ""))
    except NotHereError as error:
        there.send(("not here", str(error)))
    except BaseException as error:
        traceback.print_exc()
        there.send(("failed", _first_line(error)))
    there.close()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _end(child: Any) -> None:
    """Give a part's process a moment to end, then end it and all that it started."""
    child.join(2.0)
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signum)
        child.join(5.0)
