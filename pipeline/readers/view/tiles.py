"""Web Mercator tiles of a cube, across all its zones.

Every read is bounded: a tile is made from the coarsest level that is as fine as the tile, at most `MOST_RATIO` times
finer. That is 2048 pixels a side, or 81 chunks of 256 pixels; with a full pyramid half of that, 25 chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from threading import Lock
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rasterio.warp import transform_bounds
from rio_tiler.constants import WEB_MERCATOR_CRS
from rio_tiler.errors import EmptyMosaicError, TileOutsideBounds
from rio_tiler.io.xarray import Options
from rio_tiler.models import ImageData
from rio_tiler.mosaic import mosaic_reader
from rioxarray.exceptions import NoDataInBounds
from titiler.xarray.io import Reader

from difffusr.pipeline.geo import GSD_10_M, utm_epsg
from difffusr.pipeline.readers.view.layers import Layer, coloured, label_colours, numbers, rgb
from difffusr.pipeline.readers.view.levels import (
    MOST_RATIO,
    Bounds,
    Level,
    MappedCube,
    MappedZone,
    NothingThereError,
    pixels_of_10_m,
    reading,
)

#: Side of a tile in pixels.
TILE_PX: Final = 512

#: Zooms that may have tiles.
ZOOMS: Final = range(23)

#: Tiles whose numbers are cached, so that new colours need no reading; each takes up to 2.3 MB.
_CACHED: Final = 96

#: Longitudes of a cube exceed those of a map by one of these.
_TURNS: Final = (0, 360, -360)

#: Parts of a pixel that reaches beyond 180°: all but half of one part is drawn.
_CUTS: Final = 8

#: A level counts as one of 10 m if its pixels differ from that by less than this share.
_ABOUT: Final = 0.1

#: Locks shared by all reads.
_LOCKS: Final = 64

#: Web Mercator's Earth radius and half the side of its square in metres, and the latitude that it reaches.
_RADIUS_M: Final = 6_378_137

_HALF_M: Final = math.pi * _RADIUS_M

_MOST_LAT: Final = 85.05


@dataclass(frozen=True)
class Style:
    """What to draw of a cube.

    Attributes:
        layer: to draw.
        period: its label.
        averaged: averaged to 10 m instead of full resolution. Labels are never averaged.
    """

    layer: Layer
    period: str
    averaged: bool = False


class Tiles:
    """Makes the tiles of a cube."""

    def __init__(self, cube: MappedCube) -> None:
        self.cube = cube
        self._cached_read = lru_cache(maxsize=_CACHED)(self._read)
        # Both sides of a map may ask for the same numbers at once; the lock makes sure that they are read once.
        self._locks = [Lock() for _ in range(_LOCKS)]

    def tile(self, style: Style, zoom: int, col: int, row: int, low: float, high: float) -> bytes:
        """A tile as PNG, transparent where there is no data.

        Args:
            zoom, col, row: of the XYZ tile, which has `TILE_PX` pixels a side.
            low, high: see `Layer`.

        Raises:
            NothingThereError: the cube has no data there.
            TooWideError: the cube has no level that coarse.
            StoreError: the cube cannot be read.
        """
        side = 2 * _HALF_M / 2**zoom
        west, north = col * side - _HALF_M, _HALF_M - row * side
        bounds = (west, north - side, west + side, north)
        if _ground_m(bounds) >= GSD_10_M:
            style = replace(style, averaged=False)
        with self._locks[hash((style, bounds)) % _LOCKS]:
            stored = self._cached_read(style, bounds)
        colours, seen = self._colours(style.layer, stored, low, high)
        picture = ImageData(np.ma.MaskedArray(colours, mask=np.broadcast_to(~seen, colours.shape)))
        return bytes(picture.render(img_format="PNG", zlevel=1))

    def range_of(self, style: Style, degrees: Bounds, shares: tuple[float, float] = (2, 98)) -> tuple[float, float]:
        """The range that most numbers of a view lie in.

        Args:
            degrees: west, south, east, north of the view.
            shares: percentiles.

        Raises:
            NothingThereError: the cube has no data in the view.
            TooWideError: the view is too wide.
            StoreError: the cube cannot be read.
        """
        west, south, east, north = degrees
        if not (west < east and south < north):
            raise NothingThereError("the view has no extent; give west, south, east, north in degrees")
        shown = numbers(
            style.layer, self._physical(style.layer, self._read(style, (*_metres(west, south), *_metres(east, north))))
        )
        seen = shown[np.isfinite(shown)]
        if not seen.size:
            raise NothingThereError("the cube has no data in this view")
        low, high = np.percentile(seen, shares)
        return float(low), float(high)

    @property
    def zooms(self) -> tuple[int, int]:
        """The first zoom at which every tile can be made, and the last that shows more detail than the one before."""
        zones = self.cube.zones.values()
        coarsest, finest = min(zone.levels[-1].gsd_m for zone in zones), min(zone.levels[0].gsd_m for zone in zones)
        # Ground pixels are largest where the cube is nearest to the equator; a tile may reach slightly nearer.
        lat = min(0.0 if zone.extent[1] < 0 < zone.extent[3] else min(map(abs, zone.extent[1::2])) for zone in zones)
        side = [2 * _HALF_M / TILE_PX / 2**z * math.cos(math.radians(max(lat - 180 / 2**z, 0))) for z in ZOOMS]
        first = next(zoom for zoom in ZOOMS if side[zoom] <= coarsest * MOST_RATIO)
        last = next((zoom for zoom in ZOOMS if side[zoom] <= finest / 3), ZOOMS[-1])
        return first, last

    # -----------------------------------------------------------------------------------------------------------------
    # Reading
    # -----------------------------------------------------------------------------------------------------------------

    def _read(self, style: Style, bounds: Bounds) -> NDArray[Any]:
        """(bands, h, w) masked array of stored numbers within bounds of web Mercator in metres; the longer side has
        `TILE_PX` pixels."""
        west, south, east, north = bounds
        step = max(east - west, north - south) / TILE_PX
        shape = max(1, round((north - south) / step)), max(1, round((east - west) / step))
        home = utm_epsg(*_degrees((west + east) / 2, (south + north) / 2))
        zones = [
            (zone, turn)
            for zone in self.cube.zones_near(home)
            if style.period in zone.steps
            for turn in (_TURNS if zone.lattice.is_geographic else _TURNS[:1])
        ]
        read = partial(self._of_zone, style, bounds=bounds, shape=shape)
        try:
            with reading(self.cube.url):
                image, _ = mosaic_reader(zones, read, threads=0)
        except EmptyMosaicError:
            raise NothingThereError("the cube has no data there") from None
        return image.array

    def _of_zone(
        self, style: Style, zone_turned: tuple[MappedZone, int], *, bounds: Bounds, shape: tuple[int, int]
    ) -> ImageData:
        """The part of one zone.

        Args:
            zone_turned: it, and by how much its longitudes there exceed those of the map: some go on beyond 180°.

        Raises:
            TileOutsideBounds: the zone has no data there.
        """
        (zone, turn), ground_m = zone_turned, _ground_m(bounds)
        name, spectral = style.layer.variable, style.layer.variable.startswith("reflectance")
        fine = style.averaged and spectral and ground_m < GSD_10_M
        level = _level_of_10_m(zone) if fine else zone.level_for(ground_m)
        factor = pixels_of_10_m(level.gsd_m) if fine else 1
        west, south, east, north = transform_bounds(WEB_MERCATOR_CRS, zone.lattice.crs, *bounds)
        here = (west + turn, south, east + turn, north)
        window = level.window(here, factor) if np.isfinite(here).all() else None
        if window is None:
            raise TileOutsideBounds("outside the zone")
        part = level.data[[name]].isel(time=zone.steps[style.period], y=window[0], x=window[1])
        if style.layer.band_indices is not None:
            part = part.isel(band=style.layer.band_indices)
        part = part.load()
        if turn:
            part = part.assign_coords(x=("x", part.x.values - turn, part.x.attrs))
        if factor > 1:
            part = _block_means(part, name, factor, self.cube.fills[name])
        part = _within_globe(part, level.pixel * factor) if zone.lattice.is_geographic else part
        # Enlarged pixels keep sharp edges; labels have no mean.
        method = "average" if spectral and ground_m > level.gsd_m * factor else "nearest"
        options: Options = {"nodata": self.cube.fills[name]}
        with Reader(self.cube.url, name, opener=lambda *_, **__: part, options=options) as reader:
            try:
                return reader.part(
                    bounds, WEB_MERCATOR_CRS, WEB_MERCATOR_CRS, method, height=shape[0], width=shape[1]
                )  # fmt: skip
            except NoDataInBounds:
                raise TileOutsideBounds("outside the zone") from None

    # -----------------------------------------------------------------------------------------------------------------
    # Colours
    # -----------------------------------------------------------------------------------------------------------------

    def _colours(
        self, layer: Layer, stored: NDArray[Any], low: float, high: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(3, h, w) red, green, blue, and (h, w) where there is data."""
        if layer.kind == "labels":
            table = self._label_table(layer)
            value = np.minimum(np.ma.getdata(stored)[0].astype(np.intp), len(table) - 1)
            return table[value].transpose(2, 0, 1), ~np.ma.getmaskarray(stored)[0]
        shown = numbers(layer, self._physical(layer, stored))
        return coloured(shown, low, high, layer.colours), np.asarray(np.isfinite(shown).all(axis=0))

    def _physical(self, layer: Layer, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Stored numbers scaled to the variable's unit, NaN where there is no data."""
        values = np.ma.getdata(stored).astype(np.float32) * np.float32(self.cube.scales[layer.variable])
        return np.where(np.ma.getmaskarray(stored), np.float32(np.nan), values)

    def _label_table(self, layer: Layer) -> NDArray[np.uint8]:
        """(n, 3) colours by number; the last one is for numbers without a colour."""
        named = label_colours(layer, self.cube.flags, self.cube.scenes)
        table = np.full((max(named, default=0) + 2, 3), 136, np.uint8)
        table[list(named)] = rgb([label.colour for label in named.values()])
        return table


def _ground_m(bounds: Bounds) -> float:
    """Size on the ground, in metres, of a drawn pixel in the middle of bounds of web Mercator."""
    west, south, east, north = bounds
    return max(east - west, north - south) / TILE_PX / math.cosh((south + north) / 2 / _RADIUS_M)


def _level_of_10_m(zone: MappedZone) -> Level:
    """The 10 m level if there is one, or in other CRSs one nearly as fine, else the finest."""
    return next((level for level in zone.levels if abs(level.gsd_m / GSD_10_M - 1) < _ABOUT), zone.levels[0])


def _within_globe(part: xr.Dataset, side: float) -> xr.Dataset:
    """A part in degrees without what lies beyond ±180°, which rio-tiler refuses. Pixels that reach beyond are cut: all
    are divided into narrower ones first."""
    x = part.x.values
    if np.abs(x).max() + side / 2 <= 180.0:
        return part
    narrow = (x[:, None] + ((np.arange(_CUTS) + 0.5) / _CUTS - 0.5) * side).ravel()
    inside = np.flatnonzero(np.abs(narrow) <= 180.0)
    if inside.size < 2:
        raise TileOutsideBounds("outside the zone")
    return part.isel(x=inside // _CUTS).assign_coords(x=("x", narrow[inside], part.x.attrs))


def _block_means(part: xr.Dataset, name: str, factor: int, fill: int) -> xr.Dataset:
    """Means over blocks of the pixels with data, rounded to stored numbers."""
    array = part[name]
    mean = array.where(array != fill).coarsen(y=factor, x=factor, boundary="pad").mean()
    rounded = mean.round().fillna(fill).astype(array.dtype).assign_attrs(array.attrs)
    return rounded.to_dataset(name=name).assign_coords(spatial_ref=part.spatial_ref)


def _degrees(x: float, y: float) -> tuple[float, float]:
    """Longitude in ±180° and latitude from metres of web Mercator."""
    lon = math.degrees(x / _RADIUS_M)
    return (lon + 180) % 360 - 180, math.degrees(math.atan(math.sinh(y / _RADIUS_M)))


def _metres(lon: float, lat: float) -> tuple[float, float]:
    """Metres of web Mercator from degrees."""
    lat = math.radians(min(max(lat, -_MOST_LAT), _MOST_LAT))
    return math.radians(lon) * _RADIUS_M, math.asinh(math.tan(lat)) * _RADIUS_M
