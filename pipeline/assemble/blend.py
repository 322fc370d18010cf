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
from difffusr.kernels.images.blending import Layer, blend, chip_window
from difffusr.pipeline.chips.staging import StagedChip, read_chip
from difffusr.pipeline.cube.shard import ShardData, encoding_bytes, shard_bytes
from difffusr.pipeline.engine.memory import WORKER_BYTES
from difffusr.pipeline.geo.grid import ChipIndex, Grid, PixelWindow, ShardIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.pixels import STD_FILL, Quality
from difffusr.pipeline.storage.objects import Storage


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


def blend_memory(grid: Grid, *, with_std: bool) -> int:
    """Bytes that a task takes at most to blend and write one shard: the shard itself, and the chips of three of their
    rows with one chip's object, or what encoding takes."""
    across = (grid.shard_px + grid.chip_side - 2) // grid.chip_step + 1
    chip = (2 if with_std else 1) * 2 * len(BANDS) * grid.chip_side**2
    chips = (3 * across + 1) * chip
    shard = shard_bytes(grid.shard_px, with_std=with_std)
    return WORKER_BYTES + shard + max(chips, encoding_bytes(grid.shard_px))


def blend_shard(
    grid: Grid,
    shard: ShardIndex,
    chips: list[ChipSource],
    staging: Storage,
    strip_px: int = 512,
    *,
    with_std: bool = False,
    gaps: Sequence[ChipIndex] = (),
) -> ShardData:
    """Blend the chips that touch a shard.

    The graph has one task to load each chip, of which it decodes the rows that have weight here, and one to blend each
    strip of rows into its place; chips are let go of as soon as the last strip that needs them is blended. In memory at
    once: the shard, 27 bytes a pixel (51 with the standard deviation), the chips of two or three of their rows, 24
    bytes a pixel (48), and one chip's object as it is decoded.

    The blended standard deviation is the weighted mean of the chips' own, Σ w·σ / Σ w. That is the most that the
    blended samples can vary, and what they do vary where chips agree: overlapping chips share their noise.

    Args:
        chips: the chips that touch the shard, in any order.
        strip_px: rows blended at a time.
        with_std: blend the chips' standard deviation, too.
        gaps: places of chips that failed: what of them no other chip shows gets the quality `FAILED`.

    Raises:
        StoreError: a staged chip is missing, damaged, or lacks the standard deviation that is asked for.
    """
    window, side = grid.shard_window(shard), grid.shard_px
    spectral = len(BANDS), side, side
    blended = ShardData(
        np.empty(spectral, np.uint16),
        np.empty((side, side), np.uint8),
        np.empty((side, side), np.uint16),
        np.empty(spectral, np.uint16) if with_std else None,
    )
    # A graph as Dask specifies it, {key: (function, keys)}: `delayed` would take as long as a tenth of the work.
    loaded = {chip.index: ("chip", *chip.index) for chip in sorted(chips, key=lambda chip: chip.index)}
    graph: dict[tuple[Any, ...], Any] = {
        loaded[chip.index]: (partial(_load, staging, chip, grid, window, with_std),) for chip in chips
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
    """What of start … stop lies at or after an origin, counted from it."""
    return slice(max(start - origin, 0), max(stop - origin, 0))


def _blend_strip(
    out: ShardData, grid: Grid, strip: PixelWindow, indices: list[ChipIndex], chips: list[StagedChip]
) -> None:
    """Blend chips into a strip of rows."""
    places = [grid.chip_window(index) for index in indices]
    at = [(place.row - strip.row, place.col - strip.col) for place in places]
    layers = [
        Layer(chip.dn, (chip.quality, chip.source), chip.source > 0, at[rank], rank) for rank, chip in enumerate(chips)
    ]
    blend(layers, _window(grid), out.reflectance, (out.quality, out.source))
    if out.std is not None:
        deviations = [
            replace(layer, values=chip.std, labels=())
            for layer, chip in zip(layers, chips, strict=True)
            if chip.std is not None
        ]
        blend(deviations, _window(grid), out.std, (), STD_FILL)


def _load(staging: Storage, chip: ChipSource, grid: Grid, window: PixelWindow, with_std: bool) -> StagedChip:
    """A staged chip with the cube's scene numbers; what the shard does not need of it is let go of."""
    place, margin = grid.chip_window(chip.index), grid.margin_px * SCALE
    rows = slice(max(window.row - place.row, margin), min(window.row_stop - place.row, place.height - margin))
    staged = read_chip(staging, chip.object_name, rows)
    if with_std and staged.std is None:
        raise StoreError(
            f"{staging.url}: staged chip {chip.object_name} has no standard deviation; delete it and run again"
        )
    numbers = np.array([0, *chip.numbers], np.uint16)
    return StagedChip(staged.dn, staged.quality, numbers[staged.source], staged.std if with_std else None)


@cache
def _window(grid: Grid) -> NDArray[np.int64]:
    return chip_window(grid.chip_px * SCALE, grid.overlap_px * SCALE, grid.margin_px * SCALE)
