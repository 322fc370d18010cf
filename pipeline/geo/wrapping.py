"""Polygons in degrees that run past ±180°: followed along their edges, cut there, and put together."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

#: All longitudes and latitudes.
WORLD = box(-180, -90, 180, 90)


def polygons_in(geometry: BaseGeometry) -> Iterator[Polygon]:
    """The polygons in a geometry of any type, without heights."""
    if hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from polygons_in(part)
    elif geometry.geom_type == "Polygon" and not geometry.is_empty:
        yield shapely.force_2d(geometry)


def union_of(geometries: list[BaseGeometry]) -> BaseGeometry:
    """The union as a valid polygon or multipolygon; lines and points are dropped."""
    whole = shapely.union_all([polygon for geometry in geometries for polygon in polygons_in(geometry)])
    parts = [polygon for polygon in polygons_in(shapely.make_valid(whole)) if polygon.area > 0]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def turned(geometry: BaseGeometry, turns: int) -> BaseGeometry:
    """A geometry in degrees moved by whole turns of the globe."""
    return shapely.transform(geometry, lambda lon, lat: (lon + 360 * turns, lat), interleaved=False)


def wrapped(geometry: BaseGeometry) -> BaseGeometry:
    """A valid geometry with longitudes beyond ±180°, cut there and moved into that range."""
    west, _, east, _ = geometry.bounds
    pieces = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east - 180) / 360) + 1):
        piece = geometry.intersection(turned(WORLD, turn))
        pieces.append(turned(piece, -turn))
    return union_of(pieces)


def unrolled(polygon: Polygon) -> Polygon:
    """A polygon whose edges go the short way round the globe, with longitudes that continue past ±180°.

    179° to −179° is two degrees, as are 179° to 181° and −181° to −179°. Holes lie in their outline.
    """
    outline = _followed(shapely.get_coordinates(polygon.exterior), 0.0)
    middle = float(outline[:, 0].mean())
    return Polygon(outline, [_followed(shapely.get_coordinates(ring), middle) for ring in polygon.interiors])


def _followed(ring: NDArray[np.float64], near: float) -> NDArray[np.float64]:
    """(n, 2) a ring that starts within half a turn of a longitude, each point within half a turn of the one before."""
    ring = ring.copy()
    lon = ring[:, 0]
    turns = np.round(np.diff(lon) / 360)
    lon[1:] -= 360 * np.cumsum(turns)
    lon -= 360 * np.round((lon[0] - near) / 360)
    return ring
