"""Pure geometry: the lattice of a UTM zone, its chips and its shards. No input or output.

Everything is counted from the zone's origin, easting 0 on the equator: columns eastwards, rows southwards, so that rows
are negative north of the equator. A chip or shard therefore has the same index in every run. In southern zones the
equator's northing is 10 000 000 m, not a multiple of 60: tiles there start on multiples of 60 m from it, not from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import SCALE, TARGET_GSD_M

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from difffusr.pipeline.config import RunConfig

#: Step of the lattice in metres: every Sentinel-2 tile of a zone starts on a multiple of it.
LATTICE_M = 60

#: Metres of the pixels that chips and overlaps are measured in.
GSD_10_M = 10

#: Pixels of 10 m along a step of the lattice.
LATTICE_PX = LATTICE_M // GSD_10_M

#: Chips along a side of the blocks in which an area is searched for chips.
_BLOCK = 64

#: Overlap in metres below which two shapes only touch.
_TOUCH_M = 1e-6


class ChipIndex(NamedTuple):
    """A chip of a zone: (row, col) counted from the lattice origin in strides."""

    row: int
    col: int


class ShardIndex(NamedTuple):
    """A shard of a zone: (row, col) counted from the lattice origin in shards."""

    row: int
    col: int


class OverviewIndex(NamedTuple):
    """A shard of a pyramid level of a zone (0 for 2.5 m, 1 for 5 m …): (row, col) in shards from the zone's top left
    corner. It is made from the four of the level below at (2 row … 2 row + 1, 2 col … 2 col + 1)."""

    level: int
    row: int
    col: int

    @property
    def children(self) -> list[OverviewIndex]:
        """The shards that it is made from, row by row; some may lie past the level's edge."""
        return [
            OverviewIndex(self.level - 1, 2 * self.row + down, 2 * self.col + right)
            for down in (0, 1)
            for right in (0, 1)
        ]

    @property
    def parent(self) -> OverviewIndex:
        """The shard of the next level that it becomes part of."""
        return OverviewIndex(self.level + 1, self.row // 2, self.col // 2)


class PixelWindow(NamedTuple):
    """A window of a zone in absolute 2.5 m pixels: first row and column, and size."""

    row: int
    col: int
    height: int
    width: int

    @property
    def row_stop(self) -> int:
        """One past the last row."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """One past the last column."""
        return self.col + self.width

    def overlaps(self, other: PixelWindow) -> bool:
        """Whether the two share a pixel."""
        return (
            self.row < other.row_stop
            and other.row < self.row_stop
            and self.col < other.col_stop
            and other.col < self.col_stop
        )

    def bounds_m(self, epsg: int) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in metres of a zone."""
        gsd, origin = TARGET_GSD_M, origin_m(epsg)
        return self.col * gsd, origin - self.row_stop * gsd, self.col_stop * gsd, origin - self.row * gsd

    def box(self, epsg: int) -> BaseGeometry:
        """The window as a polygon in metres of a zone."""
        return shapely.box(*self.bounds_m(epsg))

    def geobox(self, epsg: int, resolution_m: float = TARGET_GSD_M) -> GeoBox:
        """The window as an odc-geo GeoBox at a resolution in metres that divides it."""
        from odc.geo.geobox import GeoBox  # here, because it brings dask, which readers of chips do not need

        left, bottom, right, top = self.bounds_m(epsg)
        shape = (round((top - bottom) / resolution_m), round((right - left) / resolution_m))
        return GeoBox(shape, Affine(resolution_m, 0, left, 0, -resolution_m, top), f"EPSG:{epsg}")


@dataclass(frozen=True)
class Grid:
    """Sizes of chips and shards. Not checked here: the section `grid` of a configuration is.

    Attributes:
        chip_px: side of a chip in 10 m pixels, a multiple of 6.
        overlap_px: 10 m pixels that neighbouring chips share, a positive multiple of 6, less than half a chip.
        shard_px: side of a shard in 2.5 m pixels.
        chunk_px: side of an inner chunk in 2.5 m pixels; divides `shard_px`.
    """

    chip_px: int = 192
    overlap_px: int = 24
    shard_px: int = 2048
    chunk_px: int = 256

    @property
    def stride_px(self) -> int:
        """10 m pixels from one chip to the next."""
        return self.chip_px - self.overlap_px

    @property
    def chip_side(self) -> int:
        """Side of a chip in 2.5 m pixels."""
        return self.chip_px * SCALE

    @property
    def chip_step(self) -> int:
        """2.5 m pixels from one chip to the next."""
        return self.stride_px * SCALE

    @property
    def margin_px(self) -> int:
        """10 m pixels at a chip's edge that have no weight in the mosaic (a sixth of the overlap)."""
        return self.overlap_px // 6

    def chip_window(self, chip: ChipIndex) -> PixelWindow:
        """The 2.5 m pixels of a chip."""
        step, size = self.chip_step, self.chip_side
        return PixelWindow(chip.row * step, chip.col * step, size, size)

    def shard_window(self, shard: ShardIndex) -> PixelWindow:
        """The 2.5 m pixels of a shard."""
        size = self.shard_px
        return PixelWindow(shard.row * size, shard.col * size, size, size)

    def chips_touching(self, window: PixelWindow) -> Iterator[ChipIndex]:
        """All chips that share a pixel with a window, row by row."""
        step, size = self.chip_step, self.chip_side
        for row in range(_first(window.row, step, size), _last(window.row_stop, step) + 1):
            for col in range(_first(window.col, step, size), _last(window.col_stop, step) + 1):
                yield ChipIndex(row, col)

    def shards_touching(self, window: PixelWindow) -> Iterator[ShardIndex]:
        """All shards that share a pixel with a window, row by row."""
        size = self.shard_px
        for row in range(window.row // size, _last(window.row_stop, size) + 1):
            for col in range(window.col // size, _last(window.col_stop, size) + 1):
                yield ShardIndex(row, col)

    def chip_cores_m(
        self, epsg: int | NDArray[np.int32], rows: NDArray[np.int64], cols: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(n, 4) left, bottom, right, top of the cores of chips, in metres of their zones: their windows without half
        the overlap on each side. All cores together tile a zone. `epsg`: one for all, or (n,)."""
        step, inset = self.stride_px * GSD_10_M, self.overlap_px * GSD_10_M / 2
        left, top = cols * step + inset, origin_m(epsg) - (rows * step + inset)
        return np.stack([left, top - step, left + step, top], axis=-1)

    def chips_over(self, epsg: int, area: BaseGeometry) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n,) rows and (n,) columns, row by row, of the chips whose core overlaps an area in metres of a zone."""
        found = [np.zeros((2, 0), np.int64)]
        if not area.is_empty:
            shapely.prepare(area)
            left, bottom, right, top = area.bounds
            step, inset = self.stride_px * GSD_10_M, self.overlap_px * GSD_10_M / 2
            origin = float(origin_m(epsg))
            first = math.floor((origin - top - inset) / step), math.floor((left - inset) / step)
            last = math.floor((origin - bottom - inset) / step), math.floor((right - inset) / step)
            for row in range(first[0], last[0] + 1, _BLOCK):
                for col in range(first[1], last[1] + 1, _BLOCK):
                    size = min(_BLOCK, last[0] + 1 - row), min(_BLOCK, last[1] + 1 - col)
                    found.append(self._chips_of_block(epsg, area, row, col, size))
        rows, cols = np.concatenate(found, axis=1)
        order = np.lexsort((cols, rows))
        return rows[order], cols[order]

    def _chips_of_block(
        self, epsg: int, area: BaseGeometry, row: int, col: int, size: tuple[int, int]
    ) -> NDArray[np.int64]:
        """(2, n) rows and columns of a block's chips over a prepared area; most blocks are wholly inside or outside."""
        rows, cols = (axis.ravel() for axis in np.mgrid[row : row + size[0], col : col + size[1]])
        cores = self.chip_cores_m(epsg, rows, cols)
        block = shapely.box(*cores[:, :2].min(axis=0), *cores[:, 2:].max(axis=0))
        if not area.intersects(block):
            return np.zeros((2, 0), np.int64)
        if not area.contains_properly(block):
            # Smaller by a micrometre on each side: chips that only touch do not count.
            boxes = shapely.box(*(cores + np.array([1, 1, -1, -1]) * _TOUCH_M).T)
            inside = shapely.intersects(area, boxes)
            rows, cols = rows[inside], cols[inside]
        return np.stack([rows, cols])

    def shard_extent(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> PixelWindow:
        """The smallest window of whole shards that holds all shards of these rows and columns."""
        size = self.shard_px
        row, col = int(rows.min()), int(cols.min())
        return PixelWindow(
            row * size, col * size, (int(rows.max()) - row + 1) * size, (int(cols.max()) - col + 1) * size
        )


def _first(start: int, step: int, size: int) -> int:
    """Index of the first piece of `size` at stride `step` that reaches past `start`."""
    return (start - size) // step + 1


def _last(stop: int, step: int) -> int:
    """Index of the last piece at stride `step` that begins before `stop`."""
    return (stop - 1) // step


@overload
def origin_m(epsg: int) -> float: ...


@overload
def origin_m(epsg: int | NDArray[np.int32]) -> float | NDArray[np.float64]: ...


def origin_m(epsg: int | NDArray[np.int32]) -> float | NDArray[np.float64]:
    """Northing of the equator in metres: rows of a zone are counted from there."""
    if isinstance(epsg, int):
        return 10_000_000.0 if epsg // 100 == 327 else 0.0
    return np.where(epsg // 100 == 327, 10_000_000.0, 0.0)


def grid_of(config: RunConfig) -> Grid:
    """The grid a configuration asks for."""
    g = config.grid
    return Grid(g.chip_px, g.overlap_px, g.shard_px, g.chunk_px)
