"""What a cube holds under a point, read with zarr alone, pixel by pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pyproj import Transformer

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import utm_epsg
from difffusr.pipeline.storage import Storage


@dataclass(frozen=True)
class Pixel:
    """Stored numbers under a point: of all bands, and the labels; the zone is 0 where no zone has data."""

    zone: int
    reflectance: NDArray[np.uint16]
    quality: int
    source: int


class ByHand:
    """A cube's arrays, whole in memory."""

    def __init__(self, storage: Storage) -> None:
        self.cube = Cube(storage)
        self.arrays: dict[tuple[int, str], Any] = {}
        for zone in self.cube.zones:
            for name in ("reflectance", "quality", "source"):
                array = self.cube.array(zone, name)
                assert isinstance(array, zarr.Array)
                self.arrays[zone, name] = np.asarray(array[:])

    def of_zone(self, zone: int, lon: float, lat: float, label: str) -> Pixel | None:
        """The pixel of a zone that holds a point; None where it has none, or no data."""
        found = self.cube.periods(zone).get(label)
        if found is None:
            return None
        lattice, window = self.cube.lattice(zone), self.cube.window(zone)
        x, y = Transformer.from_crs("EPSG:4326", lattice.crs, always_xy=True).transform(lon, lat)
        if lattice.is_geographic and x < lattice.west:
            x += 360
        if not (math.isfinite(x) and math.isfinite(y)):
            return None
        row, col = math.floor((lattice.origin - y) / lattice.pixel), math.floor(x / lattice.pixel)
        row, col = row - window.row, col - window.col
        if not (0 <= row < window.height and 0 <= col < window.width):
            return None
        quality = int(self.arrays[zone, "quality"][found[0], row, col])
        source = int(self.arrays[zone, "source"][found[0], row, col])
        return (
            Pixel(zone, self.arrays[zone, "reflectance"][found[0], :, row, col], quality, source) if quality else None
        )

    def at(self, lon: float, lat: float, label: str) -> Pixel:
        """From the point's own zone, where that has data; else from the one whose middle is nearest."""
        lon = (lon + 180) % 360 - 180
        own = utm_epsg(lon, lat)
        order = sorted(self.cube.zones, key=lambda zone: (zone != own, _away(zone, lon, lat)))
        for zone in order:
            pixel = self.of_zone(zone, lon, lat, label)
            if pixel is not None:
                return pixel
        return Pixel(0, np.zeros(12, np.uint16), 0, 0)


def _away(zone: int, lon: float, lat: float) -> float:
    apart = abs((lon - (6 * (zone % 100) - 183) + 180) % 360 - 180)
    return apart + 12 * ((lat >= 0) != (zone // 100 == 326))
