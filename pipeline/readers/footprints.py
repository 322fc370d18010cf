"""Where a cube has data, in longitude and latitude as GeoJSON has them (RFC 7946): shapes are cut at 180°, and a box
that crosses it has its west greater than its east."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.features import shapes
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.cube import Cube, read_window
from difffusr.pipeline.geo import Lattice, PixelWindow

#: west, south, east, north in degrees. East is less than west if the box crosses 180°.
Box = tuple[float, float, float, float]

#: Greatest distance between corners of a footprint, fewest and most corners on its longer side: edges that are straight
#: in the zone are curved in degrees.
_CORNER_EVERY_M, _CORNERS, _MOST_ALONG = 5_000.0, 16, 128

#: Corners are multiples of this, a millimetre.
_PRECISION_DEG = 1e-8

#: The finest level with at most as many pixels is looked at; with more than the second in its coarsest level, all of a
#: zone's window counts as seen.
_LOOKED_AT, _MOST_SEARCHED = 1024 * 1024, 4096 * 4096

#: Most corners of the ground in its zone, and of a footprint in degrees.
_MOST_CORNERS, _MOST_IN_DEGREES = 512, 2048

#: Edges between pixels with data and without, from which on the ground is looked at in coarser pixels.
_MOST_EDGES = 8_000

#: By how much ground grows before it loses corners, in units of what they may lie beside the line; holes smaller than
#: so much of it are filled.
_GROWN, _LEAST_HOLE = 1.5, 1e-3

_EARTH_M, _DEGREE_M = 6.37e6, 111_320.0


@dataclass(frozen=True)
class Ground:
    """Where a zone has data at a step of time.

    Attributes:
        shape: polygons in the zone's own coordinates: no data lies outside.
        beyond: how far it reaches beyond the data at most, in the same units, but for holes of less than a thousandth
            of it, which are filled; None if there are no data: then it is the whole window.
    """

    shape: BaseGeometry
    beyond: float | None


@dataclass(frozen=True)
class Footprint:
    """Where there are data, in EPSG:4326.

    Attributes:
        shape: a polygon, or a multipolygon if they lie apart or on either side of 180°.
        beyond_m: see `Ground`, in metres.
        short_m: how far data may lie outside, at edges of the zone's window, which are curved in degrees.
    """

    shape: BaseGeometry
    beyond_m: float | None
    short_m: float


def footprint(cube: Cube, epsg: int, ground: Ground) -> Footprint:
    """Where a zone of a cube has data, in degrees."""
    return _in_degrees(ground, cube.of_crs(epsg) or epsg)


def footprint_in(seen: NDArray[np.bool_], transform: Affine, box: BaseGeometry, place: int | Lattice) -> Footprint:
    """Where pixels or cells of them have data, in degrees.

    Args:
        seen: (h, w), those that have.
        transform: from columns and rows to coordinates.
        box: what they cover, in the same coordinates; the footprint if none has data.
        place: a zone's code, or the lattice of another CRS.
    """
    return _in_degrees(_ground(seen, transform, box), place)


def _in_degrees(ground: Ground, place: int | Lattice) -> Footprint:
    lattice = place if isinstance(place, Lattice) else Lattice.of_zone(place)
    found, moved = _fewer_corners(footprint_of(ground.shape, place))
    beyond = None if ground.beyond is None else _rounded_up(ground.beyond * lattice.unit_m + moved)
    bend = _bend_m(ground.shape, lattice, not isinstance(place, Lattice))
    return Footprint(found, beyond, _rounded_up(bend + moved))


def ground_of(cube: Cube, epsg: int, step: int) -> Ground:
    """Where a zone has data at a step of time, in its own coordinates.

    It is looked up in an overview. There a pixel has a source if any of those below has one, so that not even a line of
    single pixels is lost.

    Raises:
        StoreError: the cube cannot be read.
    """
    window, lattice = cube.window(epsg), cube.lattice(epsg)
    level = level_within(cube, epsg, _LOOKED_AT)
    array = cube.array(epsg, "source", level)
    height, width = array.shape[-2:]
    box = lattice.box(window)
    if height * width > _MOST_SEARCHED:
        return Ground(box, None)
    whole = PixelWindow(0, 0, height, width)
    left, _, _, top = lattice.bounds(window)
    size = lattice.pixel * 2**level
    seen = read_window(array, step, whole, whole) > 0
    return _ground(seen, Affine(size, 0, left, 0, -size, top), box)


def _ground(seen: NDArray[np.bool_], transform: Affine, box: BaseGeometry) -> Ground:
    if not seen.any():
        return Ground(box, None)
    if seen.all():
        return Ground(box, transform.a)
    outline, beyond = outline_of(seen)
    return Ground(_polygons(_placed(outline, transform).intersection(box)), beyond * transform.a)


def level_within(cube: Cube, epsg: int, most: int) -> int:
    """The finest level of a zone with at most so many pixels; its coarsest if all have more."""
    levels, window = cube.overviews(epsg), cube.window(epsg)
    return next((level for level in range(levels) if (window.height * window.width) >> 2 * level <= most), levels)


def outline_of(seen: NDArray[np.bool_], most: int = _MOST_CORNERS) -> tuple[BaseGeometry, float]:
    """Polygons around pixels, with at most so many corners.

    Args:
        seen: (h, w), of which some are.

    Returns:
        polygons in columns and rows from the upper left corner, which hold all that is seen; and how far they reach
        beyond, in pixels.
    """
    size = 1
    while _edges(seen) > _MOST_EDGES:
        seen, size = _halved(seen), 2 * size
    drawn = shapes(seen.astype(np.uint8), mask=seen, transform=Affine.scale(size))
    whole = shapely.union_all([shape(part) for part, _ in drawn])
    tolerance = float(size)
    while True:
        grown = whole.buffer(_GROWN * tolerance, join_style="mitre")
        fewer = _without_small_holes(_polygons(shapely.simplify(grown, tolerance)))
        if shapely.get_num_coordinates(fewer) <= most:
            # A corner of the grown shape, what simplifying moves it, and the diagonal of a pixel.
            return fewer, (_GROWN * math.sqrt(2) + 1) * tolerance + math.sqrt(2) * size
        tolerance *= 1.5


def _edges(seen: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(seen[1:] != seen[:-1]) + np.count_nonzero(seen[:, 1:] != seen[:, :-1]))


def _halved(seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels twice as large, which are seen if any of their four is."""
    even = np.pad(seen, [(0, size % 2) for size in seen.shape])
    return even[::2, ::2] | even[1::2, ::2] | even[::2, 1::2] | even[1::2, 1::2]


def _polygons(found: BaseGeometry) -> BaseGeometry:
    """The polygons of a geometry, without lines and points at which others touch."""
    parts = [part for part in shapely.get_parts(found) if part.geom_type == "Polygon"]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _without_small_holes(ground: BaseGeometry) -> BaseGeometry:
    least = _LEAST_HOLE * ground.area
    parts = [
        shapely.Polygon(part.exterior, [ring for ring in part.interiors if shapely.Polygon(ring).area >= least])
        for part in shapely.get_parts(ground)
    ]
    return shapely.union_all(parts)  # a part may lie in a hole of another


def _placed(ground: BaseGeometry, transform: Affine) -> BaseGeometry:
    return shapely.transform(
        ground, lambda x, y: (x * transform.a + transform.c, y * transform.e + transform.f), interleaved=False
    )


def _bend_m(ground: BaseGeometry, lattice: Lattice, of_zone: bool) -> float:
    """How far an edge between two corners of a footprint lies beside the curve that it stands for, at most."""
    if not of_zone:
        return 0.0 if lattice.is_geographic else 1.0  # as geo draws it
    left, bottom, right, top = ground.bounds
    _, lats = lattice.degrees(np.array([left, right, left, right]), np.array([bottom, bottom, top, top]))
    lat = math.radians(min(float(np.abs(lats).max()), 85.0))
    return _step_m(ground) ** 2 * math.tan(lat) / _EARTH_M / 8


def _fewer_corners(found: BaseGeometry) -> tuple[BaseGeometry, float]:
    """A footprint with bounded corners, and by how many metres its edges were moved."""
    tolerance, fewer = 0.0, found
    while shapely.get_num_coordinates(fewer) > _MOST_IN_DEGREES:
        tolerance = max(2 * tolerance, 1e-5)
        fewer = shapely.orient_polygons(_polygons(shapely.simplify(found, tolerance)))
    return fewer, tolerance * _DEGREE_M


def _rounded_up(metres: float) -> float:
    """With two digits: it is a bound."""
    if metres <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(metres)) - 1)
    return round(math.ceil(metres / unit - 1e-9) * unit, 6)


def footprint_of(ground: BaseGeometry, place: int | Lattice) -> BaseGeometry:
    """Ground in coordinates of a zone, given by its code, or of another CRS as a shape in EPSG:4326: a polygon, or a
    multipolygon if it crosses 180°."""
    unrolled = place.shape_in_degrees(ground) if isinstance(place, Lattice) else _unrolled(ground, place)
    turns = (shapely.transform(unrolled, lambda x, y, t=turn: (x + t, y), interleaved=False) for turn in (-360, 0, 360))
    parts = [
        part
        for turned in turns
        for part in shapely.get_parts(shapely.set_precision(turned.intersection(_GLOBE), _PRECISION_DEG))
        if part.geom_type == "Polygon" and not part.is_empty
    ]
    shape = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return shapely.orient_polygons(shape)


_GLOBE = shapely.box(-180.0, -90.0, 180.0, 90.0)


def _unrolled(ground: BaseGeometry, epsg: int) -> BaseGeometry:
    """In degrees, with longitudes within 180° of the zone's middle, so that no edge crosses the whole map."""
    to_degrees = Transformer.from_crs(CRS.from_epsg(epsg), "EPSG:4326", always_xy=True)
    corners = shapely.segmentize(ground, _step_m(ground))
    middle = 6.0 * (epsg % 100) - 183.0

    def degrees(x: Any, y: Any) -> tuple[Any, Any]:
        lon, lat = to_degrees.transform(x, y)
        return (lon - middle + 180.0) % 360.0 - 180.0 + middle, lat

    return shapely.transform(corners, degrees, interleaved=False)


def _step_m(ground: BaseGeometry) -> float:
    """Metres from corner to corner of a footprint, at most."""
    left, bottom, right, top = ground.bounds
    longer = max(right - left, top - bottom)
    return min(max(_CORNER_EVERY_M, longer / _MOST_ALONG), longer / _CORNERS)


def box_of(footprint: BaseGeometry) -> Box:
    """The smallest box around a footprint, its parts on either side of 180° taken together."""
    return box_around(part.bounds for part in shapely.get_parts(footprint))


def box_around(boxes: Iterable[Box]) -> Box:
    """The smallest box that has all of these in it: what is left out is the widest gap between them."""
    given = set(boxes)
    south, north = min(box[1] for box in given), max(box[3] for box in given)
    spans: list[tuple[float, float]] = []
    for west, _, east, _ in given:
        spans += [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    spans.sort()
    reach, between = spans[0][1], []
    for west, east in spans[1:]:
        between.append((west - reach, west, reach))
        reach = max(reach, east)
    around_180 = (spans[0][0] + 180.0 + 180.0 - reach, spans[0][0], reach)
    width, west, east = max([around_180, *between], key=lambda gap: gap[0])
    return (west, south, east, north) if width > 0 else (-180.0, south, 180.0, north)


def shape_of(box: Box) -> BaseGeometry:
    """A box as a polygon, or as a multipolygon if it crosses 180°."""
    west, south, east, north = box
    if west <= east:
        return shapely.box(*box)
    return shapely.MultiPolygon([shapely.box(west, south, 180.0, north), shapely.box(-180.0, south, east, north)])
