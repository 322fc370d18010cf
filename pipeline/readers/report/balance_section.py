"""What balance did to the scenes of a period, as a part of its section."""

from __future__ import annotations

from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.ground.words import counted
from difffusr.pipeline.plan import SHOWN_SHIFTS, SceneBalance
from difffusr.pipeline.readers.report.facts import BalanceFacts
from difffusr.pipeline.readers.report.markup import (
    DASH,
    MOST_ROWS,
    Markup,
    html_table,
    number_words,
    rest_of_rows,
)

#: Scenes that are listed as moved most.
_MOST_MOVED: Final = 10

#: Width and height of the picture of a band's shifts.
_WIDE, _HIGH = 180, 16

_ANGLES: Final = {
    "granule": "by the angles of their granules",
    "item": "by the mean angles of their items",
    "nothing": "without angles, which are not known",
    "": "by angles whose origin is not kept",
}


def balance_section(facts: BalanceFacts | None) -> str:
    """What was done to how many scenes, by band, and to which most; empty where scenes are as they were measured."""
    if facts is None or not len(facts.scenes):
        return ""
    done = facts.scenes
    parts = [f"<h3>Balance between scenes</h3><p>{escape(_sentence(facts))}</p>", _by_band(done)]
    parts += [_moved_most(facts), _hazy(facts)] if done.moved else []
    return "".join(parts)


def _sentence(facts: BalanceFacts) -> str:
    done, there = facts.scenes, facts.scenes.balanced
    sources = [
        f"{number:,} {_ANGLES[source]}"
        for source in _ANGLES
        if (number := sum(1 for angles, ok in zip(done.angles, there, strict=True) if ok and angles == source))
    ]
    sun = "the sun at the latitude's noon" if facts.sun == "noon" else "the sun where it stood"
    text = f"{counted(int(there.sum()), 'scene')} brought to a view from above, {sun}: {', '.join(sources)}. "
    if done.moved:
        text += (
            "Gain and offset bring each scene to those that it overlaps, and leave all of them together, but for hazy "
            "ones, where they were. A shift is what they add to the mean reflectance of a scene. "
        )
    if left := int((~there).sum()):
        text += f"{counted(left, 'scene')} could not be balanced. "
    return text + (
        "The formula that takes it back is in pipeline/cube/README.md; the coefficients are with the facts of the "
        "cube's scenes and in balance.parquet of the plan."
    )


def _by_band(done: SceneBalance) -> str:
    values = done.shift if done.moved else done.factor
    known = done.balanced
    limit = float(np.nanmax(np.abs(values[known] if done.moved else values[known] - 1), initial=1e-4))
    rows = []
    for i, band in enumerate(BANDS):
        shifts, (low, high) = values[known, i], _ends(done.gain[known, i])
        least, middle, most = _spread(shifts)
        words = [_signed(v) if done.moved else number_words(v, 4) for v in (least, middle, most)]
        own = [Markup(_strip(shifts - (0 if done.moved else 1), limit, band)), *words]
        if done.moved:
            own.append(f"{low:.3f} – {high:.3f}" if np.isfinite(low) else DASH)
            own += [number_words(_median(column[known, i]), 4) for column in (done.before, done.after)]
        rows.append((band, *own))
    what = "shift" if done.moved else "factor"
    ends = f"{_signed(-limit)} … {_signed(limit)}" if done.moved else f"{1 - limit:.3f} … {1 + limit:.3f}"
    heads = ["band", f"{what}s, {ends}", "least", "median", "most"]
    heads += ["gain", "apart before", "apart after"] if done.moved else []
    caption = "Reflectance; apart: median absolute difference to overlapping scenes, the median over scenes"
    return html_table(heads, rows, caption if done.moved else "")


def _strip(values: NDArray[np.float64], limit: float, band: str) -> str:
    """A band's values on a line from −limit to limit: all of them pale, the middle half dark."""
    there = values[np.isfinite(values)]
    if not there.size:
        return DASH
    low, first, last, high = ((np.percentile(there, (0, 25, 75, 100)) / limit + 1) / 2 * _WIDE).tolist()

    def bar(kind: str, start: float, stop: float, height: int) -> str:
        place = f'x="{start - 0.75:.1f}" y="{(_HIGH - height) / 2:g}" width="{stop - start + 1.5:.1f}"'
        return f'<rect class="{kind}" {place} height="{height}"/>'

    return (
        f'<svg class="strip" width="{_WIDE}" height="{_HIGH}" viewBox="0 0 {_WIDE} {_HIGH}" role="img" '
        f'aria-label="{band}: from least to most">{bar("area pale", low, high, 6)}{bar("area", first, last, 10)}'
        f'<path class="axis" d="M{_WIDE / 2} 0V{_HIGH}"/></svg>'
    )


def _moved_most(facts: BalanceFacts) -> str:
    done = facts.scenes
    far = np.abs(np.nan_to_num(done.shift))
    before, after = done.difference()
    shown, rows = [BANDS.index(band) for band in SHOWN_SHIFTS], []
    for i in np.argsort(-far.max(axis=1), kind="stable")[:_MOST_MOVED].tolist():
        if not far[i].any():
            break
        band = int(far[i].argmax())
        apart = f"{number_words(before[i], 4)} → {number_words(after[i], 4)}"
        shifts = [f"{_signed(done.shift[i, band])} in {BANDS[band]}", *(_signed(done.shift[i, b]) for b in shown)]
        used = "used" if done.ids[i] in facts.used else "not used"
        rows.append((done.ids[i], *shifts, apart, "hazy, " + used if done.hazy[i] else used))
    if not rows:
        return ""
    heads = ("scene", "largest shift", *SHOWN_SHIFTS, "apart before → after", "")
    return html_table(heads, rows, "Scenes moved most")


def _hazy(facts: BalanceFacts) -> str:
    done = facts.scenes
    names = [name for name, hazy in zip(done.ids, done.hazy, strict=True) if hazy]
    if not names:
        return ""
    used = sum(1 for name in names if name in facts.used)
    text = (
        f"Hazy: {counted(len(names), 'scene')} moved by more than {facts.max_offset:g} in some band, used last, where "
        f"nothing else shows the ground ({used:,} used): {', '.join(names[:MOST_ROWS])}."
    )
    return f"<p>{escape(text)}</p>{rest_of_rows(names, 'hazy scenes')}"


def _spread(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Least, median and most of what is known."""
    return (*_ends(values)[:1], _median(values), *_ends(values)[1:])


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    there = values[np.isfinite(values)]
    return (float(there.min()), float(there.max())) if there.size else (np.nan, np.nan)


def _median(values: NDArray[np.float64]) -> float:
    there = values[np.isfinite(values)]
    return float(np.median(there)) if there.size else np.nan


def _signed(value: float) -> str:
    if not np.isfinite(value):
        return DASH
    return f"{value:+.4f}".replace("-", "−")
