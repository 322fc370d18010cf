"""Tables and the texts of their cells, as HTML."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

import numpy as np

#: Most rows of tables that could be long: scenes, publications, failed chips.
MOST_ROWS: Final = 30

#: A table cell without a value.
DASH: Final = "–"


class Markup(str):
    """Text that is HTML already."""


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", kind: str = "") -> str:
    """A table. Every cell is escaped, the first of a row is its heading. Wide tables scroll."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{_cell(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{escape(caption or heads[0])} table">'
        f'<table class="{kind}">{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(text: str) -> str:
    return text if isinstance(text, Markup) else escape(text)


def fact_list(facts: Sequence[tuple[str, str]]) -> str:
    """A table of names and values."""
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in facts)
    return f'<table class="text"><tbody>{rows}</tbody></table>' if facts else ""


def rest_of_rows(rows: Sequence[Any], what: str) -> str:
    """How many rows are not shown, if any."""
    return f"<p class=note>And {len(rows) - MOST_ROWS:,} more {what}.</p>" if len(rows) > MOST_ROWS else ""


def moment_words(seconds: float) -> str:
    """A Unix time as `2024-06-01 10:30 UTC`."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def verdict_words(good: bool) -> str:
    """`ok` or `off`."""
    return Markup("<span class=ok>ok</span>" if good else "<span class=off>off</span>")


def ratio_words(ratio: float, error: float) -> str:
    """`1.012 ± 0.020`, or a dash."""
    return f"{ratio:.3f} ± {number_words(error, 3)}" if np.isfinite(ratio) else DASH


def number_words(value: float, digits: int) -> str:
    """A number with this many digits, or a dash."""
    return f"{value:.{digits}f}" if np.isfinite(value) else DASH
