"""Seams: steps across the borders of chips and shards, against steps inside them."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, SCALE
from difffusr.pipeline.geo import ChipIndex, Grid, PixelWindow, ShardIndex
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.plan import ChipPlan

#: Upsampled bands repeat with this period: steps are only compared with steps of the same phase.
_PERIOD_PX = 24

#: How far on both sides of a border steps are measured, in 2.5 m pixels.
_STRIP_PX = 4 * _PERIOD_PX

#: Most chips whose seams and residual are measured.
_SAMPLE = 200

#: Reads a window of a zone's variable as stored, (bands, h, w) or (h, w); its fill value beyond the cube.
Read = Callable[[int, str, PixelWindow], NDArray[Any]]


def networks_pixels(read: Read, epsg: int, window: PixelWindow) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Pixels (bands, h, w) and their scenes' numbers (h, w), 0 where the pixel did not come from the networks."""
    pixels, source, quality = (read(epsg, name, window) for name in ("reflectance", "source", "quality"))
    return pixels, np.where(quality >= Quality.INTERPOLATED, 0, source)


def read_once(read: Read, epsg: int, window: PixelWindow) -> Read:
    """Read a window's pixels and labels; what is returned gives parts of it."""
    held = {name: read(epsg, name, window) for name in ("reflectance", "source", "quality")}

    def part(_: int, name: str, place: PixelWindow) -> NDArray[Any]:
        row, col = place.row - window.row, place.col - window.col
        return held[name][..., row : row + place.height, col : col + place.width]

    return part


def steps_at_chip(
    read: Read, grid: Grid, epsg: int, chip: ChipIndex, planned: Container[tuple[int, ChipIndex]]
) -> list[NDArray[np.float64]]:
    """Steps where a chip meets the chips on its left and above it, if they are planned.

    Returns:
        (bands, 4) for each such border: sum and count of absolute steps, DN, at the border, and inside both chips.
    """
    window = grid.chip_window(chip)
    found = []
    if (epsg, chip._replace(col=chip.col - 1)) in planned:
        strip = window._replace(col=window.col - _STRIP_PX, width=grid.overlap_px * SCALE + 2 * _STRIP_PX)
        pixels, source = networks_pixels(read, epsg, strip)
        found.append(_steps_across(pixels, source, grid))
    if (epsg, chip._replace(row=chip.row - 1)) in planned:
        strip = window._replace(row=window.row - _STRIP_PX, height=grid.overlap_px * SCALE + 2 * _STRIP_PX)
        pixels, source = networks_pixels(read, epsg, strip)
        found.append(_steps_across(pixels.swapaxes(1, 2), source.T, grid))
    return found


def steps_at_shard(read: Read, shard_px: int, epsg: int, shard: ShardIndex) -> list[NDArray[np.float64]]:
    """As `steps_at_chip`, where a shard meets the ones on its left and above it."""
    row, col = shard.row * shard_px, shard.col * shard_px
    beside = PixelWindow(row, col - _STRIP_PX, shard_px, 2 * _STRIP_PX)
    above = PixelWindow(row - _STRIP_PX, col, 2 * _STRIP_PX, shard_px)
    pixels, source = networks_pixels(read, epsg, beside)
    found = [_steps_at(pixels, source, _STRIP_PX, lambda column: column != _STRIP_PX)]
    pixels, source = networks_pixels(read, epsg, above)
    return [*found, _steps_at(pixels.swapaxes(1, 2), source.T, _STRIP_PX, lambda column: column != _STRIP_PX)]


def seam_ratios(seams: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seam ratio of each band and its standard error, by the jackknife over borders; NaN without borders.

    Args:
        seams: results of `steps_at_chip` or `steps_at_shard`.
    """

    def ratio(total: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: NDArray[np.float64] = (total[..., 0] / total[..., 1]) / (total[..., 2] / total[..., 3])
        return result

    edges = np.array([seam for seam in seams if seam[0, 1] > 0 and seam[0, 3] > 0])
    if not len(edges):
        return np.full(len(BANDS), np.nan), np.full(len(BANDS), np.nan)
    whole = ratio(edges.sum(axis=0))
    if len(edges) == 1:
        return whole, np.full(len(BANDS), np.inf)
    without = ratio(edges.sum(axis=0) - edges)  # (edges, bands)
    n = len(edges)
    return whole, np.sqrt((n - 1) / n * ((without - without.mean(axis=0)) ** 2).sum(axis=0))


def sampled_chips(chips: Sequence[ChipPlan]) -> list[ChipPlan]:
    """All chips, or 200 of them, evenly spread and always the same."""
    if len(chips) <= _SAMPLE:
        return list(chips)
    return [chips[int(i)] for i in np.linspace(0, len(chips) - 1, _SAMPLE)]


def _steps_across(pixels: NDArray[np.uint16], source: NDArray[np.uint16], grid: Grid) -> NDArray[np.float64]:
    """Absolute steps between neighbouring columns where the left chip ends, and inside both chips.

    Boundaries are the columns at which a chip's weight begins, reaches a half, and reaches one. Each is compared with
    columns of the same phase inside the left and the right chip.

    Args:
        pixels: (bands, h, overlap + 2·_STRIP_PX) uint16, the overlap in the middle.
        source: (h, overlap + 2·_STRIP_PX) uint16.

    Returns:
        (bands, 4): sum and count at boundaries, sum and count inside.
    """
    overlap, margin = grid.overlap_px * SCALE, grid.margin_px * SCALE
    out = np.zeros((len(BANDS), 4))
    for boundary in (margin, overlap // 2, overlap - margin):
        out += _steps_at(
            pixels, source, _STRIP_PX + boundary, lambda column: column <= _STRIP_PX or column > _STRIP_PX + overlap
        )
    return out


def _steps_at(
    pixels: NDArray[np.uint16], source: NDArray[np.uint16], boundary: int, is_inside: Callable[[int], bool]
) -> NDArray[np.float64]:
    """(bands, 4): sum and count of |step| at one column, and at the inside columns of the same phase."""
    out = np.zeros((len(BANDS), 4))
    out[:, :2] = _step_sum(pixels, source, boundary)
    for column in range(boundary % _PERIOD_PX or _PERIOD_PX, pixels.shape[-1], _PERIOD_PX):
        if is_inside(column):
            out[:, 2:] += _step_sum(pixels, source, column)
    return out


def _step_sum(pixels: NDArray[np.uint16], source: NDArray[np.uint16], col: int) -> NDArray[np.float64]:
    """(bands, 2): sum and count of |step| between columns col − 1 and col within one scene."""
    same = (source[:, col - 1] == source[:, col]) & (source[:, col] > 0)
    steps = np.abs(pixels[:, :, col].astype(np.float64) - pixels[:, :, col - 1])
    return np.stack([steps[:, same].sum(axis=1), np.full(len(pixels), float(same.sum()))], axis=1)
