"""Where the pixels of a file come from, block by block: a zone's own shards, or squares of a mosaic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import zarr
from numpy.typing import NDArray

from difffusr.pipeline.cube import Cube, ShardData, read_window
from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.readers.export.chosen import Export
from difffusr.pipeline.readers.export.mosaic import Mosaic

#: Side of the squares of a mosaic that are made at a time.
SQUARE_PX: Final = 512

#: Where a shard has a variable.
_FIELDS: Final = {"reflectance_std": "std"}


class Source(Protocol):
    """The pixels of a window in a period, of several variables."""

    def blocks(self, window: PixelWindow) -> Iterator[PixelWindow]:
        """Windows that are read at a time, which may reach beyond."""

    def read(self, block: PixelWindow, names: Sequence[str]) -> Mapping[str, NDArray[Any]] | None:
        """(bands, h, w) or (h, w) by variable as stored; None where there is nothing."""


@dataclass(frozen=True)
class ZonePixels:
    """Those of a zone, or of a cube of one CRS, shard by shard."""

    cube: Cube
    epsg: int
    step: int

    def blocks(self, window: PixelWindow) -> Iterator[PixelWindow]:
        """See `Source`: what the window covers of each shard, row by row of shards."""
        whole, array = self.cube.window(self.epsg), self.cube.array(self.epsg, "quality")
        height, width = (array.shards or array.chunks)[-2:]
        top, left = max(window.row, whole.row), max(window.col, whole.col)
        bottom, right = min(window.row_stop, whole.row_stop), min(window.col_stop, whole.col_stop)
        for row in range(_before(top, whole.row, height), bottom, height):
            for col in range(_before(left, whole.col, width), right, width):
                first, begin = max(row, top), max(col, left)
                yield PixelWindow(first, begin, min(row + height, bottom) - first, min(col + width, right) - begin)

    def read(self, block: PixelWindow, names: Sequence[str]) -> Mapping[str, NDArray[Any]] | None:
        """See `Source`."""
        whole = self.cube.window(self.epsg)
        found = {name: read_window(self.cube.array(self.epsg, name), self.step, block, whole) for name in names}
        filled = (found[name] == self.cube.array(self.epsg, name).fill_value for name in names)
        return None if all(values.all() for values in filled) else found


@dataclass(frozen=True)
class MosaicPixels:
    """Those of a mosaic of zones, square by square: each is warped once for all variables."""

    mosaic: Mosaic
    label: str
    tiled: bool

    def blocks(self, window: PixelWindow) -> Iterator[PixelWindow]:
        """See `Source`. They begin where the CRS's coordinates do, and always all of a square is warped: a pixel is the
        same whatever else is asked for, and but for rounding in `mosaic` of Python."""
        side = min(SQUARE_PX, window.height) if self.tiled else SQUARE_PX
        for top in range(_before(window.row, 0, side), window.row_stop, side):
            for left in range(_before(window.col, 0, side), window.col_stop, side):
                yield PixelWindow(top, left, side, side)

    def read(self, block: PixelWindow, names: Sequence[str]) -> Mapping[str, NDArray[Any]] | None:
        """See `Source`."""
        made = self.mosaic.pixels_of(self.label, block)
        return None if made is None else {name: _of(made, name) for name in names}


def source_of(cube: Cube, export: Export) -> Source:
    """Where the pixels of a file come from."""
    if not export.mosaic:
        return ZonePixels(cube, export.epsg, export.step)
    return MosaicPixels(Mosaic(cube, export.lattice), export.label, export.tile is not None)


def array_of(cube: Cube, export: Export) -> zarr.Array[Any]:
    """An array that has what a file says of its numbers."""
    codes = [epsg for epsg in cube.zones if export.variable in cube.variables(epsg)] if export.mosaic else [export.epsg]
    return cube.array(codes[0], export.variable)


def _of(made: ShardData, name: str) -> NDArray[Any]:
    values: NDArray[Any] = getattr(made, _FIELDS.get(name, name))
    return values


def _before(place: int, origin: int, side: int) -> int:
    """The last multiple of a side from an origin on that does not lie behind a place."""
    return origin + (place - origin) // side * side


def inside(block: PixelWindow, window: PixelWindow) -> tuple[PixelWindow, tuple[slice, slice]]:
    """The part of a block that lies in a window, and where it is in the block."""
    row, col = max(block.row, window.row), max(block.col, window.col)
    row_stop, col_stop = min(block.row_stop, window.row_stop), min(block.col_stop, window.col_stop)
    rows, cols = slice(row - block.row, row_stop - block.row), slice(col - block.col, col_stop - block.col)
    return PixelWindow(row, col, row_stop - row, col_stop - col), (rows, cols)


def is_spectral(array: zarr.Array[Any]) -> bool:
    """Whether a variable has bands."""
    return bool(array.ndim == 4)
