"""Chips → one blended shard, as a small Dask graph; written to the cube whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import dask.threaded
import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, SCALE
from difffusr.kernels.images import Layer, blend, chip_window
from difffusr.pipeline.chips import ChipError, StagedChip, read_chip
from difffusr.pipeline.cube import ShardData, encoding_bytes, shard_bytes
from difffusr.pipeline.engine import WORKER_BYTES
from difffusr.pipeline.geo import ChipIndex, Grid, PixelWindow, ShardIndex
from difffusr.pipeline.ground.pixels import STD_FILL, Quality
from difffusr.pipeline.storage import Storage


@dataclass(frozen=True)
class ChipSource:
    """A staged chip, and what its scene labels mean in the cube.

    Attributes:
        index: its place on the lattice.
        object_name: its staged object.
        numbers: the cube's numbers of its scenes, in the chip's own order.
    """

    index: ChipIndex
    object_name: str
    numbers: tuple[int, ...]


def blend_memory(grid: Grid, *, with_std: bool, with_looks: bool = False) -> int:
    """Most bytes that a task takes to blend and write one shard: the shard, and the larger of three rows of chips with
    one chip's object, and the encoding."""
    across = (grid.shard_px + grid.chip_side - 2) // grid.chip_step + 1
    chip = (2 if with_std else 1) * 2 * len(BANDS) * grid.chip_side**2
    chips = (3 * across + 1) * chip
    shard = shard_bytes(grid.shard_px, with_std=with_std, with_looks=with_looks)
    return WORKER_BYTES + shard + max(chips, encoding_bytes(grid.shard_px))


def blend_shard(
    grid: Grid,
    shard: ShardIndex,
    chips: list[ChipSource],
    staging: Storage,
    strip_px: int = 512,
    *,
    with_std: bool = False,
    with_looks: bool = False,
    gaps: Sequence[ChipIndex] = (),
) -> ShardData:
    """Blend the chips that touch a shard.

    The graph has one task to load each chip, which decodes only the rows that have weight here, and one to blend each
    strip of rows; a chip is freed once the last strip that needs it is blended. In memory at once: the shard, 27 bytes
    a pixel (24 more with the standard deviation, one with looks), two or three rows of chips, 24 bytes a pixel (48),
    and one chip's object while it is decoded (see `blend_memory`).

    The blended standard deviation is the weighted mean of the chips' own, Σ w·σ / Σ w. That is an upper bound of the
    blended samples' deviation, reached where chips agree: overlapping chips share their noise.

    Args:
        chips: the chips that touch the shard, in any order.
        strip_px: rows blended at a time.
        with_std: also blend the chips' standard deviation.
        with_looks: also fit the chips' numbers of observations together, each pixel's as its source.
        gaps: places of failed chips: pixels there that no other chip fills get the quality `FAILED`.

    Raises:
        ChipError: a staged chip is missing, damaged, or lacks the standard deviation or the number of observations.
        StoreError: the staging folder cannot be read.
    """
    window, side = grid.shard_window(shard), grid.shard_px
    spectral = len(BANDS), side, side
    blended = ShardData(
        np.empty(spectral, np.uint16),
        np.empty((side, side), np.uint8),
        np.empty((side, side), np.uint16),
        np.empty(spectral, np.uint16) if with_std else None,
        np.empty((side, side), np.uint8) if with_looks else None,
    )
    # A graph as Dask specifies it, {key: (function, keys)}: `delayed` would take as long as a tenth of the work.
    loaded = {chip.index: ("chip", *chip.index) for chip in sorted(chips, key=lambda chip: chip.index)}
    graph: dict[tuple[Any, ...], Any] = {
        loaded[chip.index]: (partial(_load, staging, chip, grid, window, with_std, with_looks),) for chip in chips
    }
    strips = []
    for top in range(0, side, strip_px):
        strip = PixelWindow(window.row + top, window.col, min(strip_px, side - top), side)
        here = [index for index in loaded if grid.chip_window(index).overlaps(strip)]
        strips.append(("strip", top))
        blend_strip = partial(_blend_strip, blended.rows(top, top + strip.height), grid, strip, here)
        graph[strips[-1]] = blend_strip, [loaded[index] for index in here]
    dask.threaded.get(graph, strips, num_workers=1)
    for gap in gaps:
        place = grid.chip_window(gap)
        rows, cols = _part(place.row, place.row_stop, window.row), _part(place.col, place.col_stop, window.col)
        missing = blended.quality[rows, cols]
        missing[missing == Quality.NO_DATA] = Quality.FAILED
    return blended


def _part(start: int, stop: int, origin: int) -> slice:
    """The part of start … stop at or after an origin, counted from it."""
    return slice(max(start - origin, 0), max(stop - origin, 0))


def _blend_strip(
    out: ShardData, grid: Grid, strip: PixelWindow, indices: list[ChipIndex], chips: list[StagedChip]
) -> None:
    """Blend chips into a strip of rows."""
    places = [grid.chip_window(index) for index in indices]
    at = [(place.row - strip.row, place.col - strip.col) for place in places]
    layers = [Layer(chip.dn, _labels(chip), chip.source > 0, at[rank], rank) for rank, chip in enumerate(chips)]
    blend(layers, _window(grid), out.reflectance, _labels(out))
    if out.std is not None:
        deviations = [
            replace(layer, values=chip.std, labels=())
            for layer, chip in zip(layers, chips, strict=True)
            if chip.std is not None
        ]
        blend(deviations, _window(grid), out.std, (), STD_FILL)


def _labels(pixels: StagedChip | ShardData) -> tuple[NDArray[np.unsignedinteger[Any]], ...]:
    """Its whole numbers a pixel."""
    labels = pixels.quality, pixels.source
    return labels if pixels.looks is None else (*labels, pixels.looks)


def _load(
    staging: Storage, chip: ChipSource, grid: Grid, window: PixelWindow, with_std: bool, with_looks: bool
) -> StagedChip:
    """A staged chip with the cube's scene numbers, without what the shard does not need."""
    place, margin = grid.chip_window(chip.index), grid.margin_px * SCALE
    rows = slice(max(window.row - place.row, margin), min(window.row_stop - place.row, place.height - margin))
    staged = read_chip(staging, chip.object_name, rows)
    for lacks, what in (
        (with_std and staged.std is None, "standard deviation"),
        (with_looks and staged.looks is None, "number of observations"),
    ):
        if lacks:
            where = f"{staging.url}: staged chip {chip.object_name}"
            raise ChipError(f"{where} has no {what}; run again to compute it again", chip.object_name)
    numbers = np.array([0, *chip.numbers], np.uint16)
    return StagedChip(
        staged.dn,
        staged.quality,
        numbers[staged.source],
        staged.std if with_std else None,
        staged.looks if with_looks else None,
    )


@cache
def _window(grid: Grid) -> NDArray[np.int64]:
    return chip_window(grid.chip_px * SCALE, grid.overlap_px * SCALE, grid.margin_px * SCALE)
