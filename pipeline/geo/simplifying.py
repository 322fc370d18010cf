"""Areas of more corners than a run has use for: made simpler, or refused before they take hours."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import shapely
from shapely.geometry import Polygon

from difffusr.pipeline.geo.drawn import Drawn
from difffusr.pipeline.ground.errors import ConfigError

log = logging.getLogger("difffusr.area")

#: Corners up to which an area is taken as it is drawn: the coast of a continent at 1 : 1 million has some 100 000.
AS_DRAWN = 200_000

#: Metres by which a simpler outline may deviate: a pixel of 10 m.
_DEVIATION_M = 10.0

#: Corners that an area may have once it is simpler: the fields of a country have some million.
_MOST = 2_000_000

#: Points where an outline may cross itself: each becomes a corner.
_MOST_CROSSINGS = 200_000

#: Edges that are looked at to find out how many there are, and crossings after which no more are.
_LOOKED_AT, _SEEN = 500, 10_000


def simple_enough(polygons: Sequence[Polygon], drawn: Drawn) -> list[Polygon]:
    """The polygons of an area, with fewer corners where they have too many, which is said.

    Raises:
        ConfigError: they stay too many, or an outline crosses itself too often to be repaired.
    """
    corners, kept = int(shapely.get_num_coordinates(polygons).sum()), list(polygons)
    if corners > AS_DRAWN:
        kept = _simplified(polygons, _DEVIATION_M / _metres_a_unit(drawn))
        left = int(shapely.get_num_coordinates(kept).sum())
        log.warning(
            "%s: %s corners: simplified to within %g m, %s are left", drawn.place, f"{corners:,}", _DEVIATION_M,
            f"{left:,}",
        )  # fmt: skip
        if left > _MOST:
            raise ConfigError(
                f"{drawn.place}: {left:,} corners after simplifying to within {_DEVIATION_M:g} m, at most {_MOST:,} "
                "are planned for; simplify or dissolve it, in QGIS or with ogr2ogr -simplify"
            )
    for polygon in kept:
        if shapely.get_num_coordinates(polygon) > _LOOKED_AT:
            _check_crossings(polygon, drawn)
    return kept


def _simplified(polygons: Sequence[Polygon], tolerance: float) -> list[Polygon]:
    """Polygons that may be invalid where they were valid: they are repaired with all others."""
    # Ring by ring: GEOS repairs a polygon, which takes for ever where its outline crosses itself everywhere.
    rings, polygon = shapely.get_rings(np.array(polygons, object), return_index=True)
    simpler = shapely.simplify(rings, tolerance, preserve_topology=False)
    kept = np.where(shapely.get_num_coordinates(simpler) > 3, simpler, rings)  # others are smaller than the tolerance
    starts = np.flatnonzero(np.diff(polygon, prepend=-1))
    return [Polygon(shell, holes) for shell, *holes in np.split(kept, starts[1:])]


def _metres_a_unit(drawn: Drawn) -> float:
    """Metres of a unit of the CRS."""
    return 111_320.0 if drawn.crs.is_geographic else float(drawn.crs.axis_info[0].unit_conversion_factor)


def _check_crossings(polygon: Polygon, drawn: Drawn) -> None:
    """Raise ConfigError where an outline crosses itself too often, by a sample of its edges. Of such an outline GEOS
    takes minutes to find that it is not valid."""
    rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
    edges = np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings])
    lines = shapely.linestrings(edges)
    tree, found, looked_at = shapely.STRtree(lines), 0, 0
    for edge in lines[np.linspace(0, len(lines) - 1, _LOOKED_AT).astype(int)]:
        found, looked_at = found + len(tree.query(edge, predicate="crosses")), looked_at + 1
        if found > _SEEN:
            break
    crossings = found / looked_at * len(lines) / 2
    if crossings > _MOST_CROSSINGS:
        raise ConfigError(
            f"{drawn.place}: a polygon of {len(lines):,} edges crosses itself in some {crossings:,.0f} places, at most "
            f"{_MOST_CROSSINGS:,} are repaired; correct it, in QGIS or with ogr2ogr -makevalid"
        )
