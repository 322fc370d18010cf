"""A command on a real terminal of some width, and what stands on it in the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_HEIGHT = 50

_CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")


@dataclass
class Screen:
    """What a terminal shows, with all that has scrolled off its top.

    Attributes:
        columns: its width.
        rows: from the top; a row that the terminal broke at its right edge goes on in the next.
    """

    columns: int
    rows: list[str] = field(default_factory=lambda: [""])
    _broken: set[int] = field(default_factory=set)
    _row: int = 0
    _column: int = 0

    def write(self, text: str) -> Screen:
        """Take what a program sends: text, line ends, and the controls that move and erase. Others raise ValueError."""
        at = 0
        while at < len(text):
            control = _CONTROL.match(text, at)
            if control is not None:
                self._control(control[1], control[2])
                at = control.end()
            else:
                self._put(text[at])
                at += 1
        return self

    @property
    def lines(self) -> list[str]:
        """The lines as they were meant: rows that the terminal broke are put together again."""
        lines: list[str] = []
        for number, row in enumerate(self.rows):
            if number - 1 in self._broken and lines:
                lines[-1] += row
            else:
                lines.append(row)
        return [line.rstrip() for line in lines]

    def _control(self, numbers: str, kind: str) -> None:
        count = int(numbers) if numbers.isdigit() else 1
        if kind == "A":
            self._row, self._column = max(self._row - count, 0), min(self._column, self.columns - 1)
        elif kind == "K":
            assert numbers == "2", "only whole lines are erased"
            self.rows[self._row] = ""
            self._broken.discard(self._row)
        elif kind not in "mhl":
            raise ValueError(f"ESC [ {numbers} {kind}")

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._next_row()
        elif char >= " ":
            if self._column == self.columns:
                self._broken.add(self._row)
                self._next_row()
                self._column = 0
            row = self.rows[self._row].ljust(self._column)
            self.rows[self._row] = row[: self._column] + char + row[self._column + 1 :]
            self._column += 1

    def _next_row(self) -> None:
        self._row += 1
        if self._row == len(self.rows):
            self.rows.append("")


@dataclass(frozen=True)
class Shown:
    """How a command on a terminal ended: exit code, what it sent, and what stands there."""

    code: int
    sent: str
    screen: Screen


def show(
    words: Sequence[str],
    columns: int = 80,
    *,
    when: Callable[[str, Callable[[bytes], object], int], None] = lambda sent, press, process: None,
    environment: Mapping[str, str] | None = None,
    stderr: int | None = None,
    timeout_s: float = 120,
) -> Shown:
    """Run a command whose input, output and errors are a terminal.

    Args:
        when: called each time something comes, with all that was sent so far, what types keys, and the process's id.
        environment: of the command, by default this process's.
        stderr: a file instead of the terminal.
        timeout_s: raises AssertionError, with what was sent, if the command has not ended by then.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _HEIGHT, columns, 0, 0))
    surroundings = {
        name: value for name, value in (environment or os.environ).items() if name not in ("NO_COLOR", "CI")
    }
    for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
        surroundings.pop(name, None)
    process = subprocess.Popen(
        words,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs if stderr is None else stderr,
        env={**surroundings, "TERM": "xterm-256color"},
        start_new_session=True,
        close_fds=True,
        # The terminal is the new session's own: Ctrl-C typed on it reaches the command.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    sent, deadline = b"", time.monotonic() + timeout_s
    try:
        while chunk := _read(ours, deadline, sent):
            sent += chunk
            when(sent.decode(errors="replace"), lambda keys: os.write(ours, keys), process.pid)
        code = process.wait(timeout=30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = sent.decode()
    return Shown(code, text, Screen(columns).write(text))


def wait_until_it_sleeps(process: int, timeout_s: float = 10) -> None:
    """Return once a process waits for something: after a question, for the answer.

    Ctrl-C in the instant between the question and the wait interrupts neither: Python hears of a signal only between
    its own steps, or in a system call that the signal has interrupted.
    """
    deadline = time.monotonic() + timeout_s
    while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < deadline, f"process {process} is busy"
        time.sleep(0.001)


def _read(terminal: int, deadline: float, sent: bytes) -> bytes:
    left = deadline - time.monotonic()
    ready = left > 0 and select.select([terminal], [], [], left)[0]
    assert ready, f"not ended after: {sent.decode(errors='replace')}"
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the other end is closed
        return b""
