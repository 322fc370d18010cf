"""Which chips of which zones cover an area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import held_collar_m
from difffusr.pipeline.geo import GSD_10_M, Grid, area_geometry, near_zone, territory, to_zone
from difffusr.pipeline.scenes import Scene
from difffusr.pipeline.storage import storage_of


def chips_to_plan(
    config: RunConfig, scenes: Sequence[Scene], grid: Grid
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows and columns of the chips to plan in each zone that has scenes."""
    given = area_geometry(config)
    seen: dict[int, BaseGeometry] = {}
    for epsg in sorted({scene.epsg for scene in scenes}):
        seen[epsg] = _union([scene.footprint for scene in scenes if scene.epsg == epsg])
    area = _union(list(seen.values())) if isinstance(given, list) else given
    return chips_of_zones(area, seen, grid, collar_m(config))


#: How far beyond its border a zone of a new cube shows the ground, in metres. Whoever brings zones into one CRS goes
#: over from one to the other on twice that, two kilometres: what a difference between two dates needs to be no line.
#: A zone is 511 km wide at 40° of latitude and 228 km at 70°, so it costs 0.3% to 0.7% more chips.
COLLAR_M = 1000.0


def collar_m(config: RunConfig) -> float:
    """How far beyond their borders the zones of a run's cube show the ground, in metres: as the configuration says, or
    the cube where there is one; one overlap in cubes that do not say.

    Raises:
        StoreError: the cube cannot be read.
    """
    least = float(config.grid.overlap_px * GSD_10_M)
    if config.grid.collar_m is not None:
        return max(float(config.grid.collar_m), least)
    held = held_collar_m(storage_of(config))
    return max(COLLAR_M, least) if held is None else held or least


def chips_of_zones(
    area: BaseGeometry, seen: Mapping[int, BaseGeometry], grid: Grid, collar_m: float
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each zone's chips over an area: rows and columns, by EPSG code.

    A zone takes the chips whose core lies in its territory or within a collar around it, so that two zones share enough
    ground to blend. Where no scene of the home zone shows a place, a neighbour's scenes that reach across
    the border are used.

    Args:
        area: in EPSG:4326.
        seen: what the scenes of each zone show, in EPSG:4326.
        collar_m: width of the collar in metres.
    """
    at_home = {epsg: shapely.intersection(seen[epsg], territory(epsg)) for epsg in seen}
    orphaned = area.difference(shapely.union_all(list(at_home.values())))
    chips = {}
    for epsg in sorted(seen):
        ground = [near_zone(area, epsg, collar_m)]
        stray = shapely.intersection(orphaned, seen[epsg]).difference(territory(epsg))
        if stray.area > 0:
            ground.append(to_zone(stray, epsg))
            orphaned = orphaned.difference(seen[epsg])
        rows, cols = grid.chips_over(epsg, shapely.union_all(ground))
        if len(rows):
            chips[epsg] = rows, cols
    return chips


def _union(shapes: Sequence[BaseGeometry]) -> BaseGeometry:
    """The union of footprints. Many are the same to the metre: they are rounded first, and equal ones taken once."""
    distinct = {shapely.to_wkb(shapely.normalize(shape)): shape for shape in shapely.set_precision(shapes, 1e-6)}
    return shapely.union_all(list(distinct.values()))
