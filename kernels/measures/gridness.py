"""Gridness: how much of an image's fine texture repeats every few pixels, as folding and chips leave it behind.

A pattern of period p repeats along rows and columns, so its spectrum has lines only where both frequencies are
multiples of 1/p cycle a pixel. A pattern that contents modulate is spread around them. A Hann window puts all of a line
into 3 × 3 bins; what these hold above the median of their surroundings is the pattern's power. Natural texture has
next to none, whatever its contrast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

#: Side of a tile in pixels; that of a smaller image is its shorter side.
TILE_PX: Final = 256

#: Periods that are looked for: of the 10, 20 and 60 m pixels among those of 2.5 m. A line counts for the first period
#: that it is a multiple of, so that a pattern of 4 pixels is none of 8 or 24.
PERIODS: Final = (4, 8, 24)

#: Texture is what is finer than this, in cycles a pixel, measured along the direction in which it varies.
FINE_CYCLES: Final = 1 / 8

#: Fewest bins from a line to the next. A period is not known where tiles are smaller than as many of it.
_LEAST_BINS: Final = 8

#: From where to where the surroundings of a line reach, in bins: squares around it; along an axis for lines on it,
#: where walls and fields that lie with the pixels have their power.
_RING: Final = (3, 4)

_ALONG: Final = (3, 6)

#: Share of a tile's pixels that may be missing; they are given the mean of the others.
_MISSING: Final = 0.02

#: What a constant differs from its own mean by, at most, as a share of it.
_ROUNDING: Final = 1e-12


@dataclass(frozen=True)
class GridPower:
    """Mean squares by channel, in units of the image squared, summed over tiles; those of several images can be added.

    Attributes:
        tiles: how many; 0 where too much is missing.
        fine: (C,) float64, of all that is finer than `FINE_CYCLES`.
        inside: (periods, C) what the lines of each of `PERIODS` hold of that, above their surroundings. Chance makes it
            negative as often as positive where there is no pattern. NaN where a tile is too small for the period.
        whole: (periods, C) the same with the bins of a line that are coarser than `FINE_CYCLES`.
    """

    tiles: int
    fine: Tensor
    inside: Tensor
    whole: Tensor

    def __add__(self, other: GridPower) -> GridPower:
        if not (self.tiles and other.tiles):
            return self if self.tiles else other
        return GridPower(
            self.tiles + other.tiles, self.fine + other.fine, self.inside + other.inside, self.whole + other.whole
        )

    def share(self, period: int) -> Tensor:
        """(C,) gridness: share of the fine power that is in the lines of a period, 0 to 1; NaN if it is not known.

        An image without fine power has none.
        """
        part = self.inside[PERIODS.index(period)].clamp_min(0) / self.fine.clamp_min(1e-300)
        return part if self.tiles else torch.full_like(part, torch.nan)

    def amplitude(self, period: int) -> Tensor:
        """(C,) amplitude of the pattern, units of the image: of a sinusoid that has as much power; NaN if not known."""
        mean_square = self.whole[PERIODS.index(period)].clamp_min(0) / max(self.tiles, 1)
        return (2 * mean_square).sqrt() if self.tiles else torch.full_like(mean_square, torch.nan)


def grid_power(x: Tensor, valid: Tensor | None = None, periods: Sequence[int] = PERIODS) -> GridPower:
    """Patterns of 4, 8 and 24 pixels in an image.

    The power is the periodogram of tiles minus their means under a Hann window, added up over tiles. The lines of a
    period are those at multiples of 1/period cycle a pixel in rows and columns, at least `FINE_CYCLES` from the middle
    of the spectrum. Surroundings are the bins 3 and 4 away from a line. For lines on an axis of the spectrum, where
    edges along rows and columns have their power, they are those 3 to 6 away along the axis, for each of the line's
    bins. The median is scaled to the mean that noise would have, so that noise has a gridness of 0 on average.

    Args:
        x: (C, H, W).
        valid: bool (H, W), true where there is data; what is not finite is none. Tiles that lack more than 2 % are left
            out.
        periods: which of `PERIODS` to look for; the rest are not known.

    Tiles are of 256 pixels, or of the shorter side of a smaller image, in multiples of 4. They lie side by side, and
    the last of a row or column ends at the edge.
    """
    channels, height, width = x.shape
    side = min(TILE_PX, height, width) // 4 * 4
    there = x.isfinite().all(0) if valid is None else x.isfinite().all(0) & valid
    total = torch.zeros((channels, max(side, 1), max(side, 1)), dtype=torch.float64, device=x.device)
    tiles = 0
    for rows, cols in _tiles(height, width, side):
        tile = _without_mean(x[:, rows, cols].double(), there[rows, cols])
        if tile is not None:
            total += _power(tile)
            tiles += 1
    unknown = total.new_full((channels,), torch.nan)
    if not tiles:
        nothing = unknown.expand(len(PERIODS), channels)
        return GridPower(0, total.sum((1, 2)), nothing, nothing)
    fine = _fine(side).to(x.device)
    apart = min(tiles, height * width / side**2)  # those that overlap see much the same
    sought = [period in periods and side >= _LEAST_BINS * period for period in PERIODS]
    found = [
        _in_lines(total, fine, period, apart) if known else (unknown, unknown)
        for period, known in zip(PERIODS, sought, strict=True)
    ]
    inside, whole = (torch.stack(part) for part in zip(*found, strict=True))
    return GridPower(tiles, total[:, fine].sum(1), inside, whole)


def _tiles(height: int, width: int, side: int) -> Iterator[tuple[slice, slice]]:
    if side < 1:
        return
    rows, cols = (sorted({*range(0, n - side + 1, side), n - side}) for n in (height, width))
    for row in rows:
        for col in cols:
            yield slice(row, row + side), slice(col, col + side)


def _without_mean(tile: Tensor, valid: Tensor) -> Tensor | None:
    """(C, n, n) minus its mean, 0 where pixels are missing; None if those are too many."""
    share = float(valid.double().mean())
    if share < 1 - _MISSING:
        return None
    filled = tile if share == 1 else torch.where(valid, tile, 0.0)
    mean = filled.mean((1, 2), keepdim=True) / share
    texture = filled - mean if share == 1 else torch.where(valid, filled - mean, 0.0)
    varies = texture.abs().amax((1, 2), keepdim=True) > _ROUNDING * mean.abs()
    return torch.where(varies, texture, 0.0)


def _power(tile: Tensor) -> Tensor:
    """(C, n, n) → the same, mean squares by frequency: over all bins they add up to the variance under the window."""
    n = tile.shape[-1]
    window = torch.hann_window(n, dtype=torch.float64, device=tile.device)
    scale = n * n * float(window.square().sum()) ** 2
    spectrum = torch.fft.fft2(tile * torch.outer(window, window))
    return (spectrum.real.square() + spectrum.imag.square()) / scale


def _in_lines(power: Tensor, fine: Tensor, period: int, tiles: float) -> tuple[Tensor, Tensor]:
    """(C,) each: power of a period's lines above their surroundings, in fine bins and in all bins."""
    inside, whole = power.new_zeros(len(power)), power.new_zeros(len(power))
    for at, around in _lines(power.shape[-1], period):
        floor = power.flatten(1)[:, around].quantile(0.5, -1) / _median_of_mean(tiles)  # (C, lines, 9 or 1)
        above = power.flatten(1)[:, at] - floor
        inside += (above * fine.flatten()[at]).sum((1, 2))
        whole += above.sum((1, 2))
    return inside, whole


def _median_of_mean(tiles: float) -> float:
    """Median over mean of the average of as many periodograms of noise (Wilson and Hilferty 1931)."""
    return float((1 - 1 / (9 * tiles)) ** 3)


@lru_cache(maxsize=16)
def _fine(n: int) -> Tensor:
    """(n, n) bool: frequencies of a periodogram that are fine."""
    cycles = torch.fft.fftfreq(n, dtype=torch.float64)
    return (cycles[:, None] ** 2 + cycles**2).sqrt() >= FINE_CYCLES - 1e-9


@lru_cache(maxsize=32)
def _lines(n: int, period: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """Indices into a flattened periodogram (n, n), for lines off and on the axes: (lines, 9) of them, and
    (lines, 1, 56) or (lines, 9, 8) of what is around them or around each of their bins."""
    before = PERIODS[: PERIODS.index(period)]
    orders = [
        (k, m)
        for k in range(period)
        for m in range(period)
        if not any(k * p % period == 0 and m * p % period == 0 for p in before)
        and math.hypot(min(k, period - k), min(m, period - m)) / period >= FINE_CYCLES - 1e-9
    ]
    near = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    reach = range(-_RING[1], _RING[1] + 1)
    ring = [(i, j) for i in reach for j in reach if max(abs(i), abs(j)) >= _RING[0]]
    along = [side * far for side in (-1, 1) for far in range(_ALONG[0], _ALONG[1] + 1)]
    rows = [[(far, j) for far in along] for _, j in near]
    cols = [[(i, far) for far in along] for i, _ in near]
    off = [(order, [ring]) for order in orders if all(order)]
    on = [(order, cols if order[0] == 0 else rows) for order in orders if not all(order)]

    def indices(order: tuple[int, int], offsets: list[tuple[int, int]]) -> list[int]:
        row, col = (round(k * n / period) for k in order)
        return [(row + i) % n * n + (col + j) % n for i, j in offsets]

    return tuple(
        (
            torch.tensor([indices(order, near) for order, _ in part]),
            torch.tensor([[indices(order, some) for some in around] for order, around in part]),
        )
        for part in (off, on)
    )
