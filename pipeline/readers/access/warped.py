"""The pixels of an area in one CRS: all zones that show it, warped once and blended, block by block."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from threading import Lock
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.errors import NotGeoreferencedWarning
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.assemble.continent import ReadPixels, Resolution, ZoneView, blend_half_m, warped_shard
from difffusr.pipeline.cube import ShardData
from difffusr.pipeline.geo import Lattice, PixelWindow
from difffusr.pipeline.ground.errors import CoverageError
from difffusr.pipeline.ground.pixels import DN_SCALE, STD_FILL, STD_SCALE
from difffusr.pipeline.readers.access.facts import ZONE_REACH_DEG, CubeFacts, Missing, scaled
from difffusr.pipeline.readers.access.windows import Windows

#: Pixels along a side of the squares that are warped at a time, so many side by side; and of those whose source is
#: held in memory: 0.1 GB of each zone.
_BLOCK_PX, _BLOCKS, GROUP_PX = 256, 4, 2048


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Where a mosaic's pixels are from.

    Attributes:
        cube: the cube.
        area: in EPSG:4326.
        lattice: the pixels to make.
        window: those of the mosaic.
        labels: the periods.
        bands: positions of the bands.
        missing: what to do about ground that nobody has written.
    """

    cube: CubeFacts
    area: BaseGeometry
    lattice: Lattice
    window: PixelWindow
    labels: tuple[str, ...]
    bands: tuple[int, ...]
    missing: Missing

    @cached_property
    def _resolution(self) -> Resolution:
        cube, finest = self.cube.cube, self.cube.lattice(self.cube.zones[0])
        overviews = min(cube.overviews(zone) for zone in self.cube.zones)
        return Resolution.of(self.lattice, overviews, finest.pixel * finest.unit_m)

    @cached_property
    def _half_m(self) -> float:
        return blend_half_m(self.cube.cube)

    def views(self, at: int, target: PixelWindow) -> list[ZoneView]:
        """The zones that may show a window in a period."""
        cube, found = self.cube.cube, []
        for zone in self._near(target):
            step = self.cube.step(zone, self.labels[at])
            if step is None:
                continue
            view = ZoneView(zone, step, cube.window(zone), self._resolution.level, cube.of_crs(zone))
            if view.seen_from(self.lattice, target) is not None:
                found.append(view)
        return found

    def _near(self, target: PixelWindow) -> Iterator[int]:
        left, bottom, right, top = self.lattice.bounds(target)
        lon, _ = self.lattice.degrees(np.linspace(left, right, 3), np.linspace(bottom, top, 3))
        for zone in self.cube.zones:
            if self.cube.cube.of_crs(zone) is not None:
                yield zone
                continue
            away = np.abs((lon - (6.0 * (zone % 100) - 183.0) + 180.0) % 360.0 - 180.0)
            if not (away >= ZONE_REACH_DEG).all():
                yield zone

    def read(self, variable: str, at: int, part: PixelWindow, bands: Sequence[int]) -> NDArray[Any]:
        """([bands,] h, w) of a window of the lattice in a period."""
        spectral = variable.startswith("reflectance")
        out = np.empty((*((len(bands),) if spectral else ()), part.height, part.width), self.dtype(variable))
        for group in _squares(part, GROUP_PX):
            inside = _shared(group, part)
            views = self.views(at, group)
            read = _held(self.cube.windows, self.lattice, group if inside == group else _widened(inside), views)

            def place(block: PixelWindow, inside: PixelWindow = inside, views: Any = views, read: Any = read) -> None:
                shown = _shared(block, inside)
                made = self._block(variable, at, block, bands, views, read, shown)
                out[..., *_slices(shown, part)] = made

            # What rasterio hides of its own arrays shows up where several threads hide it.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                list(_pool(os.getpid()).map(place, _squares(inside, _BLOCK_PX)))
        return out

    def dtype(self, variable: str) -> np.dtype[Any]:
        """Of a mosaic of a variable."""
        if variable.startswith("reflectance"):
            return np.dtype(np.float32)
        return self.cube.cube.array(self.cube.zones[0], variable).dtype

    def _block(
        self,
        variable: str,
        at: int,
        block: PixelWindow,
        bands: Sequence[int],
        views: Sequence[ZoneView],
        read: ReadPixels,
        shown: PixelWindow,
    ) -> NDArray[Any]:
        """The part of a block that is shown. Always the whole block is warped: a pixel is the same in whatever window
        it is read."""
        made = warped_shard(
            self.cube.cube, views, self.lattice, block, self._resolution, self._half_m, read=read, bands=bands,
            spectral=[variable] if variable.startswith("reflectance") else [],
        )  # fmt: skip
        if made is None:
            names, size = self.cube.variables, (block.height, block.width)
            made = ShardData.empty(
                size, bands=len(bands), with_std="reflectance_std" in names, with_looks="looks" in names
            )
        made = made.part(*_slices(shown, block))
        if self.missing == "raise":
            self._check(views, at, shown, made.quality == 0)
        if variable == "reflectance":
            return scaled(made.reflectance, 1 / DN_SCALE, 0)
        if variable == "reflectance_std":
            assert made.std is not None
            return scaled(made.std, 1 / STD_SCALE, STD_FILL)
        return np.asarray(getattr(made, variable))

    def _check(self, views: Sequence[ZoneView], at: int, target: PixelWindow, empty: NDArray[np.bool_]) -> None:
        """Whether empty pixels inside the area are in shards that somebody has written."""
        rows, cols = np.nonzero(empty)
        if not len(rows) or any(_whole(self.cube.windows, view, self.lattice, target) for view in views):
            return
        x, y = (np.asarray(axis, np.float64) for axis in self.lattice.centres(target, rows, cols))
        lon, lat = self.lattice.degrees(x, y)
        shapely.prepare(self.area)
        wanted = shapely.contains_xy(self.area, (lon + 180.0) % 360.0 - 180.0, lat)
        for view in views:
            if not wanted.any():
                return
            here = np.flatnonzero(wanted)
            wanted[here] = ~_written(self.cube.windows, view, self.lattice.crs, x[here], y[here])
        if wanted.any():
            first = int(np.flatnonzero(wanted)[0])
            raise CoverageError(
                f"{self.cube.url}: nobody has written the cube at {lon[first]:.5f}, {lat[first]:.5f} in "
                f'{self.labels[at]}, inside the area; `coverage()` has what there is, missing="nan" gives NaN there'
            )


@lru_cache(maxsize=1)
def _pool(_: int) -> ThreadPoolExecutor:
    """The threads of this process that warp: they stay, as each makes its own conversions between CRSs, 30 ms each."""
    return ThreadPoolExecutor(_BLOCKS, "mosaic")


def _held(windows: Windows, lattice: Lattice, ground: PixelWindow, views: Sequence[ZoneView]) -> ReadPixels:
    """Reads zones' pixels, each variable once for all blocks of some ground."""
    held: dict[tuple[int, str], tuple[PixelWindow, NDArray[Any]]] = {}
    locks: defaultdict[tuple[int, str], Lock] = defaultdict(Lock)

    def read(view: ZoneView, name: str, part: PixelWindow) -> NDArray[Any]:
        key = view.epsg, name
        with locks[key]:
            if key not in held:
                whole = _around(view.seen_from(lattice, ground) or part, part)
                held[key] = whole, windows.read(view.epsg, name, view.step, whole, view.level)
            whole, values = held[key]
            if _around(whole, part) != whole:  # outlines bend
                return windows.read(view.epsg, name, view.step, part, view.level)
        return values[..., *_slices(part, whole)]

    return read


def _around(one: PixelWindow, other: PixelWindow) -> PixelWindow:
    row, col = min(one.row, other.row), min(one.col, other.col)
    bottom, right = max(one.row_stop, other.row_stop), max(one.col_stop, other.col_stop)
    return PixelWindow(row, col, bottom - row, right - col)


def _shared(one: PixelWindow, other: PixelWindow) -> PixelWindow:
    """What two windows that overlap have in common."""
    row, col = max(one.row, other.row), max(one.col, other.col)
    bottom, right = min(one.row_stop, other.row_stop), min(one.col_stop, other.col_stop)
    return PixelWindow(row, col, bottom - row, right - col)


def _slices(part: PixelWindow, whole: PixelWindow) -> tuple[slice, slice]:
    """A window's place in a larger one."""
    row, col = part.row - whole.row, part.col - whole.col
    return slice(row, row + part.height), slice(col, col + part.width)


def _squares(part: PixelWindow, side: int) -> Iterator[PixelWindow]:
    """The squares of a lattice, counted from its origin, that a window touches."""
    for row in range(part.row // side * side, part.row_stop, side):
        for col in range(part.col // side * side, part.col_stop, side):
            yield PixelWindow(row, col, side, side)


def _widened(part: PixelWindow) -> PixelWindow:
    """The blocks that a window touches, as one window."""
    blocks = list(_squares(part, _BLOCK_PX))
    return _around(blocks[0], blocks[-1])


@lru_cache(maxsize=128)
def _between(crs: str, other: str) -> Transformer:
    return Transformer.from_crs(crs, other, always_xy=True)


def _written(
    windows: Windows, view: ZoneView, crs: str, x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which places of a CRS lie in shards of a zone's finest level that somebody has written."""
    rows, cols = _shards(windows, view, crs, x, y)
    places, which = np.unique(np.stack([rows, cols]), axis=1, return_inverse=True)
    return ~windows.unwritten(view.epsg, view.step, places[0], places[1])[which.ravel()]


def _whole(windows: Windows, view: ZoneView, lattice: Lattice, target: PixelWindow) -> bool:
    """Whether somebody has written all shards of a zone below a window."""
    along = np.linspace(-0.5, 1.0, 17)
    rows, cols = along * target.height, along * target.width
    x, y = np.meshgrid(*lattice.centres(target, rows, cols))
    down, right = _shards(windows, view, lattice.crs, x.ravel(), y.ravel())
    places = np.mgrid[down.min() : down.max() + 1, right.min() : right.max() + 1].reshape(2, -1)
    return bool(not windows.unwritten(view.epsg, view.step, places[0], places[1]).any())


def _shards(
    windows: Windows, view: ZoneView, crs: str, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the shards in which places lie, from the zone's upper left corner; −1 where there is none."""
    lattice, whole, side = view.lattice, view.window, windows.shard_px(view.epsg)[0]
    east, north = _between(crs, lattice.crs).transform(x, y)
    seen = np.isfinite(east) & np.isfinite(north)
    east = lattice.unrolled(np.where(seen, east, 0.0))
    cols = np.floor((east / lattice.pixel - whole.col) / side)
    rows = np.floor(((lattice.origin - np.where(seen, north, 0.0)) / lattice.pixel - whole.row) / side)
    return np.where(seen, rows, -1).astype(np.int64), np.where(seen, cols, -1).astype(np.int64)
