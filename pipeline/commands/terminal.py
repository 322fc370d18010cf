"""What the commands print: results on standard output, everything else on standard error; bars and messages of a run
share one console there, so that a message stands whole above the bars.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.markup import escape

#: Results.
console = Console()

#: Errors, warnings, and the bars of a run.
errors = Console(stderr=True)

#: Columns below which bars do without the times beside them.
_NARROW = 66


def is_terminal(where: Console) -> bool:
    """Whether a console is a terminal that can redraw lines. A file stays one if colours are forced."""
    return where.is_interactive and where.file.isatty()


def set_up_logging(verbose: bool, *, life: bool = False) -> None:
    """Print the project's log on standard error: warnings alone unless `verbose`.

    Args:
        life: the life of a run is told as well where no terminal shows it, each line with its time.
    """
    logger = logging.getLogger("difffusr")
    told = life and not is_terminal(errors)
    logger.handlers = [_Lines(verbose=verbose, life=told)]
    logger.propagate = False
    logger.setLevel(logging.INFO if verbose or life else logging.WARNING)


class _Lines(logging.Handler):
    """Log records as one line each on standard error, however narrow the terminal."""

    def __init__(self, *, verbose: bool, life: bool) -> None:
        super().__init__()
        self._verbose, self._life = verbose, life

    def filter(self, record: logging.LogRecord) -> bool:
        """Of info messages those of a run's life, where they are told, and where all are asked for the others; but no
        sign of life where bars show it."""
        event = getattr(record, "event", None)
        wanted = self._life if event is not None else self._verbose
        if record.levelno < logging.WARNING and not (wanted or (self._verbose and event != "alive")):
            return False
        return bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record. A standard error that is closed or full must not end a run."""
        level = record.levelname.lower()
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime(record.created)) if self._life else ""
        text = escape(" ".join(record.getMessage().splitlines()))
        try:
            errors.print(f"{when}[{style}]{level}:[/] {text}", soft_wrap=True, highlight=False)
        except (OSError, ValueError):
            return


def say(text: str) -> None:
    """Print a line as it is: no markup, not broken at the terminal's width."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


class StageBars:
    """The stages of a run as progress bars: a `watch.progress.Progress`.

    They are drawn by the console of the messages, at the foot of the terminal; what anybody else prints meanwhile (Ray,
    Python's warnings) goes above them, too. Where there is no terminal nothing is drawn: the log tells the run's life.
    """

    def __init__(self) -> None:
        from rich.constrain import Constrain
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TaskID,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        on = errors if is_terminal(errors) else console

        class Bars(Progress):
            """Leaves room at the right edge for the ^C of whoever presses it: a full row would be broken by it, and
            drawn again one row too low."""

            def get_renderables(self) -> Iterable[RenderableType]:
                for renderable in super().get_renderables():
                    yield Constrain(renderable, max(on.width - 3, 20))

        narrow = on.width < _NARROW
        times = () if narrow else (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._bars = Bars(
            *(() if narrow else (SpinnerColumn(),)),
            TextColumn("{task.description:9}"),
            BarColumn(bar_width=8 if narrow else min(40, on.width - 50)),
            MofNCompleteColumn(),
            *times,
            console=on,
            disable=not is_terminal(on),
            redirect_stdout=is_terminal(console),
            redirect_stderr=on is errors,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> StageBars:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """See `watch.progress.Progress`."""
        self._tasks[stage] = self._bars.add_task(stage, total=total, completed=done)

    def advance(self, stage: str) -> None:
        """See `watch.progress.Progress`."""
        self._bars.advance(self._tasks[stage])
