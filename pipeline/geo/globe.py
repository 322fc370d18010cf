"""Shapes on the globe: MGRS tiles, footprints and boxes, cut at 180°."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.config import TILE_COLUMNS
from difffusr.pipeline.geo.wrapping import polygons_in, union_of, unrolled, wrapped
from difffusr.pipeline.ground.errors import CatalogError


def tile_footprint(tile: str) -> BaseGeometry:
    """The 109.8 km square of an MGRS tile ("48QUE") in EPSG:4326, with a margin of 60 m, cut at 180°.

    The 100 km square follows from the letters (NGA.STND.0037): columns repeat every three zones, rows every 2000 km
    and start at F in even zones; the latitude band says which repetition. Raises CatalogError for a column that the
    zone does not have.
    """
    zone, latitude_band, column, row = int(tile[:2]), tile[2], tile[3], tile[4]
    columns = TILE_COLUMNS[zone % 3]
    rows = "ABCDEFGHJKLMNPQRSTUV"
    if column not in columns:
        raise CatalogError(f"tile {tile}: zone {zone} has no column {column}, only {columns}")
    east_m = 100_000 * (columns.index(column) + 1)
    row_m = 100_000 * ((rows.index(row) - (5 if zone % 2 == 0 else 0)) % 20)
    middle = -76 + 8 * "CDEFGHJKLMNPQRSTUVWX".index(latitude_band)
    to_degrees = pyproj.Transformer.from_crs(tile_epsg(tile), "OGC:CRS84", always_xy=True)
    repetitions = [row_m + 2_000_000 * k for k in range(5)]
    latitudes = [to_degrees.transform(500_000, north_m + 50_000)[1] for north_m in repetitions]
    north_m = min(zip(latitudes, repetitions, strict=True), key=lambda pair: abs(pair[0] - middle))[1]
    square = box(east_m - 60, north_m - 9_860, east_m + 109_860, north_m + 100_100)
    return cut_at_180(shapely.transform(shapely.segmentize(square, 10_000), to_degrees.transform, interleaved=False))


def tile_epsg(tile: str) -> int:
    """EPSG code of the UTM zone of an MGRS tile."""
    return (32600 if tile[2] >= "N" else 32700) + int(tile[:2])


def cut_at_180(geometry: BaseGeometry) -> BaseGeometry:
    """Polygons with edges over 180°, or drawn beyond ±180, as valid parts on either side with longitudes within ±180.

    Every edge goes the short way round, so 179° to −179°, 179° to 181° and 539° to 541° are the same. Other geometries
    come back as they are. The package antimeridian does the same for shapes drawn well; of those that touch 180° or
    cross themselves, as footprints do, it makes invalid shapes or errors.
    """
    parts = list(polygons_in(geometry))
    west, _, east, _ = shapely.bounds(parts).reshape(-1, 4).T
    if ((west >= -180) & (east <= 180) & (east - west <= 180)).all():
        return geometry
    return union_of([wrapped(shapely.make_valid(unrolled(polygon))) for polygon in parts])


def in_degrees(bounds_m: NDArray[np.float64], epsg: NDArray[np.int32]) -> NDArray[np.object_]:
    """Boxes in metres of their zones as polygons in longitude and latitude, cut at 180° where they cross it.

    Args:
        bounds_m: (n, 4) left, bottom, right, top.
        epsg: (n,) zone of each box.
    """
    left, bottom, right, top = bounds_m.T
    x = np.stack([left, left, right, right, left], axis=1)
    y = np.stack([top, bottom, bottom, top, top], axis=1)
    corners = np.empty((len(bounds_m), 5, 2))
    for zone in np.unique(epsg):
        here = epsg == zone
        lon, lat = _to_geographic(int(zone)).transform(x[here], y[here])
        corners[here] = np.stack([lon, lat], axis=-1)
    shapes: NDArray[np.object_] = shapely.polygons(corners)
    for i in np.flatnonzero(np.ptp(corners[:, :, 0], axis=1) > 180):
        shapes[i] = cut_at_180(shapes[i])
    return shapes


@lru_cache(maxsize=256)
def _to_geographic(epsg: int) -> Transformer:
    return Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326", always_xy=True)
