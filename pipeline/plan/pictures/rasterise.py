"""Which chip lies under each pixel of a picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo import GSD_10_M, Grid, origin_m, territory
from difffusr.pipeline.plan.pictures.frame import NODE_PX, Frame, turned, zone_edge
from difffusr.pipeline.plan.tables import Chips, iterate_zones


def rasterise_chips(chips: Chips, grid: Grid, frame: Frame) -> NDArray[np.int32]:
    """(h, w) position in `chips` of the chip whose core lies under each pixel's centre, −1 for none.

    Where two zones overlap, the zone whose territory it is wins.
    """
    out = np.full((frame.height, frame.width), -1, np.int32)
    for epsg, part in iterate_zones(chips):
        home = rasterise_shape(territory(epsg), frame)
        for window, place in _zone_pixels(chips, part, grid, epsg, frame):
            here = out[window]
            better = (place >= 0) & ((here < 0) | home[window])
            here[better] = place[better]
    return out


def _zone_pixels(
    chips: Chips, part: slice, grid: Grid, epsg: int, frame: Frame
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.int32]]]:
    """Strips of the picture with a zone's chips, and the chip under each of their pixels."""
    rows, cols = chips.row[part], chips.col[part]
    top, left = int(rows.min()), int(cols.min())
    table = np.full((int(rows.max()) - top + 3, int(cols.max()) - left + 3), -1, np.int32)  # with a rim of −1
    table[rows - top + 1, cols - left + 1] = np.arange(part.start, part.stop)
    edge = frame.pixels(*zone_edge(chips, part, grid, epsg).T)
    low = np.maximum(np.floor(edge.min(axis=0)).astype(int) - NODE_PX, 0)
    high = np.minimum(np.ceil(edge.max(axis=0)).astype(int) + NODE_PX, (frame.width, frame.height))
    if (high <= low).any():
        return
    step, inset = grid.stride_px * GSD_10_M, grid.overlap_px * GSD_10_M / 2
    for y, east, north in _metres(frame, epsg, low, high):
        row = np.floor((origin_m(epsg) - north - inset) / step).astype(np.int32) - top + 1
        col = np.floor((east - inset) / step).astype(np.int32) - left + 1
        np.clip(row, 0, table.shape[0] - 1, out=row)
        np.clip(col, 0, table.shape[1] - 1, out=col)
        yield (slice(y, y + len(row)), slice(int(low[0]), int(high[0]))), table[row, col]


def _metres(
    frame: Frame, epsg: int, low: NDArray[np.int64], high: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """Strips of a window of the picture: first row, and easting and northing of every pixel's centre."""
    node_x = np.arange(low[0], high[0] + NODE_PX, NODE_PX, dtype=np.float64)
    node_y = np.arange(low[1], high[1] + NODE_PX, NODE_PX, dtype=np.float64)
    lon, lat = frame.degrees(*np.meshgrid(node_x, node_y))
    to_zone = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)
    nodes = to_zone.transform((lon + 180.0) % 360.0 - 180.0, np.clip(lat, -90.0, 90.0))
    x = np.arange(low[0], high[0]) + 0.5
    for number, y in enumerate(range(int(low[1]), int(high[1]), NODE_PX)):
        down = ((np.arange(min(NODE_PX, int(high[1]) - y)) + 0.5) / NODE_PX)[:, None]
        above, below = ([np.interp(x, node_x, axis[number + i]) for axis in nodes] for i in (0, 1))
        east, north = (one + down * (other - one) for one, other in zip(above, below, strict=True))
        yield y, east, north


def rasterise_shape(shape: BaseGeometry, frame: Frame) -> NDArray[np.bool_]:
    """(h, w) whether a pixel lies in a shape, EPSG:4326."""
    picture = Image.new("1", (frame.width, frame.height))
    draw = ImageDraw.Draw(picture)
    whole = shapely.union_all([turned(part, frame.lon) for part in shapely.get_parts(shape)])
    for part in shapely.get_parts(whole):
        if part.geom_type == "Polygon":
            for number, ring in enumerate(shapely.get_rings(part)):
                lon, lat = shapely.get_coordinates(ring).T
                draw.polygon([tuple(point) for point in frame.flat(lon, lat).tolist()], fill=int(number == 0))
    return np.asarray(picture)
