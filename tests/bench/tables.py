"""Figures as a table, with `rich` where that is installed, else in plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Rows = list[dict[str, Any]]

#: Columns of text.
_TEXT = ("what", "note")


def table_of(title: str, rows: Iterable[Mapping[str, Any]]) -> Table:
    """One line a row; numbers to three digits."""
    from rich.table import Table

    names, lines = _cells(rows)
    table = Table(title=title, title_justify="left", box=None)
    for name in names:
        table.add_column(name.replace("_", " "), justify="left" if name in _TEXT else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def text_of(title: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """The same in plain text."""
    names, lines = _cells(rows)
    heads = [name.replace("_", " ") for name in names]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    placed = [
        "  ".join(
            cell.ljust(width) if name in _TEXT else cell.rjust(width)
            for name, cell, width in zip(names, line, widths, strict=True)
        ).rstrip()
        for line in [heads, *lines]
    ]
    return "\n".join([title, *placed])


def print_table(title: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Print it, one way or the other."""
    try:
        from rich.console import Console
    except ImportError:
        print(text_of(title, rows), flush=True)
    else:
        console = Console()
        if not console.is_terminal:  # of a log every line has room
            console = Console(width=200)
        console.print(table_of(title, rows))


def _cells(rows: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The columns' names, and the text of every cell by line."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[_shown(row.get(name, "")) for name in names] for row in rows]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    return str(value)
