"""What the page of a plan carries: header and columns, packed into one text."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo import Grid, origin_m, territory
from difffusr.pipeline.plan.pictures.colours import CLEAR_RAMP, Dates, scene_days
from difffusr.pipeline.plan.pictures.frame import Frame, unrolled, zone_edge, zone_name
from difffusr.pipeline.plan.pictures.shifts import Shifts
from difffusr.pipeline.plan.pictures.squares import Squares, squares_of_chips, squares_of_shards
from difffusr.pipeline.plan.tables import Chips, Plan, StoredPlan, iterate_zones, zone_slices

#: Points of the area's outline closer together than this share of the map's width are left out.
_OUTLINE_DETAIL: Final = 1 / 6000


def pack_plan(plan: Plan | StoredPlan, grid: Grid, area: BaseGeometry | None, dates: Dates, most_squares: int) -> str:
    """The plan as the page's script unpacks it (see `unpack` in cells.js).

    Args:
        area: EPSG:4326; None draws no outline.
        most_squares: with more chips than this, the squares are shards.
    """
    squares_of = squares_of_chips if len(plan.chips) <= most_squares else squares_of_shards
    squares = squares_of(plan, grid, dates)
    frame = Frame.around(plan.chips, grid, area, 1000, (400, 1600))
    return _packed(_header(plan, grid, area, dates, squares, frame), squares.columns())


def _packed(header: dict[str, Any], columns: dict[str, NDArray[Any]]) -> str:
    """Length of the header (4 bytes), the header as JSON, the columns: little-endian, deflated, base64.

    `columns` in the header lists each column: name, type, first byte after the header, length. Every column starts on a
    multiple of four bytes.
    """
    places, parts, at = [], [], 0
    for name, column in columns.items():
        data = np.ascontiguousarray(column, column.dtype.newbyteorder("<")).tobytes()
        places.append([name, column.dtype.name, at, len(column)])
        data += b"\0" * (-len(data) % 4)
        parts.append(data)
        at += len(data)
    text = json.dumps(header | {"columns": places}, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return base64.b64encode(zlib.compress(len(text).to_bytes(4, "little") + text + b"".join(parts), 9)).decode()


def _header(
    plan: Plan | StoredPlan, grid: Grid, area: BaseGeometry | None, dates: Dates, squares: Squares, frame: Frame
) -> dict[str, Any]:
    bounds = {epsg: _bounds(zone_edge(plan.chips, part, grid, epsg), frame) for epsg, part in iterate_zones(plan.chips)}
    shifts = Shifts.of(plan)
    return {
        "kind": squares.kind,
        "side": squares.side_m,
        "inset": squares.inset_m,
        "view": asdict(frame),
        "zones": [_zone(epsg, part, bounds[epsg]) for epsg, part in zone_slices(squares.epsg)],
        "zone_borders": _zone_borders(sorted(bounds), frame),
        "days": [str(day) for day in dates.days],
        "chips": dates.chips.tolist(),
        "colours": ["#" + colour.tobytes().hex() for colour in dates.colours],
        "ramp": list(CLEAR_RAMP),
        "borders": plan.manifest.get("borders"),
        "cloudy": int((plan.chips.clear == 0).sum()),
        "outline": _outline(area, frame),
        "scenes_table": _scene_rows(plan),
        "balance": None if shifts is None else shifts.to_json(),
    }


def _zone(epsg: int, part: slice, bounds: list[float]) -> dict[str, Any]:
    # A territory consists of boxes: cut it at all latitudes where one begins or ends.
    whole = territory(epsg)
    edges = np.unique(shapely.get_coordinates(whole)[:, 1]).tolist()
    west, _, east, _ = whole.bounds
    strips = [shapely.intersection(whole, shapely.box(west, low, east, high)) for low, high in pairwise(edges)]
    home = [[float(edge) for edge in part.bounds] for strip in strips for part in shapely.get_parts(strip)]
    return {
        "epsg": epsg,
        "name": zone_name(epsg),
        "first": part.start,
        "stop": part.stop,
        "home": home,
        "bounds": bounds,
        "origin": origin_m(epsg),
    }


def _bounds(edge: NDArray[np.float64], frame: Frame) -> list[float]:
    """West, south, east, north of a zone's chips in the map's turn, with room for a shard that reaches further."""
    lon, lat = unrolled(edge[:, 0], frame.lon), edge[:, 1]
    north = 0.1
    east = north / max(float(np.cos(np.radians(np.abs(lat).max()))), 0.05)
    return [float(v) for v in (lon.min() - east, lat.min() - north, lon.max() + east, lat.max() + north)]


def _zone_borders(zones: list[int], frame: Frame) -> list[list[float]]:
    """Line segments along which two zones meet: longitude and latitude of both ends."""
    pieces = []
    for line in frame.zone_borders(zones):
        lon, lat = frame.degrees(*line.T)
        pieces += [[lon[i], lat[i], lon[i + 1], lat[i + 1]] for i in range(len(lon) - 1)]
    return pieces


def _scene_rows(plan: Plan | StoredPlan) -> list[list[Any]]:
    """Id, day, tile, baseline, cloud cover in per cent, chips that use it first, chips that use it."""
    chips: Chips = plan.chips
    count = len(chips.scene_ids)
    best = np.bincount(chips.scenes[:, 0], minlength=count).tolist()
    uses = np.bincount(chips.scenes[chips.scenes >= 0], minlength=count).tolist()
    if isinstance(plan, StoredPlan):
        columns = (plan.scenes[name] for name in ("tile", "baseline", "cloud_cover"))
        facts = list(zip(*columns, strict=True))
    else:
        facts = [(scene.tile, scene.baseline, scene.cloud_cover) for scene in plan.scenes]
    return [
        [name, str(day), str(tile), str(baseline), round(float(cloud), 1), first, used]
        for name, day, (tile, baseline, cloud), first, used in zip(
            chips.scene_ids, scene_days(plan), facts, best, uses, strict=True
        )
    ]


def _outline(area: BaseGeometry | None, frame: Frame) -> list[list[float]]:
    """Lines as alternating longitudes and latitudes, in the map's turn."""
    lines = []
    for ring in frame.rings(area) if area is not None else ():
        kept = shapely.simplify(shapely.linestrings(ring), frame.width * _OUTLINE_DETAIL)
        lon, lat = frame.degrees(*shapely.get_coordinates(kept).T)
        lines.append(np.round(np.stack([lon, lat], axis=-1), 5).ravel().tolist())
    return lines
