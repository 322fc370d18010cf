"""What the balance between scenes does, as `difffusr plan` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from difffusr.pipeline.commands.terminal import console
from difffusr.pipeline.ground.words import counted

if TYPE_CHECKING:
    from difffusr.pipeline.plan import Plan

#: Columns that a row takes beside the scene's name.
_FIGURES = 110

_UNKNOWN = "–"


def show_balance(made: Plan, listed: int) -> list[dict[str, Any]] | None:
    """Show what is done to the first scenes used, and which scenes are hazy; the same figures of all scenes used, for
    JSON. None if scenes are not balanced."""
    from difffusr.pipeline.plan import SHOWN_SHIFTS, SceneBalance

    done = SceneBalance.of(made)
    if done is None or made.balance is None:
        return None
    from rich import box
    from rich.table import Table

    rows = done.to_json()
    table = Table(title="balance", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("scene", no_wrap=True)
    for heading in (*(f"shift {band}" for band in SHOWN_SHIFTS), "gain", "factor", "difference", "angles", ""):
        table.add_column(heading, justify="left" if heading in ("angles", "") else "right", no_wrap=True)
    for row in rows[:listed]:
        shifts = [_signed(row["shift"][band]) for band in SHOWN_SHIFTS]
        ranges = [_between(row["gain"]), _between(row["factor"])]
        apart = row["before"], row["after"]
        difference = _UNKNOWN if None in apart else "{:.4f} → {:.4f}".format(*apart)
        note = "[yellow]hazy[/]" if row["hazy"] else "" if row["balanced"] else "[yellow]not balanced[/]"
        table.add_row(escape(row["id"]), *shifts, *ranges, difference, row["angles"] or _UNKNOWN, note)
    if len(rows) > listed:
        table.add_row(f"… and {len(rows) - listed:,} more")
    # A scene's row must stay in one piece: a narrow terminal wraps whole lines.
    longest = max(len(row["id"]) for row in rows[:listed])
    wide = Console(width=max(console.width, longest + _FIGURES), soft_wrap=True, stderr=console.stderr)
    wide.print(table)
    every = SceneBalance.of_all(made.balance)
    hazy = [name for name, is_hazy in zip(every.ids, every.hazy, strict=True) if is_hazy]
    if hazy:
        used = len(set(hazy).intersection(done.ids))
        more = " …" if len(hazy) > listed else ""
        named = ", ".join(hazy[:listed])
        what = f"{counted(len(hazy), 'scene')} of {len(every):,} hazy, {used:,} of them used: {named}{more}"
        wide.print(escape(what), highlight=False)
    return rows


def _signed(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:+.4f}"


def _between(ends: list[float | None]) -> str:
    low, high = ends
    if low is None or high is None:
        return _UNKNOWN
    return f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f}–{high:.3f}"
