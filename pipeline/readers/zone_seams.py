"""Borders between the zones that a cube of one CRS is made of: steps across them against steps beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.assemble.continent import ContinentPlan, zone_weights
from difffusr.pipeline.geo import Grid, PixelWindow
from difffusr.pipeline.readers.seams import seam_ratios
from difffusr.pipeline.readers.verdicts import SourceBand, SourceSeams

#: Ratio of steps across zone borders to those beside them that a clean cube keeps to, in every band.
ZONE_RANGE: Final = (0.97, 1.03)

#: Most shards that are looked at.
_SAMPLE = 64

#: Pixels from the border of the steps that those across it are compared with, on both sides.
_BESIDE = range(1, 4)

#: Quantile of the steps beside that larger ones count as: the edge of a field that lies there by chance tells nothing.
_MOST = 0.9

#: Share from which on a zone counts: from there to the border the blend has no other line that could show.
_BEGINS = 0.01

#: Reads a window of a variable as stored.
Read = Callable[[int, str, PixelWindow], NDArray[Any]]


def zone_seams(plan: ContinentPlan, read: Read, grid: Grid) -> SourceSeams:
    """Ratio, by band, of the mean absolute step where the zone that counts most changes, and where a zone begins to
    count, to that of steps beside, with its standard error by the jackknife over shards. A few pixels from there the
    blend is the same, so a smooth one has a ratio of one whatever the zones show."""
    places = np.flatnonzero(plan.zones_of.sum(axis=1) > 1)
    if len(places) > _SAMPLE:
        places = places[np.linspace(0, len(places) - 1, _SAMPLE).astype(int)]
    codes, number = list(plan.source.views), plan.lattice.number
    steps: list[NDArray[np.float64]] = []
    for i in places.tolist():
        zones = [code for code, there in zip(codes, plan.zones_of[i], strict=True) if there]
        window = grid.shard_window(plan.shards.place(i))
        home = _home(plan, window, zones)
        for turned in (False, True):
            steps += _of_shard(read, number, window, home, turned)
    ratios, errors = seam_ratios(steps)
    bands = [
        SourceBand(band, float(ratio), float(error), _is_even(float(ratio), float(error)))
        for band, ratio, error in zip(BANDS, ratios, errors, strict=True)
    ]
    return SourceSeams("zones", len(steps), bands)


def _is_even(ratio: float, error: float) -> bool:
    """Whether a ratio is within its range or two standard errors of it; True if it is not known (NaN)."""
    return bool(np.isnan(ratio) or (ratio - 2 * error <= ZONE_RANGE[1] and ratio + 2 * error >= ZONE_RANGE[0]))


def _home(plan: ContinentPlan, window: PixelWindow, zones: Sequence[int]) -> NDArray[np.int16]:
    """(h, w) of numbers that change where another zone counts most, and where a zone begins to count."""
    shape = window.height, window.width
    weights = np.stack(
        [np.broadcast_to(zone_weights(plan.lattice, window, code, plan.source.half_m), shape) for code in zones]
    )
    shares = weights / weights.sum(axis=0)
    number = shares.argmax(axis=0).astype(np.int16)
    for share in shares:
        number = number * 2 + (share > _BEGINS)
    return number


def _of_shard(
    read: Read, number: int, window: PixelWindow, home: NDArray[np.int16], turned: bool
) -> list[NDArray[np.float64]]:
    """(bands, 4) sum and count of absolute steps between columns (rows, where turned) at the border, and beside it;
    nothing of a shard without one."""
    home = home.T if turned else home
    across = home[:, 1:] != home[:, :-1]
    cols = np.flatnonzero(across.any(axis=0))
    if not len(cols):
        return []
    first = max(int(cols[0]) - _BESIDE[-1], 0)
    stop = min(int(cols[-1]) + _BESIDE[-1] + 2, home.shape[1])
    part = window._replace(col=window.col + first, width=stop - first)
    if turned:
        part = window._replace(row=window.row + first, height=stop - first)
    source, pixels = read(number, "source", part), read(number, "reflectance", part)
    if turned:
        source, pixels = source.T, pixels.swapaxes(1, 2)
    step = np.abs(np.diff(pixels.astype(np.int32), axis=2))
    valid = (source[:, 1:] > 0) & (source[:, :-1] > 0)
    inside = valid & (source[:, 1:] == source[:, :-1])
    across = across[:, first : stop - 1]
    beside = np.zeros_like(inside)
    for far in _BESIDE:
        beside[:, far:] |= across[:, :-far]
        beside[:, :-far] |= across[:, far:]
    counted = across & valid, beside & inside & ~across
    if not all(here.any() for here in counted):
        return []
    most = np.quantile(step[:, counted[1]], _MOST, axis=1)[:, None]
    sums = [np.minimum(step[:, here], most).sum(axis=1, dtype=np.float64) for here in counted]
    counts = [np.full(len(BANDS), float(here.sum())) for here in counted]
    return [np.stack([sums[0], counts[0], sums[1], counts[1]], axis=1)]
