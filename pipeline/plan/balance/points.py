"""Points on the globe at which scenes are compared: the same ones for every scene, whatever its zone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

#: Metres of a degree of latitude on the sphere that the points are laid out on; only their spacing depends on it.
_DEGREE_M = 111_320.0


@dataclass(frozen=True, eq=False)
class Points:
    """Points within the extent of a scene.

    Attributes:
        number: (n,) int64, ascending: the same point has the same number in every scene.
        x, y: (n,) metres of the scene's CRS.
    """

    number: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def points_within(bounds: tuple[float, float, float, float], epsg: int, spacing_m: float) -> Points:
    """The points of a net over the globe that lie within west, south, east, north in metres of a UTM zone.

    Rows are parallels `spacing_m` apart; on each the points are as far apart, from 180° W on.
    """
    west, south, east, north = bounds
    edge = np.linspace(0, 1, 9)
    to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
    # Zones 326xx and 327xx: longitudes relative to the central meridian know nothing of 180°.
    centre = (epsg % 100) * 6.0 - 183.0
    x = np.concatenate([west + edge * (east - west)] * 2 + [np.full(9, west), np.full(9, east)])
    y = np.concatenate([np.full(9, south), np.full(9, north), *[south + edge * (north - south)] * 2])
    longitude, latitude = to_degrees.transform(x, y)
    beside = (longitude - centre + 180) % 360 - 180
    down = spacing_m / _DEGREE_M
    rows = np.arange(np.floor((90 - latitude.max()) / down), np.ceil((90 - latitude.min()) / down), dtype=np.int64)
    parallel = 90 - (rows + 0.5) * down
    in_row = np.maximum(np.floor(360 * np.cos(np.radians(parallel)) / down), 1).astype(np.int64)
    across = 360 / in_row
    first = np.floor((centre + beside.min() + 180) / across).astype(np.int64)
    count = np.ceil((centre + beside.max() + 180) / across).astype(np.int64) - first
    row = np.repeat(np.arange(len(rows)), count)
    column = np.repeat(first, count) + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    degrees = (column + 0.5) * across[row] - 180
    to_zone = Transformer.from_crs(4326, epsg, always_xy=True)
    px, py = to_zone.transform((degrees + 180) % 360 - 180, parallel[row])
    inside = (px >= west) & (px < east) & (py > south) & (py <= north)
    number = (rows[row] << 32) + column % in_row[row]
    order = np.argsort(number[inside])
    return Points(number[inside][order], px[inside][order], py[inside][order])
