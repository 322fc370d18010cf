"""Pure geometry: the lattice of a UTM zone, its chips and its shards. No input or output.

Everything is counted from the zone's origin (0, 0): columns eastwards, rows southwards. Rows are negative north of the
equator, because northings are positive there. A chip or shard therefore has the same index in every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from kernels.bands import SCALE, TARGET_GSD_M

#: Step of the lattice in metres: every Sentinel-2 tile of a zone starts on a multiple of it.
LATTICE_M = 60


class ChipIndex(NamedTuple):
    """A chip of a zone: (row, col) counted from the lattice origin in strides."""

    row: int
    col: int


class ShardIndex(NamedTuple):
    """A shard of a zone: (row, col) counted from the lattice origin in shards."""

    row: int
    col: int


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

    def bounds_m(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in metres of the zone."""
        gsd = TARGET_GSD_M
        return self.col * gsd, -self.row_stop * gsd, self.col_stop * gsd, -self.row * gsd

    def box(self) -> BaseGeometry:
        """The window as a polygon in metres of the zone."""
        return shapely.box(*self.bounds_m())

    def geobox(self, epsg: int, resolution_m: float = TARGET_GSD_M) -> GeoBox:
        """The window as an odc-geo GeoBox at a resolution in metres that divides it."""
        left, bottom, right, top = self.bounds_m()
        shape = (round((top - bottom) / resolution_m), round((right - left) / resolution_m))
        return GeoBox(shape, Affine(resolution_m, 0, left, 0, -resolution_m, top), f"EPSG:{epsg}")


@dataclass(frozen=True)
class Grid:
    """Sizes of chips and shards.

    Attributes:
        chip_px: side of a chip in 10 m pixels, a multiple of 6.
        overlap_px: 10 m pixels that neighbouring chips share, a multiple of 6, at most half a chip.
        shard_px: side of a shard in 2.5 m pixels.
        chunk_px: side of an inner chunk in 2.5 m pixels; divides `shard_px`.
    """

    chip_px: int = 192
    overlap_px: int = 24
    shard_px: int = 2048
    chunk_px: int = 256

    def __post_init__(self) -> None:
        if self.chip_px % 6 or self.overlap_px % 6 or not 0 < self.overlap_px <= self.chip_px // 2:
            raise ValueError(
                f"chip of {self.chip_px} px with overlap {self.overlap_px}: both must be multiples of 6 "
                "and the overlap at most half a chip"
            )
        if self.shard_px % self.chunk_px:
            raise ValueError(f"shard of {self.shard_px} px is not a multiple of its chunk of {self.chunk_px}")

    @property
    def stride_px(self) -> int:
        """10 m pixels from one chip to the next."""
        return self.chip_px - self.overlap_px

    @property
    def margin_px(self) -> int:
        """10 m pixels at a chip's edge that get no weight in the mosaic (a sixth of the overlap)."""
        return self.overlap_px // 6

    def chip_window(self, chip: ChipIndex) -> PixelWindow:
        """The 2.5 m pixels of a chip."""
        step, size = self.stride_px * SCALE, self.chip_px * SCALE
        return PixelWindow(chip.row * step, chip.col * step, size, size)

    def shard_window(self, shard: ShardIndex) -> PixelWindow:
        """The 2.5 m pixels of a shard."""
        size = self.shard_px
        return PixelWindow(shard.row * size, shard.col * size, size, size)

    def chips_touching(self, window: PixelWindow) -> Iterator[ChipIndex]:
        """All chips that share a pixel with a window, row by row."""
        step, size = self.stride_px * SCALE, self.chip_px * SCALE
        for row in range(_first(window.row, step, size), _last(window.row_stop, step) + 1):
            for col in range(_first(window.col, step, size), _last(window.col_stop, step) + 1):
                yield ChipIndex(row, col)

    def shards_touching(self, window: PixelWindow) -> Iterator[ShardIndex]:
        """All shards that share a pixel with a window, row by row."""
        size = self.shard_px
        for row in range(window.row // size, _last(window.row_stop, size) + 1):
            for col in range(window.col // size, _last(window.col_stop, size) + 1):
                yield ShardIndex(row, col)

    def chips_over(self, area: BaseGeometry) -> list[ChipIndex]:
        """Chips that share ground with an area given in metres of the zone, row by row."""
        if area.is_empty:
            return []
        shapely.prepare(area)
        boxes = ((chip, self.chip_window(chip).box()) for chip in self.chips_touching(window_around(area)))
        return [chip for chip, box in boxes if area.intersects(box) and not area.touches(box)]

    def shard_extent(self, shards: list[ShardIndex]) -> PixelWindow:
        """The smallest window of whole shards that holds all of `shards`."""
        size = self.shard_px
        row, col = min(s.row for s in shards), min(s.col for s in shards)
        rows = max(s.row for s in shards) - row + 1
        cols = max(s.col for s in shards) - col + 1
        return PixelWindow(row * size, col * size, rows * size, cols * size)


def _first(start: int, step: int, size: int) -> int:
    """Index of the first piece of `size` at stride `step` that reaches past `start`."""
    return (start - size) // step + 1


def _last(stop: int, step: int) -> int:
    """Index of the last piece at stride `step` that begins before `stop`."""
    return (stop - 1) // step


def window_around(area: BaseGeometry) -> PixelWindow:
    """The smallest window of whole 2.5 m pixels around an area in metres of the zone."""
    left, bottom, right, top = area.bounds
    gsd = TARGET_GSD_M
    row, col = math.floor(-top / gsd), math.floor(left / gsd)
    return PixelWindow(row, col, math.ceil(-bottom / gsd) - row, math.ceil(right / gsd) - col)


@lru_cache(maxsize=256)
def _to_zone(epsg: int) -> Transformer:
    return Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)


def to_zone(area: BaseGeometry, epsg: int, max_step_deg: float = 0.05) -> BaseGeometry:
    """An area in longitude and latitude as metres of a UTM zone; edges are densified first so that they stay true."""
    transformer = _to_zone(epsg)
    dense = shapely.segmentize(area, max_step_deg)
    return shapely.make_valid(shapely.transform(dense, transformer.transform, interleaved=False))


def utm_epsg(lon: float, lat: float) -> int:
    """EPSG code of the UTM zone of a position, as the MGRS draws it (with Norway's and Svalbard's wider zones)."""
    zone = min(int((lon + 180.0) % 360.0 // 6.0) + 1, 60)
    if 56.0 <= lat < 64.0 and 3.0 <= lon < 12.0:
        zone = 32
    if 72.0 <= lat < 84.0 and 0.0 <= lon < 42.0:
        zone = 31 if lon < 9.0 else 33 if lon < 21.0 else 35 if lon < 33.0 else 37
    return (32600 if lat >= 0.0 else 32700) + zone
