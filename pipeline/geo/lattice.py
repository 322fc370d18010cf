"""The pixels of a group of a cube: a CRS, how large they are, and from where they are counted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.geo.grid import PixelWindow, origin_m
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import first_line

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Metres along a degree of the equator, for a rough idea of how large pixels of degrees are.
_DEGREE_M = 111_320.0

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
def _known(crs: str) -> CRS:
    return CRS.from_user_input(crs)
