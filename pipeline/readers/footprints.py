"""Where a cube lies, in longitude and latitude as GeoJSON has them (RFC 7946): shapes are cut at 180°, and a box that
crosses it has its west greater than its east."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import shapely
from pyproj import CRS, Transformer
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.cube import Cube, read_window
from difffusr.pipeline.geo import Lattice, PixelWindow

#: west, south, east, north in degrees. East is less than west if the box crosses 180°.
Box = tuple[float, float, float, float]

#: Greatest distance between corners of a footprint, and fewest corners on its longer side: edges that are straight in
#: the zone are curved in degrees.
_CORNER_EVERY_M, _CORNERS = 5_000.0, 16

#: Corners are multiples of this, a millimetre.
_PRECISION_DEG = 1e-8

#: With more pixels than this in its coarsest level, all of a zone's window counts as seen.
_MOST_SEARCHED = 4096 * 4096


def footprint(cube: Cube, epsg: int, step: int) -> BaseGeometry:
    """Where a zone may have data at a step of time, in EPSG:4326, see `ground_of` and `footprint_of`.

    Raises:
        StoreError: the cube cannot be read.
    """
    return footprint_of(ground_of(cube, epsg, step), cube.of_crs(epsg) or epsg)


def ground_of(cube: Cube, epsg: int, step: int) -> BaseGeometry:
    """Where a zone may have data at a step of time, in its own coordinates: the convex hull of those pixels of its
    coarsest level that have some, and of their neighbours; its whole window if there are none.

    Raises:
        StoreError: the cube cannot be read.
    """
    window, level, lattice = cube.window(epsg), cube.overviews(epsg), cube.lattice(epsg)
    array = cube.array(epsg, "quality", level)
    height, width = array.shape[-2:]
    if height * width > _MOST_SEARCHED:
        return lattice.box(window)
    whole = PixelWindow(0, 0, height, width)
    seen = read_window(array, step, whole, whole) > 0
    rows = np.flatnonzero(seen.any(axis=1))
    if not rows.size:
        return lattice.box(window)
    # A pixel is what most of its four are: at the edges of what is seen, some data count as none.
    first, last = seen[rows].argmax(axis=1) - 1, width - seen[rows, ::-1].argmax(axis=1) + 1
    corners = np.concatenate(
        [np.stack([cols, ends], axis=1) for cols in (first, last) for ends in (rows - 1, rows + 2)]
    )
    left, _, _, top = lattice.bounds(window)
    size = lattice.pixel * 2**level
    hull = shapely.MultiPoint(np.stack([left + size * corners[:, 0], top - size * corners[:, 1]], axis=1)).convex_hull
    return hull.intersection(lattice.box(window))


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
    left, bottom, right, top = ground.bounds
    corners = shapely.segmentize(ground, min(_CORNER_EVERY_M, max(right - left, top - bottom) / _CORNERS))
    middle = 6.0 * (epsg % 100) - 183.0

    def degrees(x: Any, y: Any) -> tuple[Any, Any]:
        lon, lat = to_degrees.transform(x, y)
        return (lon - middle + 180.0) % 360.0 - 180.0 + middle, lat

    return shapely.transform(corners, degrees, interleaved=False)


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
