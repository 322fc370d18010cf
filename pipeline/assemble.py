"""Chips → one blended shard, as a small Dask graph; written to the cube whole."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from kernels.bands import BANDS, SCALE
from kernels.blending import Blend, chip_window
from pipeline.grid import ChipIndex, Grid, PixelWindow, ShardIndex
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
    """

    reflectance: NDArray[np.uint16]
    quality: NDArray[np.uint8]
    source: NDArray[np.uint16]


def blend_shard(
    grid: Grid, shard: ShardIndex, chips: list[ChipSource], staging: Storage, strip_px: int = 256
) -> ShardData:
    """Blend the chips that touch a shard.

    The graph has one task to load each chip and one to blend each strip of rows; chips are let go of as soon as the
    last strip that needs them is blended.

    Args:
        chips: the chips that touch the shard, in any order.
        strip_px: rows blended at a time; divides the shard.

    Raises:
        StoreError: a staged chip is missing or damaged.
    """
    window = grid.shard_window(shard)
    load = dask.delayed(_load, pure=False)
    loaded = {chip.index: load(staging, chip) for chip in sorted(chips, key=lambda chip: chip.index)}
    strips = []
    for top in range(0, grid.shard_px, strip_px):
        strip = PixelWindow(window.row + top, window.col, min(strip_px, grid.shard_px - top), window.width)
        here = [index for index in loaded if grid.chip_window(index).overlaps(strip)]
        blended = dask.delayed(_blend_strip)(grid, strip, here, [loaded[index] for index in here])
        shape = (len(BANDS) + 2, strip.height, strip.width)
        strips.append(da.from_delayed(blended, shape, np.uint16))
    with dask.config.set(scheduler="threads", num_workers=1):
        pixels: NDArray[np.uint16] = da.concatenate(strips, axis=1).compute()
    bands = len(BANDS)
    return ShardData(pixels[:bands], pixels[bands].astype(np.uint8), pixels[bands + 1])


def _blend_strip(
    grid: Grid, strip: PixelWindow, indices: list[ChipIndex], chips: list[StagedChip]
) -> NDArray[np.uint16]:
    """(14, h, w) uint16: the 12 bands, quality and source of a strip of rows."""
    blend = Blend.empty(len(BANDS), 2, strip.height, strip.width)
    weight = _window(grid)
    for rank, (index, chip) in enumerate(zip(indices, chips, strict=True)):
        labels = np.stack([chip.quality.astype(np.uint16), chip.source])
        labels = labels.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
        place = grid.chip_window(index)
        at = place.row - strip.row, place.col - strip.col
        blend.add(chip.dn, labels, weight, labels[1] > 0, at, rank)
    values, labels = blend.result()
    return np.concatenate([values, labels])


def _load(staging: Storage, chip: ChipSource) -> StagedChip:
    """A staged chip with the cube's scene numbers."""
    staged = read_chip(staging, chip.object_name)
    numbers = np.array([0, *chip.numbers], np.uint16)
    return StagedChip(staged.dn, staged.quality, numbers[staged.source])


@cache
def _window(grid: Grid) -> NDArray[np.int64]:
    return chip_window(grid.chip_px * SCALE, grid.overlap_px * SCALE, grid.margin_px * SCALE)
