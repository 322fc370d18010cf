"""The pixels of a group of a cube: a CRS, how large they are, and from where they are counted."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.geo.area import sheet_in_degrees
from difffusr.pipeline.geo.grid import PixelWindow, origin_m
from difffusr.pipeline.geo.wrapping import polygons_in, wrapped
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import first_line

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Metres along a degree of the equator, for a rough idea of how large pixels of degrees are.
_DEGREE_M = 111_320.0

#: Pieces along a side of a window from which its area is added up, or in which its ground is looked for.
_PIECES = 48

#: Longest edge in degrees of what is brought into a CRS, and how far around a window an area is cut first.
_STEP_DEG, _NEAR_DEG = 0.05, 0.01

_TURNS = (-360.0, 0.0, 360.0)

#: Numbers of CRSs that no authority has a number for begin here; EPSG's and Esri's are smaller.
_OWN_NUMBERS = 1_000_000


@dataclass(frozen=True)
class Lattice:
    """Square pixels of a CRS: columns counted eastwards from x = 0, rows southwards from an origin, so that a pixel has
    the same row and column in every run.

    Attributes:
        crs: as pyproj understands it: "EPSG:3035", or WKT.
        pixel: side of a pixel in the CRS's units: metres, degrees.
        origin: y of the upper edge of row 0.
        west: smallest longitude where x is one: from there it counts on, beyond 180° too.
    """

    crs: str
    pixel: float = TARGET_GSD_M
    origin: float = 0.0
    west: float = -180.0

    @classmethod
    def of_zone(cls, epsg: int) -> Lattice:
        """The 2.5 m pixels of a UTM zone, counted from the equator."""
        return cls(f"EPSG:{epsg}", TARGET_GSD_M, float(origin_m(epsg)))

    @classmethod
    def asked_for(cls, crs: str, pixel: float | None) -> Lattice:
        """Pixels of a CRS that somebody asks for.

        Args:
            pixel: their side in its units; None for about 2.5 m.

        Raises:
            ConfigError: it is no CRS, or not one that maps the ground to a plane.
        """
        try:
            known = CRS.from_user_input(crs)
        except CRSError as error:
            raise ConfigError(f"crs: found {crs!r}, expected a CRS such as EPSG:3035 ({first_line(error)})") from None
        if known.is_compound:
            known = known.sub_crs_list[0]
        if not (known.is_projected or known.is_geographic) or len(known.axis_info) != 2:
            raise ConfigError(
                f"crs: found {crs!r}, {known.name}, expected one with two axes on the ground: projected or geographic"
            )
        authority = known.to_authority(min_confidence=100)
        lattice = cls(known.to_wkt() if authority is None else ":".join(authority))
        size = lattice.units_of(TARGET_GSD_M) if pixel is None else pixel
        if not 0.01 <= size * lattice.unit_m <= 100_000:
            unit = "degrees" if known.is_geographic else known.axis_info[0].unit_name + "s"
            raise ConfigError(
                f"resolution: found {size:g}, expected a pixel's side in {unit}, such as {lattice.units_of(2.5):g}"
            )
        return cls(lattice.crs, size)

    @cached_property
    def known(self) -> CRS:
        """The CRS."""
        return _known(self.crs)

    @property
    def is_geographic(self) -> bool:
        """Whether x and y are degrees."""
        return bool(self.known.is_geographic)

    def unrolled(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Longitudes from `west` on; other coordinates as they are."""
        return self.west + (x - self.west) % 360.0 if self.is_geographic else x

    @property
    def number(self) -> int:
        """What groups and ledgers name it by: the number that EPSG or Esri has given to the CRS, or one of its own."""
        authority, _, code = self.crs.partition(":")
        if authority in ("EPSG", "ESRI") and code.isdigit():
            return int(code)
        return _OWN_NUMBERS + int(hashlib.sha256(self.crs.encode()).hexdigest()[:7], 16)

    @property
    def code(self) -> str | None:
        """The CRS as an authority has numbered it, such as EPSG:3035; None if it is known by its WKT alone."""
        return self.crs if self.number < _OWN_NUMBERS else None

    @property
    def name(self) -> str:
        """What people and files call the CRS: EPSG:3035, or crs- and its own number."""
        return self.code or f"crs-{self.number}"

    @property
    def unit_m(self) -> float:
        """Metres of a unit, those of a degree at the equator."""
        factor = float(self.known.axis_info[0].unit_conversion_factor)
        return _DEGREE_M if self.is_geographic else factor or 1.0

    def units_of(self, metres: float) -> float:
        """So many metres in the CRS's units, roughly; exactly where these are metres or feet."""
        return round(metres / self.unit_m, 9) if self.is_geographic else metres / self.unit_m

    def bounds(self, window: PixelWindow) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of a window in the CRS's units."""
        return (
            window.col * self.pixel,
            self.origin - window.row_stop * self.pixel,
            window.col_stop * self.pixel,
            self.origin - window.row * self.pixel,
        )

    def box(self, window: PixelWindow) -> BaseGeometry:
        """A window as a polygon in the CRS's units."""
        return shapely.box(*self.bounds(window))

    def degrees(self, x: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitudes and latitudes of places in the CRS's units; infinite where it shows no ground."""
        lon, lat = _to_degrees(self.crs).transform(x, y)
        return np.asarray(lon), np.asarray(lat)

    def shape_in_degrees(self, ground: BaseGeometry) -> BaseGeometry:
        """A shape in the CRS's units as polygons in EPSG:4326, cut at 180°, without what lies off the globe."""
        if self.is_geographic:
            south_to_north = shapely.box(-720.0, -90.0, 720.0, 90.0)
            ground = shapely.intersection(ground, south_to_north)
            return wrapped(shapely.transform(ground, self._geographic, interleaved=False))
        try:
            return sheet_in_degrees(ground, self.known)
        except ConfigError:  # a corner lies beyond the globe, as of a map that is an ellipse
            west, south, east, north = ground.bounds
            x, y = (np.linspace(low, high, _PIECES + 1) for low, high in ((west, east), (south, north)))
            right, top = np.meshgrid(x, y)
            seen = np.asarray(np.isfinite(self.degrees(right, top)).all(axis=0))
            whole = seen[:-1, :-1] & seen[1:, :-1] & seen[:-1, 1:] & seen[1:, 1:]
            rows, cols = np.nonzero(whole)
            pieces = shapely.box(x[cols], y[rows], x[cols + 1], y[rows + 1])
            here = shapely.union_all(pieces).intersection(ground)
            return here if here.is_empty else sheet_in_degrees(here, self.known)

    def _geographic(self, x: Any, y: Any) -> tuple[Any, Any]:
        """As `degrees`, of its own longitudes, which stay within half a turn: 183° is not −177°."""
        lon, lat = self.degrees(x, y)
        return x + (lon - x + 180.0) % 360.0 - 180.0, lat

    def part_of(self, window: PixelWindow, area: BaseGeometry) -> PixelWindow | None:
        """The smallest window around the part of an area that lies in a window; None if there is none.

        Args:
            area: in EPSG:4326, cut at 180°.
        """
        near = shapely.buffer(self.shape_in_degrees(self.box(window)), _NEAR_DEG)
        here = shapely.segmentize(area.intersection(near), _STEP_DEG)
        lon, lat = shapely.get_coordinates(here).T
        x, y = _to_degrees(self.crs).transform(lon, lat, direction="INVERSE")
        if self.is_geographic:
            turns = [shapely.transform(here, lambda x, y, t=turn: (x + t, y), interleaved=False) for turn in _TURNS]
            kept = [turned.intersection(shapely.box(self.west, -90, self.west + 360, 90)) for turned in turns]
            # What only touches an edge of that is a line.
            x, y = shapely.get_coordinates([polygon for turned in kept for polygon in polygons_in(turned)]).T
        seen = np.isfinite(x) & np.isfinite(y)
        if not seen.any():
            return None
        cols = x[seen] / self.pixel
        rows = (self.origin - y[seen]) / self.pixel
        # Less than a thousandth of a pixel is rounding error.
        row, col = (max(math.floor(v.min() + 1e-3), low) for v, low in ((rows, window.row), (cols, window.col)))
        bottom = min(math.ceil(rows.max() - 1e-3), window.row_stop)
        right = min(math.ceil(cols.max() - 1e-3), window.col_stop)
        return PixelWindow(row, col, bottom - row, right - col) if row < bottom and col < right else None

    def ground_m(self, window: PixelWindow) -> float:
        """Longer side in metres, on the ground, of the pixel in the middle of a window. Projections that keep lengths
        to a twentieth count as if they kept them."""
        left, bottom, right, top = self.bounds(window)
        east, north, _ = self._measured(np.array((left + right) / 2), np.array((bottom + top) / 2))
        longer, told = float(np.maximum(east, north)), self.pixel * self.unit_m
        if not math.isfinite(longer) or (not self.is_geographic and abs(longer / told - 1) < 0.05):
            return told
        rough, close = float(f"{longer:.2g}"), float(f"{longer:.3g}")
        return rough if abs(rough / longer - 1) < 0.01 else close

    def area_m2(self, window: PixelWindow) -> float:
        """Ground that a window shows, on the ellipsoid, from a coarse grid of places."""
        left, bottom, right, top = self.bounds(window)
        along = (np.arange(_PIECES) + 0.5) / _PIECES
        x, y = np.meshgrid(left + (right - left) * along, bottom + (top - bottom) * along)
        _, _, of_pixel = self._measured(x, y)
        return float(of_pixel[np.isfinite(of_pixel)].sum()) * window.height * window.width / _PIECES**2

    def _measured(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Sides in metres of pixels around some places, eastwards and northwards, and their area in square metres."""
        half, geod = self.pixel / 2, Geod(ellps="WGS84")
        turn, _, east = geod.inv(*self.degrees(x - half, y), *self.degrees(x + half, y))
        other, _, north = geod.inv(*self.degrees(x, y - half), *self.degrees(x, y + half))
        return np.asarray(east), np.asarray(north), east * north * np.abs(np.sin(np.radians(np.subtract(turn, other))))

    def centres(
        self, window: PixelWindow, rows: NDArray[Any], cols: NDArray[Any]
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
        """x of the centres of some columns of a window, and y of those of some rows, counted from its upper left
        corner."""
        return (window.col + cols + 0.5) * self.pixel, self.origin - (window.row + rows + 0.5) * self.pixel

    def geobox(self, window: PixelWindow, level: int = 0) -> GeoBox:
        """A window as an odc-geo GeoBox, in pixels of a level: 0 for its own, each further one twice as wide. A window
        that they do not divide is filled up to the right and below."""
        from affine import Affine
        from odc.geo.geobox import GeoBox  # here, because it brings dask, which readers of chips do not need

        left, _, _, top = self.bounds(window)
        size = self.pixel * 2**level
        shape = (-(-window.height >> level), -(-window.width >> level))
        return GeoBox(shape, Affine(size, 0, left, 0, -size, top), self.crs)


@lru_cache(maxsize=256)
def _to_degrees(crs: str) -> Transformer:
    return Transformer.from_crs(_known(crs), "EPSG:4326", always_xy=True)


@lru_cache(maxsize=256)
def _known(crs: str) -> CRS:
    return CRS.from_user_input(crs)
