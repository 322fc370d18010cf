"""Where UTM zones meet: how much each of them counts.

Both zones of a border show the ground on either side of it, up to the collar that the planner gives them. Across it one
goes over into the other: the weight of a zone is a smooth step, ½ on the border of its territory, 1 from the blend's
half width on inside and 0 as far outside. Weights of all zones are made to sum to one over those that show a pixel.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import GSD_10_M, Lattice, PixelWindow, territory, to_zone

#: Pixels between the nodes at which distances are computed, at most; between them they are interpolated.
_STEP_PX = 32

#: Nodes across half a blend, at least: a smooth step is a straight line between them to a hundredth.
_NODES = 8

#: Metres inside a zone's collar that a blend stays away from its edge: what cubic convolution reaches, and more.
_INSIDE_M = 20.0

#: What a zone counts far from its territory, where no other shows the ground.
_STRAY = np.float32(1e-9)


def blend_half_m(cube: Cube) -> float:
    """Half the width in metres of a cube's blends: within the collar of every zone, which the cube says, or follows
    from its chips."""
    told = [cube.collar_m(epsg) for epsg in cube.zones]
    if all(told):
        return min(collar for collar in told if collar) - _INSIDE_M
    grid = ((cube.attributes.get("difffusr:provenance") or {}).get("config") or {}).get("grid") or {}
    overlap = grid.get("overlap_px", 24)
    return max(float(overlap) * GSD_10_M - _INSIDE_M, _INSIDE_M)


def zone_weights(lattice: Lattice, window: PixelWindow, epsg: int, half_m: float) -> NDArray[np.float32] | float:
    """(height, width) float32 weight of a zone in each pixel of a window, or the one weight of all of them.

    Args:
        lattice: what the window is counted in.
        epsg: the UTM zone.
        half_m: half the width of the blend in metres.
    """
    step = max(1, min(_STEP_PX, int(half_m / _NODES / (lattice.pixel * lattice.unit_m))))
    rows, cols = (np.arange(0, size + step, step) for size in (window.height, window.width))
    x, y = lattice.centres(window, rows, cols)
    depth = _depth(lattice.crs, epsg, np.stack(np.meshgrid(x, y)), half_m)
    part = np.clip(depth / (2 * half_m) + 0.5, 0.0, 1.0)
    smooth = (part * part * (3 - 2 * part)).astype(np.float32)
    if smooth.min() == smooth.max():
        return max(float(smooth[0, 0]), float(_STRAY))
    across = _between(smooth, window.width, step, axis=1)
    return np.maximum(_between(across, window.height, step, axis=0), _STRAY)


def _between(nodes: NDArray[np.float32], size: int, step: int, axis: int) -> NDArray[np.float32]:
    """Values at every pixel of an axis from those at every n-th."""
    place = np.arange(size, dtype=np.float32) / np.float32(step)
    first = place.astype(np.intp)
    part = np.expand_dims(place - first, 1 - axis)
    before, after = nodes.take(first, axis), nodes.take(first + 1, axis)
    return (before + (after - before) * part).astype(np.float32)


def _depth(crs: str, epsg: int, places: NDArray[np.float64], most_m: float) -> NDArray[np.float64]:
    """How far places, (2, h, w) x and y, lie inside a zone's territory, in metres; negative outside; at most `most_m`
    either way."""
    x, y = places
    east, north = _into_zone(crs, epsg).transform(x, y)
    found = np.isfinite(east) & np.isfinite(north)
    if not found.any():
        return np.full(x.shape, -most_m)
    left, bottom, right, top = east[found].min(), north[found].min(), east[found].max(), north[found].max()
    around = shapely.box(left - 2 * most_m, bottom - 2 * most_m, right + 2 * most_m, top + 2 * most_m)
    own = _territory(epsg)
    border = shapely.intersection(own.boundary, around)
    if border.is_empty:  # all on one side
        depth = np.full(x.shape, most_m if shapely.contains_xy(own, east[found][0], north[found][0]) else -most_m)
    else:
        points = shapely.points(np.where(found, east, 0.0), np.where(found, north, 0.0))
        far = np.minimum(shapely.distance(border, points), most_m)
        depth = np.where(shapely.contains(own, points), far, -far)
    return np.where(found, depth, -most_m)


@lru_cache(maxsize=128)
def _into_zone(crs: str, epsg: int) -> Transformer:
    return Transformer.from_crs(crs, f"EPSG:{epsg}", always_xy=True)


@lru_cache(maxsize=128)
def _territory(epsg: int) -> BaseGeometry:
    shape = to_zone(territory(epsg), epsg, 0.01)
    shapely.prepare(shape)
    return shape
