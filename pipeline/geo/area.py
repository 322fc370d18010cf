"""The area of a run: read from the configuration or its file, converted to degrees, cut at 180°.

A map sheet has no edge at 180°: an area across it, or around a pole, is in one piece there and must be cut when it is
converted to degrees. So each ring is followed along its edges with longitudes that continue past ±180, then cut.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.geometry import Point, Polygon, box, shape
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.config import AreaSection, RunConfig
from difffusr.pipeline.geo.drawn import Drawn, horizontal
from difffusr.pipeline.geo.simplifying import simple_enough
from difffusr.pipeline.geo.wrapping import WORLD, polygons_in, union_of, wrapped
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import one_line, shown_url

log = logging.getLogger("difffusr.area")

_DEGREES = pyproj.CRS.from_user_input("OGC:CRS84")

#: How far an edge in degrees may lie from the straight edge of the map sheet: a tenth of a 10 m pixel.
_TRUE_TO_M = 1.0

#: How often an edge is halved at most: enough for 10 000 km.
_HALVINGS = 24

#: Longitudes this close to 180° (1 cm) are set to 180°: sheets that end there would otherwise leave slivers beyond.
_ON_180_DEG = 1e-7

#: Coordinates beyond this are not of a map, in any unit.
_ANY_MAP = 1e12

#: Radius around a pole that is cut out where a ring runs through it: the side it passes on would be chance.
_POLE_M = 100.0

#: What shapely raises for malformed coordinates.
_MALFORMED = (shapely.errors.ShapelyError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)


def area_geometry(config: RunConfig) -> BaseGeometry | list[str]:
    """The area of a run, see `geometry_of`."""
    return geometry_of(config.area)


def geometry_of(area: AreaSection) -> BaseGeometry | list[str]:
    """What an area covers: a valid polygon or multipolygon in EPSG:4326 (x = longitude within ±180, y = latitude,
    degrees; cut at 180° where it crosses), or the list of MGRS tile ids when the area is given as tiles.

    Raises ConfigError, in one line with key and file, when the file cannot be read, holds no polygon, has no CRS, or
    its coordinates do not fit its CRS.
    """
    if area.tiles is not None:
        return list(area.tiles)
    if area.bbox is not None:
        west, south, east, north = area.bbox
        return wrapped(box(west, south, east if west < east else east + 360, north))
    if area.geojson is not None:
        return _in_degrees(_read_geojson(area.geojson))
    from difffusr.pipeline.geo.vector import read_vector_file  # here, because geopandas takes a second to import

    return _in_degrees(read_vector_file(area))


def sheet_in_degrees(ground: BaseGeometry, crs: pyproj.CRS) -> BaseGeometry:
    """Polygons of a projected CRS in EPSG:4326: edges bend as on the sheet, cut at 180°, closed over a pole.

    Raises:
        ConfigError: some of it lies off the globe.
    """
    return _Sheet(Drawn([ground], crs, "ground")).in_degrees(ground)


def _in_degrees(drawn: Drawn) -> BaseGeometry:
    """The union of all polygons drawn, in EPSG:4326."""
    polygons = [polygon for geometry in drawn.geometries for polygon in polygons_in(geometry)]
    if not (np.abs(shapely.get_coordinates(polygons)) < _ANY_MAP).all():  # also true where they are not finite
        raise drawn.misfit()
    try:
        polygons = simple_enough(polygons, drawn)
        whole = union_of([shapely.make_valid(polygon) for polygon in polygons])
        if whole.is_empty:
            kinds = ", ".join(sorted({geometry.geom_type for geometry in drawn.geometries})) or "nothing"
            raise ConfigError(
                f"{drawn.place}: found {kinds}, expected a Polygon or MultiPolygon that covers some ground"
            )
        if not all(polygon.is_valid for polygon in polygons):
            log.warning("%s: a polygon crosses itself: repaired", drawn.place)
        area = _from_geographic(whole, drawn) if drawn.crs.is_geographic else _Sheet(drawn).in_degrees(whole)
    except shapely.errors.GEOSException as error:
        raise ConfigError(f"{drawn.place}: its polygons cannot be put together: {one_line(error, None)}") from None
    if area.is_empty:
        raise drawn.misfit()
    return area


def _from_geographic(whole: BaseGeometry, drawn: Drawn) -> BaseGeometry:
    """An area from a geographic CRS. Edges stay straight in degrees and run as written (RFC 7946)."""
    if not drawn.crs.equals(_DEGREES, ignore_axis_order=True):
        whole = shapely.transform(whole, lambda points: _change_datum(points, drawn.crs))
    west, south, east, north = whole.bounds
    if not (west >= -360 and east <= 360 and south >= -90 and north <= 90):  # also true where they are not finite
        raise drawn.misfit()
    return wrapped(shapely.make_valid(whole))


def _change_datum(points: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.float64]:
    """(n, 2) longitudes and latitudes of a geographic CRS → WGS84 degrees; 183° stays 183°, not −177°."""
    radians = crs.axis_info[0].unit_conversion_factor
    meridian = crs.prime_meridian
    greenwich = meridian.longitude * float(meridian.unit_conversion_factor) if meridian else 0.0
    written = np.degrees(points[:, 0] * radians + greenwich)
    lon, lat = _transformer(crs, _DEGREES).transform(points[:, 0], points[:, 1])
    return np.column_stack([lon + 360 * np.round((written - lon) / 360), lat])


@lru_cache(maxsize=256)
def _transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


@dataclass(frozen=True)
class _Sheet:
    """A projected CRS and its conversion to degrees."""

    drawn: Drawn

    def in_degrees(self, whole: BaseGeometry) -> BaseGeometry:
        """An area of the sheet in EPSG:4326: edges bend as on the sheet, cut at 180°, closed over a pole."""
        for pole in self._poles.values():
            if whole.boundary.distance(pole) < _POLE_M / self._unit_m:
                whole = whole.difference(pole.buffer(_POLE_M / self._unit_m))
        parts = []
        for polygon in polygons_in(whole):
            holes = [self._inside(ring) for ring in polygon.interiors]
            parts.append(self._inside(polygon.exterior).difference(union_of(holes)))
        return union_of(parts)

    def _inside(self, ring: shapely.LinearRing) -> BaseGeometry:
        """The inside of a ring of the sheet, in EPSG:4326."""
        trace = self._trace(ring)
        turns = round((trace[-1, 0] - trace[0, 0]) / 360)
        if turns == 0:
            return wrapped(shapely.make_valid(Polygon(trace)))
        inside = [lat for lat, pole in self._poles.items() if Polygon(ring).contains(pole)]
        if abs(turns) > 1 or len(inside) != 1:
            raise self.drawn.misfit()
        # The ring repeated around the globe, twice each way, closed over the pole: its ends are then far outside the
        # world that is cut out, and leave no seam.
        coast = np.concatenate([trace[:-1] + np.array([360 * turns * turn, 0]) for turn in (-2, -1, 0, 1)])
        corners = [(coast[-1, 0], inside[0]), (coast[0, 0], inside[0])]
        return union_of([shapely.make_valid(Polygon([*coast, *corners])).intersection(WORLD)])

    def _trace(self, ring: shapely.LinearRing) -> NDArray[np.float64]:
        """(n, 2) longitudes and latitudes along a ring, in degrees; longitudes continue past ±180."""
        west, south, east, north = ring.bounds
        # Sixteenths first, because an edge that bends both ways may be right only in its middle.
        ring = shapely.segmentize(ring, max(east - west, north - south) / 16)
        sheet = shapely.get_coordinates(ring)
        degrees = self._to_degrees(sheet)
        for _ in range(_HALVINGS):
            middles = (sheet[:-1] + sheet[1:]) / 2
            true = self._to_degrees(middles)
            bent = _off_chord_m(degrees, true) > _TRUE_TO_M
            if not bent.any():
                break
            after = np.flatnonzero(bent) + 1
            sheet = np.insert(sheet, after, middles[bent], axis=0)
            degrees = np.insert(degrees, after, true[bent], axis=0)
        lon = degrees[:, 0]
        # Only whole turns are added, so that two rings that share an edge still share it to the bit.
        lon[1:] -= 360 * np.cumsum(np.round(np.diff(lon) / 360))
        nearest = 360 * np.round((lon - 180) / 360) + 180
        lon[:] = np.where(np.abs(lon - nearest) < _ON_180_DEG, nearest, lon)
        return degrees

    def _to_degrees(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        degrees = np.column_stack(self._transformer.transform(points[:, 0], points[:, 1]))
        if not np.isfinite(degrees).all():
            raise self.drawn.misfit()
        return degrees

    @cached_property
    def _transformer(self) -> pyproj.Transformer:
        return _transformer(self.drawn.crs, _DEGREES)

    @cached_property
    def _poles(self) -> dict[float, Point]:
        """The poles on the sheet, by their latitude in degrees."""
        to_sheet = _transformer(_DEGREES, self.drawn.crs)
        places = {lat: to_sheet.transform(0.0, lat) for lat in (-90.0, 90.0)}
        return {lat: Point(place) for lat, place in places.items() if np.isfinite(place).all()}

    @cached_property
    def _unit_m(self) -> float:
        return float(self.drawn.crs.axis_info[0].unit_conversion_factor)


def _off_chord_m(degrees: NDArray[np.float64], middles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance in metres of `middles` (n − 1, 2) from the middles of the edges of a line `degrees` (n, 2)."""
    lon, lat = degrees.T
    steps = np.diff(lon)
    chords = lon[:-1] + (steps - 360 * np.round(steps / 360)) / 2
    east = middles[:, 0] - chords
    east -= 360 * np.round(east / 360)
    north = middles[:, 1] - (lat[:-1] + lat[1:]) / 2
    return 111_320 * np.hypot(east * np.cos(np.radians(middles[:, 1])), north)


def _read_geojson(file: str) -> Drawn:
    """The geometries of a GeoJSON file.

    RFC 7946 allows only WGS84, but GIS tools write a `crs` member, which is honoured.
    """
    place = f"area.geojson: {shown_url(file)}"
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{place}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{place}: not valid JSON: {error}") from None
    try:
        geometries = [shape(geometry) for geometry in _geometries(data)]
    except _MALFORMED as error:
        raise ConfigError(f"{place}: not valid GeoJSON: {one_line(error, None)}") from None
    return Drawn(geometries, _crs_member(data, place), place)


def _geometries(data: Any) -> Iterator[dict[str, Any]]:
    """The geometry objects in a FeatureCollection, Feature, GeometryCollection or geometry."""
    if not isinstance(data, dict) or "type" not in data:
        raise ValueError("no object with a 'type'")
    if data["type"] == "FeatureCollection":
        for feature in data["features"]:
            yield from _geometries(feature)
    elif data["type"] == "Feature":
        if data.get("geometry") is not None:
            yield from _geometries(data["geometry"])
    elif data["type"] == "GeometryCollection":
        for geometry in data["geometries"]:
            yield from _geometries(geometry)
    else:
        yield data


def _crs_member(data: dict[str, Any], place: str) -> pyproj.CRS:
    """The CRS named by a GeoJSON file's `crs` member; WGS84 longitude and latitude without one."""
    member = data.get("crs")
    if member is None:
        return _DEGREES
    name = member.get("properties", {}).get("name") if isinstance(member, dict) else member
    try:
        crs = pyproj.CRS.from_user_input(name)
    except (pyproj.exceptions.CRSError, TypeError):
        raise ConfigError(
            f"{place}: unknown CRS {name!r} in its crs member, expected a name such as EPSG:32648"
        ) from None
    return horizontal(crs, place)
