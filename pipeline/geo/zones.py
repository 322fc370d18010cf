"""UTM zones: the territory of each, and areas in metres of a zone."""

from __future__ import annotations

import math
from functools import lru_cache

import shapely
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry


@lru_cache(maxsize=256)
def _to_zone(epsg: int) -> Transformer:
    return Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)


def to_zone(area: BaseGeometry, epsg: int, max_step_deg: float = 0.05) -> BaseGeometry:
    """An area in longitude and latitude → metres of a UTM zone. Edges are densified first, so that they bend."""
    transformer = _to_zone(epsg)
    dense = shapely.segmentize(area, max_step_deg)
    return shapely.make_valid(shapely.transform(dense, transformer.transform, interleaved=False))


def utm_epsg(lon: float, lat: float) -> int:
    """EPSG code of the UTM zone of a position in degrees, as in MGRS (with the wider zones of Norway and Svalbard)."""
    zone = min(int((lon + 180.0) % 360.0 // 6.0) + 1, 60)
    if 56.0 <= lat < 64.0 and 3.0 <= lon < 12.0:
        zone = 32
    if 72.0 <= lat < 84.0 and 0.0 <= lon < 42.0:
        zone = 31 if lon < 9.0 else 33 if lon < 21.0 else 35 if lon < 33.0 else 37
    return (32600 if lat >= 0.0 else 32700) + zone


def territory(epsg: int) -> BaseGeometry:
    """The territory of a UTM zone in EPSG:4326: its strip of one hemisphere, as in MGRS.

    The territories of the 120 zones tile the globe from 80° S to 84° N (NGA.STND.0037: zone 32 is wider at Norway,
    and at Svalbard four zones replace seven). Empty for a code that is not a zone.
    """
    north, zone = divmod(epsg, 100) if epsg // 100 in (326, 327) else (0, 0)
    if not 1 <= zone <= 60:
        return shapely.Polygon()
    west = -180.0 + 6.0 * (zone - 1)
    if north == 327:
        return shapely.box(west, -80.0, west + 6.0, 0.0)
    parts = [shapely.box(west, 0.0, west + 6.0, 56.0), shapely.box(west, 64.0, west + 6.0, 72.0)]
    left, right = {31: (0.0, 3.0), 32: (3.0, 12.0)}.get(zone, (west, west + 6.0))
    parts.append(shapely.box(left, 56.0, right, 64.0))
    svalbard = {31: (0.0, 9.0), 33: (9.0, 21.0), 35: (21.0, 33.0), 37: (33.0, 42.0)}
    if zone not in (32, 34, 36):
        left, right = svalbard.get(zone, (west, west + 6.0))
        parts.append(shapely.box(left, 72.0, right, 84.0))
    return shapely.union_all(parts)


def zones_over(area: BaseGeometry) -> list[int]:
    """EPSG codes of the zones whose territory overlaps an area in EPSG:4326, ascending."""
    shapely.prepare(area)
    codes = [code + zone for code in (32600, 32700) for zone in range(1, 61)]
    return [epsg for epsg in codes if area.intersects(territory(epsg)) and not area.touches(territory(epsg))]


def near_zone(area: BaseGeometry, epsg: int, collar_m: float) -> BaseGeometry:
    """The part of an area (EPSG:4326) that lies in a zone's territory or within `collar_m` of it, in metres of the
    zone. The parts of two neighbouring zones overlap by twice the collar: enough to blend them."""
    west, south, east, north = territory(epsg).bounds
    # At most a zone wide: beyond that the projection is not valid.
    margin_lat = 2.0 * collar_m / 111_000
    margin_lon = min(margin_lat / math.cos(math.radians(min(max(abs(south), abs(north)) + margin_lat, 89.0))), 6.0)
    around = (west - margin_lon, max(south - margin_lat, -90.0), east + margin_lon, min(north + margin_lat, 90.0))
    # The collar of a zone at 180° continues on the other side.
    turns = [shapely.transform(area, lambda x, y, turn=turn: (x + turn, y), interleaved=False) for turn in (-360, 360)]
    near = shapely.union_all([_clip(part, around) for part in (area, *turns)])
    if near.is_empty:
        return near
    own = shapely.buffer(to_zone(territory(epsg), epsg), collar_m)
    return to_zone(near, epsg).intersection(own)


def _clip(area: BaseGeometry, bounds: tuple[float, float, float, float]) -> BaseGeometry:
    west, south, east, north = area.bounds
    if west >= bounds[2] or east <= bounds[0] or south >= bounds[3] or north <= bounds[1]:
        return shapely.Polygon()
    return area.intersection(shapely.box(*bounds))
