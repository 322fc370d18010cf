"""A cube as a map needs it: opened levels of its zones, their extents, and the layers that can be shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import xarray as xr
from rasterio.warp import transform_bounds
from xarray.backends import ZarrStore

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import GSD_10_M, Lattice
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.readers.view.layers import Layer, layers_of
from difffusr.pipeline.storage import store_failures

#: A level may be at most this many times finer than the drawn pixels.
MOST_RATIO: Final = 4

#: With more pixels than this in its coarsest level, a zone's extent is its whole window instead of its data.
_MOST_SEARCHED: Final = 4096 * 4096

#: Bytes of the bands between those wanted that are read at a time, and rows of a chunk, usually.
_STRIP_BYTES: Final = 8 << 20

_CHUNK_PX: Final = 256

#: left, bottom, right, top.
Bounds = tuple[float, float, float, float]


class NothingThereError(LookupError):
    """The cube has no data there. The message is one line."""


class TooWideError(LookupError):
    """The cube has no level that coarse. The message is one line."""


@dataclass(frozen=True, eq=False)
class Level:
    """One resolution of a zone.

    Attributes:
        gsd_m: side of a pixel in metres on the ground.
        pixel: its side in the zone's coordinates: metres, or degrees in a cube of such a CRS.
        data: its group, not loaded: stored numbers without masking; variables (time, band, y, x) or (time, y, x).
    """

    gsd_m: float
    pixel: float
    data: xr.Dataset

    @property
    def bounds(self) -> Bounds:
        """In the zone's coordinates."""
        x, y, half = self.data.x.values, self.data.y.values, self.pixel / 2
        return float(x[0] - half), float(y[-1] - half), float(x[-1] + half), float(y[0] + half)

    def window(self, bounds: Bounds, group: int = 1) -> tuple[slice, slice] | None:
        """Rows and columns that cover bounds in the zone's coordinates with a margin, in whole groups of pixels; None
        if the level does not reach them."""
        left, _, _, top = self.bounds
        side = self.pixel * group
        rows = _widened((top - bounds[3]) / side, (top - bounds[1]) / side, group, self.data.sizes["y"])
        cols = _widened((bounds[0] - left) / side, (bounds[2] - left) / side, group, self.data.sizes["x"])
        return (rows, cols) if rows.start < rows.stop and cols.start < cols.stop else None

    def read(self, name: str, step: int, window: tuple[slice, slice], bands: Sequence[int] | None = None) -> xr.Dataset:
        """A variable in a window, loaded.

        Args:
            step: of time.
            bands: positions in the order to return them; None of a variable that has none.
        """
        rows, cols = window
        part = self.data[[name]].isel(time=step, y=rows, x=cols)
        if bands is None:
            return part.load()
        # A list of bands would take zarr eight times the memory of the bands between, and as much longer.
        between = self.data[name].isel(time=step, band=slice(min(bands), max(bands) + 1), x=cols)
        chosen, out = [band - min(bands) for band in bands], np.empty(_shape(part, name, bands), between.dtype)
        for strip in _strips(rows, between.sizes["band"] * between.sizes["x"] * between.dtype.itemsize):
            here = slice(strip.start - rows.start, strip.stop - rows.start)
            out[:, here] = between.isel(y=strip).values[chosen]
        part = part.isel(band=list(bands))
        return part.assign({name: (part[name].dims, out, part[name].attrs)})


@dataclass(frozen=True, eq=False)
class MappedZone:
    """A zone of the cube.

    Attributes:
        epsg: its code, or the number of the cube's one CRS.
        lattice: its finest pixels.
        is_utm: whether it is a UTM zone, not the one CRS of a whole cube.
        levels: from fine to coarse.
        steps: position of each period on the time axis, by label.
        extent: west, south, east, north of its data in degrees; east exceeds 180 if it crosses 180°.
    """

    epsg: int
    lattice: Lattice
    is_utm: bool
    levels: tuple[Level, ...]
    steps: Mapping[str, int]
    extent: Bounds

    @property
    def name(self) -> str:
        """For people: 32N, or EPSG:3035."""
        return f"{self.epsg % 100}{'N' if self.epsg < 32700 else 'S'}" if self.is_utm else self.lattice.name

    def level_for(self, gsd_m: float) -> Level:
        """The coarsest level that is at least this fine, else the finest.

        Raises:
            TooWideError: it is so fine that too much would have to be read.
        """
        level = next((level for level in reversed(self.levels) if level.gsd_m <= gsd_m * 1.001), self.levels[0])
        if gsd_m > level.gsd_m * MOST_RATIO:
            place = f"zone {self.epsg}" if self.is_utm else self.name
            raise TooWideError(
                f"{place} has no level coarser than {level.gsd_m:g} m, too fine for a map of {gsd_m:.0f} m; zoom in"
            )
        return level


@dataclass(frozen=True, eq=False)
class MappedCube:
    """A published cube as it was when opened.

    Attributes:
        url: of the cube.
        credit: attribution of its data.
        zones: by EPSG code.
        periods: first and last day by label, in the order of time.
        layers: by name.
        scenes: facts of every scene by number.
        flags: meanings of the quality flags by number.
        scales: by variable, what stored numbers are multiplied by.
        fills: by variable, the number for no data.
    """

    url: str
    credit: str
    zones: Mapping[int, MappedZone]
    periods: Mapping[str, tuple[date, date]]
    layers: Mapping[str, Layer]
    scenes: Mapping[int, Mapping[str, Any]]
    flags: Mapping[int, str]
    scales: Mapping[str, float]
    fills: Mapping[str, int]

    def zones_near(self, epsg: int) -> list[MappedZone]:
        """All zones, this one first."""
        return sorted(self.zones.values(), key=lambda zone: zone.epsg != epsg)


def pixels_of_10_m(gsd_m: float) -> int:
    """How many pixels of a size are averaged, along each side, to what stands for 10 m."""
    return max(round(GSD_10_M / gsd_m), 1)


def map_cube(cube: Cube) -> MappedCube:
    """Open a cube's levels.

    Raises:
        StoreError: the cube cannot be read, or does not list its levels.
    """
    with reading(cube.storage.url):
        zones = {epsg: _zone(cube, epsg) for epsg in cube.zones}
        some = next(iter(zones.values())).levels[0].data
    days = {label: days for epsg in cube.zones for label, (_, days) in cube.periods(epsg).items()}
    names = set.intersection(*(set(map(str, zone.levels[0].data.data_vars)) for zone in zones.values()))
    flags = some["quality"].attrs
    return MappedCube(
        url=cube.storage.url,
        credit=str(cube.attributes.get("source", "")),
        zones=zones,
        periods=dict(sorted(days.items(), key=lambda item: item[1])),
        layers=layers_of(sorted(names)),
        scenes=dict(cube.scenes),
        flags=dict(zip(map(int, flags["flag_values"]), flags["flag_meanings"].split(), strict=True)),
        scales={name: float(some[name].attrs.get("scale_factor", 1)) for name in names},
        fills={name: int(some[name].attrs.get("_FillValue", 0)) for name in names},
    )


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Turn the errors of a store that cannot be read into a StoreError of one line."""
    try:
        yield
    except store_failures(KeyError, RuntimeError) as error:
        raise StoreError(
            f"{url}: cannot be read ({first_line(error)}); check that it can be reached and is complete"
        ) from None


def _zone(cube: Cube, epsg: int) -> MappedZone:
    layout, lattice = cube.of_zone(epsg)["multiscales"]["layout"], cube.lattice(epsg)
    ground_m = lattice.ground_m(cube.window(epsg))
    levels = [_level(cube, epsg, entry, ground_m, lattice.pixel) for entry in layout]
    levels.sort(key=lambda level: level.gsd_m)
    steps = {label: step for label, (step, _) in cube.periods(epsg).items()}
    return MappedZone(epsg, lattice, cube.of_crs(epsg) is None, tuple(levels), steps, _extent(lattice.crs, levels[-1]))


def _level(cube: Cube, epsg: int, entry: Mapping[str, Any], ground_m: float, finest: float) -> Level:
    """Open a level listed in the layout of the multiscales convention, in the state in which the cube was opened."""
    store = ZarrStore(cube.group(epsg, int(entry["asset"])), mode="r")
    data = xr.open_dataset(store, mask_and_scale=False, decode_coords="all")
    pixel = abs(float(entry["spatial:transform"][0]))
    return Level(ground_m * (pixel / finest), pixel, data)


def _extent(crs: str, level: Level) -> Bounds:
    """See `MappedZone.extent`: of the newest period, from the coarsest level if that is small."""
    left, bottom, right, top = level.bounds
    quality = level.data["quality"]
    if quality.sizes["y"] * quality.sizes["x"] <= _MOST_SEARCHED:
        seen = quality.isel(time=-1).values > 0
        rows, cols = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
        if rows.size:
            left, right = left + cols[0] * level.pixel, left + (cols[-1] + 1) * level.pixel
            top, bottom = top - rows[0] * level.pixel, top - (rows[-1] + 1) * level.pixel
    west, south, east, north = transform_bounds(crs, "EPSG:4326", left, bottom, right, top)
    return west, south, east + 360 if east < west else east, north


def _shape(part: xr.Dataset, name: str, bands: Sequence[int]) -> tuple[int, int, int]:
    return len(bands), part[name].sizes["y"], part[name].sizes["x"]


def _strips(rows: slice, row_bytes: int) -> Iterator[slice]:
    """Rows in parts of little memory that end where chunks do."""
    height = max(_STRIP_BYTES // row_bytes // _CHUNK_PX, 1) * _CHUNK_PX
    start = rows.start
    while start < rows.stop:
        stop = min((start // height + 1) * height, rows.stop)
        yield slice(start, stop)
        start = stop


def _widened(start: float, stop: float, group: int, size: int) -> slice:
    """Pixels of the groups from start to stop and one more on either side, cut at the edges."""
    return slice(max((math.floor(start) - 1) * group, 0), min((math.ceil(stop) + 1) * group, size))
