"""The part of the globe that a picture shows, and how degrees map to its pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo import Grid, territory
from difffusr.pipeline.plan.tables import Chips, iterate_zones

#: Pixels between nodes at which the projection is computed; between them it is interpolated.
NODE_PX: Final = 16


@dataclass(frozen=True)
class Frame:
    """What the map shows, and how large.

    Attributes:
        lon, lat: the middle in degrees.
        scale: pixels a degree of latitude; times cos(lat) of longitude.
        width, height: in pixels.
    """

    lon: float
    lat: float
    scale: float
    width: int
    height: int

    @classmethod
    def around(cls, chips: Chips, grid: Grid, area: BaseGeometry | None, width: int, heights: Sequence[int]) -> Frame:
        """The frame of this width that holds all chips and the area; its height lies between two limits, in pixels."""
        places = [zone_edge(chips, part, grid, epsg) for epsg, part in iterate_zones(chips)]
        if area is not None and not area.is_empty:
            places.append(shapely.get_coordinates(shapely.segmentize(area, 1.0)))
        every = np.concatenate(places)
        lon, lat = _middle(every[:, 0]), float(every[:, 1].min() + every[:, 1].max()) / 2
        squeeze = math.cos(math.radians(lat))
        east = np.ptp(unrolled(every[:, 0], lon)) * squeeze * 1.1
        north = np.ptp(every[:, 1]) * 1.1
        height = int(np.clip(width * north / max(east, 1e-6), heights[0], heights[-1]))
        return cls(lon, lat, min(width / max(east, 1e-6), height / max(north, 1e-6)), width, height)

    @property
    def squeeze(self) -> float:
        """Length of a degree of longitude over one of latitude, in the middle."""
        return math.cos(math.radians(self.lat))

    def scaled(self, width: int) -> Frame:
        """The same ground at another width."""
        share = width / self.width
        return Frame(self.lon, self.lat, self.scale * share, width, round(self.height * share))

    def pixels(self, lon: NDArray[np.floating], lat: NDArray[np.floating]) -> NDArray[np.float64]:
        """(…, 2) x and y in pixels from the top left corner; longitudes may be given in any turn (±360°)."""
        return self.flat(unrolled(lon, self.lon), np.asarray(lat))

    def degrees(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray[np.float64], ...]:
        """Longitude and latitude of positions in pixels; the longitude may lie beyond ±180°."""
        lon = self.lon + (np.asarray(x) - self.width / 2) / (self.scale * self.squeeze)
        return lon, self.lat - (np.asarray(y) - self.height / 2) / self.scale

    def rings(self, shape: BaseGeometry) -> Iterator[NDArray[np.float64]]:
        """(k, 2) in pixels: the lines and outlines of a shape in EPSG:4326, all in one turn."""
        parts = [turned(part, self.lon) for part in shapely.get_parts(shape)]
        whole = shapely.union_all(parts)
        for part in shapely.get_parts(whole):
            lines = [part] if part.geom_type == "LineString" else shapely.get_rings(part)
            for line in lines:
                lon, lat = shapely.get_coordinates(line).T
                yield self.flat(lon, lat)

    def zone_borders(self, zones: Sequence[int]) -> Iterator[NDArray[np.float64]]:
        """(k, 2) in pixels: the lines along which two of the zones meet."""
        territories = [turned(territory(epsg), self.lon) for epsg in zones]
        for one, other in combinations(territories, 2):
            border = shapely.intersection(one, other)
            for line in shapely.get_parts(shapely.line_merge(border)):
                if line.geom_type == "LineString":
                    lon, lat = shapely.get_coordinates(line).T
                    yield self.flat(lon, lat)

    def flat(self, lon: NDArray[np.floating], lat: NDArray[np.floating]) -> NDArray[np.float64]:
        """(…, 2) x and y in pixels; longitudes must be in the frame's turn."""
        x = self.width / 2 + (lon - self.lon) * self.scale * self.squeeze
        return np.stack([x, self.height / 2 - (lat - self.lat) * self.scale], axis=-1)


def unrolled(lon: NDArray[np.floating], middle: float) -> NDArray[np.float64]:
    """Longitudes moved by whole turns to within 180° of a middle."""
    return np.asarray((np.asarray(lon, np.float64) - middle + 180.0) % 360.0 - 180.0 + middle)


def turned(shape: BaseGeometry, middle: float) -> BaseGeometry:
    """A shape moved by whole turns (360°) to the one nearest to a middle."""
    west, _, east, _ = shape.bounds
    turn = 360.0 * round((middle - (west + east) / 2) / 360.0)
    return shapely.transform(shape, lambda x, y: (x + turn, y), interleaved=False)


def _middle(lon: NDArray[np.float64]) -> float:
    """The longitude opposite the widest gap."""
    around = np.unique(lon % 360.0)
    gaps = np.diff(around, append=around[0] + 360.0)
    widest = int(np.argmax(gaps))
    middle = around[widest] + gaps[widest] / 2 + 180.0
    return float((middle + 180.0) % 360.0 - 180.0)


def zone_edge(chips: Chips, part: slice, grid: Grid, epsg: int) -> NDArray[np.float64]:
    """(k, 2) longitude and latitude of the corners of the first and last chip of every row of a zone."""
    rows, cols = chips.row[part].astype(np.int64), chips.col[part].astype(np.int64)
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 1))
    ends = np.append(starts[1:], len(rows)) - 1
    which = np.unique(np.concatenate([starts, ends]))
    left, bottom, right, top = grid.chip_cores_m(epsg, rows[which], cols[which]).T
    x, y = np.concatenate([left, right, right, left]), np.concatenate([top, top, bottom, bottom])
    return np.stack(_to_geographic(epsg).transform(x, y), axis=-1)


@lru_cache(maxsize=256)
def _to_geographic(epsg: int) -> Transformer:
    return Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326", always_xy=True)


def zone_name(epsg: int) -> str:
    """UTM 32N and the like."""
    return f"UTM {epsg % 100}{'N' if epsg < 32700 else 'S'}"
