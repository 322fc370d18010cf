"""What the commands share: their options, the configuration that they are given, the files that they write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from difffusr.pipeline.commands.terminal import console, set_up_logging
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.ground.unsigned import open_unsigned

if TYPE_CHECKING:
    from rich.table import Table

    from difffusr.pipeline.config import RunConfig
    from difffusr.pipeline.watch import Progress

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

OfDerived = Annotated[
    str | None,
    typer.Option("--derived", metavar="NAME", help="One of the file's derived cubes instead.", show_default=False),
]

AsJson = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Also write it as JSON to this file; - prints JSON alone.", show_default=False
    ),
]

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also print info messages.")]


def load(
    path: Path,
    verbose: bool,
    period: str | None = None,
    derived: str | None = None,
    *,
    life: bool = False,
    deadline: str | None = None,
) -> RunConfig:
    """Set up the log (see `set_up_logging`), and read the configuration that a command is given.

    Raises:
        ConfigError: it is not valid, or its store needs a package that is not installed.
    """
    from difffusr.pipeline.commands.extras import check_store
    from difffusr.pipeline.config import load_config

    set_up_logging(verbose, life=life)
    given = {"period": period, "deadline": deadline}
    config = load_config(path, {key: value for key, value in given.items() if value is not None})
    if derived is not None:
        names = [one.name for one in config.derived]
        if derived not in names:
            raise ConfigError(f"--derived: found {derived}, the file has {', '.join(names) or 'no derived cubes'}")
        config = config.of_derived(derived)
    for url in (config.store.url, config.store.staging):
        check_store(url)
    open_unsigned(config.source.unsigned)
    return config


def run_command(config: Path, period: str | None) -> str:
    """What to type to begin or continue a run."""
    return f"difffusr run {config}" + (f" --period {period}" if period else "")


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


@contextmanager
def json_place(path: Path | None) -> Iterator[Callable[[Any], None]]:
    """What writes a command's result where `--json` wants it: nowhere, to a file, or for `-` to standard output; then
    everything else that the command prints goes to standard error.

    Raises:
        StoreError: the file cannot be written; before any work is done where its folder does not exist.
    """

    def write(document: Any) -> None:
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        if path == _STANDARD_OUTPUT:
            typer.echo(text, nl=False)
        elif path is not None:
            write_file(path, text, "--json")

    if path is not None and path != _STANDARD_OUTPUT:
        check_folder(path, "--json")
    before, console.stderr = console.stderr, console.stderr or path == _STANDARD_OUTPUT
    try:
        yield write
    finally:
        console.stderr = before


@contextmanager
def world_in(folder: Path, progress: Progress) -> Iterator[None]:
    """A folder in which a demonstration's world is made.

    Raises:
        StoreError: it cannot be written.
    """
    progress.start("world", 1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror}); choose another --output") from None
    progress.advance("world")


_STANDARD_OUTPUT = Path("-")
