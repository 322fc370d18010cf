"""Web Mercator tiles of a cube, across all its zones.

Every read is bounded: a tile is made from the coarsest level that is as fine as the tile, at most `MOST_RATIO` times
finer. That is 2048 pixels a side, or 81 chunks of 256 pixels; with a full pyramid half of that, 25 chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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
from difffusr.pipeline.readers.view.blocks import block_means, block_modes
from difffusr.pipeline.readers.view.kept import Kept
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

#: Longitudes of a cube exceed those of a map by one of these.
_TURNS: Final = (0, 360, -360)

#: Parts of a pixel that reaches beyond 180°: all but half of one part is drawn.
_CUTS: Final = 8

#: A level counts as one of 10 m if its pixels differ from that by less than this share.
_ABOUT: Final = 0.1

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
        averaged: brought to 10 m instead of full resolution: means of reflectance, the most frequent of labels.
    """

    layer: Layer
    period: str
    averaged: bool = False


class Tiles:
    """Makes the tiles of a cube."""

    def __init__(self, cube: MappedCube, kept: Kept) -> None:
        self.cube = cube
        self._kept = kept

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
        bounds = bounds_of(zoom, col, row)
        if ground_m(bounds) >= GSD_10_M:
            style = replace(style, averaged=False)
        stored = self._kept.get((style, bounds), lambda: self._read(style, bounds))
        with self._kept.turn():
            return picture_of(*self._colours(style.layer, stored, low, high))

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
        shown = numbers(style.layer, self._physical(style.layer, self._read_once(style, bounds_of_degrees(degrees))))
        seen = shown[np.isfinite(shown)]
        if not seen.size:
            raise NothingThereError("the cube has no data in this view")
        low, high = np.percentile(seen, shares)
        return float(low), float(high)

    def sources_in(self, period: str, degrees: Bounds) -> dict[int, float]:
        """Shares of a view's ground that are of each scene, by its number, the greatest first.

        Args:
            degrees: west, south, east, north of the view.

        Raises:
            NothingThereError: the cube has no data in the view.
            TooWideError: the view is too wide.
            StoreError: the cube cannot be read.
        """
        stored = self._read_once(Style(self.cube.layers["source"], period), bounds_of_degrees(degrees))
        found, counts = np.unique(stored[stored != self.cube.fills["source"]], return_counts=True)
        if not found.size:
            raise NothingThereError("the cube has no data in this view")
        order = np.argsort(-counts, kind="stable")
        return {int(found[at]): float(counts[at] / counts.sum()) for at in order}

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

    def _read_once(self, style: Style, bounds: Bounds) -> NDArray[Any]:
        """As `_read`, beside as many others as memory allows, and not kept."""
        with self._kept.turn():
            return self._read(style, bounds)

    def _read(self, style: Style, bounds: Bounds) -> NDArray[Any]:
        """(bands, h, w) stored numbers within bounds of web Mercator in metres, the fill value where there is no data;
        the longer side has `TILE_PX` pixels."""
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
        return np.ma.filled(image.array, self.cube.fills[style.layer.variable])

    def _of_zone(
        self, style: Style, zone_turned: tuple[MappedZone, int], *, bounds: Bounds, shape: tuple[int, int]
    ) -> ImageData:
        """The part of one zone.

        Args:
            zone_turned: it, and by how much its longitudes there exceed those of the map: some go on beyond 180°.

        Raises:
            TileOutsideBounds: the zone has no data there.
        """
        (zone, turn), drawn_m = zone_turned, ground_m(bounds)
        name, spectral = style.layer.variable, style.layer.variable.startswith("reflectance")
        level = _level_of(zone, style, drawn_m, spectral)
        factor = pixels_of_10_m(level.gsd_m) if style.averaged else 1
        west, south, east, north = transform_bounds(WEB_MERCATOR_CRS, zone.lattice.crs, *bounds)
        here = (west + turn, south, east + turn, north)
        window = level.window(here, factor) if np.isfinite(here).all() else None
        if window is None:
            raise TileOutsideBounds("outside the zone")
        part = level.read(name, zone.steps[style.period], window, style.layer.band_indices)
        if turn:
            part = part.assign_coords(x=("x", part.x.values - turn, part.x.attrs))
        if factor > 1:
            part = _blocks(part, name, factor, self.cube.fills[name], block_means if spectral else block_modes)
        part = _within_globe(part, level.pixel * factor) if zone.lattice.is_geographic else part
        # Enlarged pixels keep sharp edges; labels have no mean.
        method = "average" if spectral and drawn_m > level.gsd_m * factor else "nearest"
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
            value = np.minimum(stored[0], len(table) - 1)
            return table[value].transpose(2, 0, 1), stored[0] != self.cube.fills[layer.variable]
        shown = numbers(layer, self._physical(layer, stored))
        return coloured(shown, low, high, layer.colours), np.asarray(np.isfinite(shown).all(axis=0))

    def _physical(self, layer: Layer, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Stored numbers scaled to the variable's unit, NaN where there is no data."""
        values = stored.astype(np.float32) * np.float32(self.cube.scales[layer.variable])
        values[stored == self.cube.fills[layer.variable]] = np.nan
        return values

    def _label_table(self, layer: Layer) -> NDArray[np.uint8]:
        """(n, 3) colours by number; the last one is for numbers without a colour."""
        named = label_colours(layer, self.cube.flags, self.cube.scenes)
        table = np.full((max(named, default=0) + 2, 3), 136, np.uint8)
        table[list(named)] = rgb([label.colour for label in named.values()])
        return table


def bounds_of(zoom: int, col: int, row: int) -> Bounds:
    """Of an XYZ tile, in metres of web Mercator."""
    side = 2 * _HALF_M / 2**zoom
    west, north = col * side - _HALF_M, _HALF_M - row * side
    return west, north - side, west + side, north


def bounds_of_degrees(degrees: Bounds) -> Bounds:
    """In metres of web Mercator. Raises NothingThereError where there is nothing between them."""
    west, south, east, north = degrees
    if not (west < east and south < north):
        raise NothingThereError("the view has no extent; give west, south, east, north in degrees")
    return *_metres(west, south), *_metres(east, north)


def ground_m(bounds: Bounds) -> float:
    """Size on the ground, in metres, of a drawn pixel in the middle of bounds of web Mercator."""
    west, south, east, north = bounds
    return max(east - west, north - south) / TILE_PX / math.cosh((south + north) / 2 / _RADIUS_M)


def picture_of(colours: NDArray[np.uint8], seen: NDArray[np.bool_]) -> bytes:
    """PNG of (3, h, w) red, green, blue; transparent where (h, w) `seen` is false."""
    picture = ImageData(np.ma.MaskedArray(colours, mask=np.broadcast_to(~seen, colours.shape)))
    return bytes(picture.render(img_format="PNG", zlevel=1))


def _level_of(zone: MappedZone, style: Style, drawn_m: float, spectral: bool) -> Level:
    """The level to read. What is brought to 10 m is made of the level of 10 m if there is one, or in other CRSs one
    nearly as fine; labels of the finest: overviews hold the most frequent of the most frequent."""
    if not style.averaged:
        return zone.level_for(drawn_m)
    near = (level for level in zone.levels if spectral and abs(level.gsd_m / GSD_10_M - 1) < _ABOUT)
    return next(near, zone.levels[0])


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


def _blocks(part: xr.Dataset, name: str, factor: int, fill: int, brought: Callable[..., NDArray[Any]]) -> xr.Dataset:
    """A part with pixels `factor` times larger along each side."""
    array = part[name]
    values = brought(array.values, factor, fill)
    middles = {
        axis: (axis, _middles(array[axis].values, factor, size), array[axis].attrs)
        for axis, size in zip(("y", "x"), values.shape[-2:], strict=True)
    }
    data = xr.DataArray(values, middles, array.dims, attrs=array.attrs)
    return data.to_dataset(name=name).assign_coords(spatial_ref=part.spatial_ref)


def _middles(of_pixels: NDArray[np.float64], factor: int, size: int) -> NDArray[np.float64]:
    """Of `size` blocks of pixels, the last of which may be cut."""
    step = (of_pixels[-1] - of_pixels[0]) / max(of_pixels.size - 1, 1)
    middles: NDArray[np.float64] = of_pixels[0] + step * ((factor - 1) / 2 + factor * np.arange(size))
    return middles


def _degrees(x: float, y: float) -> tuple[float, float]:
    """Longitude in ±180° and latitude from metres of web Mercator."""
    lon = math.degrees(x / _RADIUS_M)
    return (lon + 180) % 360 - 180, math.degrees(math.atan(math.sinh(y / _RADIUS_M)))


def _metres(lon: float, lat: float) -> tuple[float, float]:
    """Metres of web Mercator from degrees."""
    lat = math.radians(min(max(lat, -_MOST_LAT), _MOST_LAT))
    return math.radians(lon) * _RADIUS_M, math.asinh(math.tan(lat)) * _RADIUS_M
