"""What is aimed at on one H100, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gpu.parts import Row

#: Chips a second, share of the peak, km² a second, times eager float32, seconds.
REFERENCE_CHIPS, REFERENCE_SHARE, FAST_KM2, TIMES_EAGER, FIRST_CHIP_S = 18.0, 0.30, 60.0, 18.0, 15.0


def targets(found: Mapping[str, list[Row]]) -> list[Row]:
    """A row for each target that something was measured for: what is aimed at, the best that was found, and `met`."""
    speed, run = found.get("speed", []), found.get("run", [])
    reference = [row for row in speed if row.get("preset") == "reference" and row.get("side") == 144 and _ours(row)]
    fast = [row for row in speed if row.get("preset") == "fast" and _ours(row)]
    rows: list[Row] = []
    chips, share = _best(reference, "chips_per_s"), _best(reference, "share_of_peak")
    if chips is not None and share is not None:
        rows.append(_row("reference, 144 px: chips/s", REFERENCE_CHIPS, chips, chips >= REFERENCE_CHIPS))
        rows.append(_row("reference, 144 px: share of the peak", REFERENCE_SHARE, share, share >= REFERENCE_SHARE))
    if (km2 := _best(fast, "km2_per_s")) is not None:
        rows.append(_row("fast: km²/s", FAST_KM2, km2, km2 >= FAST_KM2))
    if (times := _best(reference, "times_eager_float32")) is not None:
        rows.append(_row("reference: times eager float32", TIMES_EAGER, times, times >= TIMES_EAGER))
    first = [row["first_chip_s"] for row in run if row.get("first_chip_s") is not None and row.get("gpu")]
    if first:
        rows.append(_row("run: seconds to the first staged chip", FIRST_CHIP_S, min(first), min(first) <= FIRST_CHIP_S))
    return rows


def _ours(row: Row) -> bool:
    return row.get("execution") == "fused" and row.get("precision") == "bfloat16"


def _best(rows: Iterable[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return max(values) if values else None


def _row(what: str, aimed_at: float, measured: float, met: Any) -> Row:
    return {"what": what, "aimed_at": aimed_at, "measured": measured, "met": bool(met)}
