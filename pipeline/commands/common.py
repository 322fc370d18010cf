"""What the commands share: the terminal and the log on it, their options, the configuration that they are given."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.unsigned import open_unsigned

if TYPE_CHECKING:
    from rich.table import Table

    from difffusr.pipeline.config import RunConfig

console = Console()

errors = Console(stderr=True)

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="YAML file that describes the run.", show_default=False)
]

OfPeriod = Annotated[
    str | None,
    typer.Option(
        "--period",
        metavar="PERIOD",
        help="Replace the file's period: 2024-07, 2024, 2024-07-05_2024-08-04 or last-month.",
        show_default=False,
    ),
]

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also print info messages.")]


def load(path: Path, verbose: bool, period: str | None = None) -> RunConfig:
    """Set up the log, and read the configuration that a command is given.

    Raises:
        ConfigError: it is not valid, or its store needs a package that is not installed.
    """
    from difffusr.pipeline.commands.extras import check_store
    from difffusr.pipeline.config import load_config

    set_up_logging(verbose)
    config = load_config(path, {} if period is None else {"period": period})
    for url in (config.store.url, config.store.staging):
        check_store(url)
    open_unsigned(config.source.unsigned)
    return config


def set_up_logging(verbose: bool) -> None:
    """Print the project's log on standard error, warnings alone unless `verbose`."""
    logger = logging.getLogger("difffusr")
    logger.handlers = [_Lines()]
    logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)


class _Lines(logging.Handler):
    """Log records as one line each on standard error, however narrow the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        level = record.levelname.lower()
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        errors.print(f"[{style}]{level}:[/] {escape(record.getMessage())}", soft_wrap=True, highlight=False)


def say(text: str) -> None:
    """Print a line as it is: no markup, not broken at the terminal's width."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def table_of(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """A table of labels and values, which may hold rich's markup."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    for label, value in rows:
        table.add_row(label, value)
    return table


def check_folder(path: Path, option: str) -> None:
    """Raise StoreError before any work is done if the folder of the file that an option names does not exist."""
    if not path.parent.is_dir():
        raise StoreError(f"{path}: cannot be written (no such folder); choose another {option}")


def write_file(path: Path, content: str | bytes, option: str) -> None:
    """Write the file that an option names. Raises StoreError if that fails."""
    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}); choose another {option}") from None


class StageBars:
    """The stages of a run as progress bars: a `watch.progress.Progress`."""

    def __init__(self) -> None:
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

        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
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
