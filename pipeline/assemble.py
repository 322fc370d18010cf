"""Chips → one blended shard, as a small Dask graph; written to the cube whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from kernels.bands import BANDS, SCALE
from kernels.blending import Blend, chip_window
from pipeline.actor import STD_FILL
from pipeline.errors import StoreError
from pipeline.grid import ChipIndex, Grid, PixelWindow, ShardIndex
from pipeline.reader import Quality
from pipeline.staging import StagedChip, read_chip
from pipeline.storage import Storage


@dataclass(frozen=True)
class ChipSource:
    """Where to find a staged chip, and what its scene labels mean in the cube.

    Attributes:
        index: its place on the lattice.
        object_name: its staged object.
        numbers: cube's number of each of its scenes, in the chip's own order.
    """

    index: ChipIndex
    object_name: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class ShardData:
    """A shard's pixels.

    Attributes:
        reflectance: (12, N, N) uint16 DN, 0 where there is no data.
        quality: (N, N) uint8.
        source: (N, N) uint16.
        std: (12, N, N) uint16 standard deviation of the samples as staged, `STD_FILL` where there is no data; None in a
            run without uncertainty.
    """

    reflectance: NDArray[np.uint16]
    quality: NDArray[np.uint8]
    source: NDArray[np.uint16]
    std: NDArray[np.uint16] | None = None


def blend_shard(
    grid: Grid,
    shard: ShardIndex,
    chips: list[ChipSource],
    staging: Storage,
    strip_px: int = 256,
    *,
    with_std: bool = False,
    gaps: Sequence[ChipIndex] = (),
) -> ShardData:
    """Blend the chips that touch a shard.

    The graph has one task to load each chip and one to blend each strip of rows; chips are let go of as soon as the
    last strip that needs them is blended. In memory at once: the shard as strips and as a whole, 28 bytes a pixel each
    (52 with the standard deviation), the chips of about two strips, 24 bytes a pixel (48), and one strip's sums.

    The blended standard deviation is the weighted mean of the chips' own, Σ w·σ / Σ w. That is the most that the
    blended samples can vary, and what they do vary where chips agree: overlapping chips share their noise.

    Args:
        chips: the chips that touch the shard, in any order.
        strip_px: rows blended at a time; divides the shard.
        with_std: blend the chips' standard deviation, too.
        gaps: places of chips that failed: what of them no other chip shows gets the quality `FAILED`.

    Raises:
        StoreError: a staged chip is missing, damaged, or lacks the standard deviation that is asked for.
    """
    window = grid.shard_window(shard)
    load = dask.delayed(_load, pure=False)
    loaded = {chip.index: load(staging, chip, with_std) for chip in sorted(chips, key=lambda chip: chip.index)}
    bands = len(BANDS)
    strips = []
    for top in range(0, grid.shard_px, strip_px):
        strip = PixelWindow(window.row + top, window.col, min(strip_px, grid.shard_px - top), window.width)
        here = [index for index in loaded if grid.chip_window(index).overlaps(strip)]
        blended = dask.delayed(_blend_strip)(grid, strip, here, [loaded[index] for index in here], with_std)
        shape = (bands + 2 + with_std * bands, strip.height, strip.width)
        strips.append(da.from_delayed(blended, shape, np.uint16))
    with dask.config.set(scheduler="threads", num_workers=1):
        pixels: NDArray[np.uint16] = da.concatenate(strips, axis=1).compute()
    std = pixels[bands + 2 :] if with_std else None
    quality = pixels[bands].astype(np.uint8)
    for gap in gaps:
        place = grid.chip_window(gap)
        here = quality[_part(place.row, place.row_stop, window.row), _part(place.col, place.col_stop, window.col)]
        here[here == Quality.NO_DATA] = Quality.FAILED
    return ShardData(pixels[:bands], quality, pixels[bands + 1], std)


def _part(start: int, stop: int, origin: int) -> slice:
    """What of start … stop lies at or after an origin, counted from it."""
    return slice(max(start - origin, 0), max(stop - origin, 0))


def _blend_strip(
    grid: Grid, strip: PixelWindow, indices: list[ChipIndex], chips: list[StagedChip], with_std: bool
) -> NDArray[np.uint16]:
    """(14 or 26, h, w) uint16: the 12 bands, quality and source of a strip of rows, and perhaps 12 bands' deviation."""
    blend = Blend.empty(len(BANDS), 2, strip.height, strip.width)
    weight = _window(grid)
    places = [grid.chip_window(index) for index in indices]
    at = [(place.row - strip.row, place.col - strip.col) for place in places]
    for rank, chip in enumerate(chips):
        labels = np.stack([chip.quality.astype(np.uint16), chip.source])
        labels = labels.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
        blend.add(chip.dn, labels, weight, labels[1] > 0, at[rank], rank)
    values, labels = blend.result()
    if not with_std:
        return np.concatenate([values, labels])
    # After the bands, not beside them: one set of sums at a time.
    blend = Blend.empty(len(BANDS), 0, strip.height, strip.width)
    for rank, chip in enumerate(chips):
        assert chip.std is not None
        valid = (chip.source > 0).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        blend.add(chip.std, _no_labels(valid.shape), weight, valid, at[rank], rank)
    std, _ = blend.result()
    std[:, blend.weight == 0] = STD_FILL
    return np.concatenate([values, labels, std])


def _no_labels(shape: tuple[int, ...]) -> NDArray[np.uint16]:
    return np.zeros((0, *shape), np.uint16)


def _load(staging: Storage, chip: ChipSource, with_std: bool) -> StagedChip:
    """A staged chip with the cube's scene numbers; what the shard does not need of it is let go of."""
    staged = read_chip(staging, chip.object_name)
    if with_std and staged.std is None:
        raise StoreError(
            f"{staging.url}: staged chip {chip.object_name} has no standard deviation; delete it and run again"
        )
    numbers = np.array([0, *chip.numbers], np.uint16)
    return StagedChip(staged.dn, staged.quality, numbers[staged.source], staged.std if with_std else None)


@cache
def _window(grid: Grid) -> NDArray[np.int64]:
    return chip_window(grid.chip_px * SCALE, grid.overlap_px * SCALE, grid.margin_px * SCALE)
