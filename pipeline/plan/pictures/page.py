"""A plan as one self-contained HTML page: a map to move about in, and the scenes used."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.geo.grid import GSD_10_M, Grid, origin_m
from difffusr.pipeline.geo.zones import territory
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.plan.pictures.colours import CLEAR_RAMP, Dates, scene_days
from difffusr.pipeline.plan.pictures.frame import Frame, unrolled, zone_edge, zone_name
from difffusr.pipeline.plan.pictures.legend import facts_of, title_of
from difffusr.pipeline.plan.tables import Chips, Plan, StoredPlan, iterate_zones

#: With more chips than this the page shows shards.
MOST_CELLS: Final = 300_000


#: Points of the area's outline closer together than this share of the map's width are left out.
_OUTLINE_DETAIL: Final = 1 / 6000


#: The page, with %TITLE%, %FACTS% and %DATA% where they belong.
_TEMPLATE: Final = Path(__file__).with_name("page.html")


def write_page(
    plan: Plan | StoredPlan, grid: Grid, area: BaseGeometry | None, path: Path, most_cells: int = MOST_CELLS
) -> None:
    """Write a plan as an HTML page that needs no other file and no network.

    Args:
        plan: with at least one chip.
        grid: the plan's.
        area: what the run was asked for, EPSG:4326, cut at 180° or not; None draws no outline.
        path: of the page, replaced if it exists.
        most_cells: with more chips than this, shards are shown instead.

    Raises:
        StoreError: the file cannot be written.
    """
    dates = Dates.of(plan)
    cells = (
        _squares_of_chips(plan, grid, dates) if len(plan.chips) <= most_cells else _squares_of_shards(plan, grid, dates)
    )
    frame = Frame.around(plan.chips, grid, area, 1000, (400, 1600))
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in facts_of(plan, dates))
    page = _TEMPLATE.read_text(encoding="utf-8")
    for name, value in (
        ("TITLE", escape(title_of(plan))),
        ("FACTS", facts),
        ("DATA", _packed(_header(plan, grid, area, dates, cells, frame), cells.columns())),
    ):
        page = page.replace(f"%{name}%", value)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from None


@dataclass(frozen=True, eq=False)
class _Squares:
    """Squares of the map: chips, or shards that stand for them.

    Attributes:
        kind: "chip" or "shard".
        side_m, inset_m: a cell's side, and where the first one begins, in metres of the zone.
        epsg, row, col: (n,) int32, by zone.
        date: (n,) uint16 position in `Dates.days`; of a shard, the one that most of its chips show.
        clear, covered: (n,) uint16, 1/10000.
        scenes: (n,) uint16, 1/100, of a shard the mean of its chips.
        chips: (n,) uint16.
        list: (n,) uint32 position in `first`: which scenes, best (of a shard: most used) first.
        first, members: list i has the scenes at `members[first[i]:first[i + 1]]`, positions in the plan's scenes.
    """

    kind: str
    side_m: float
    inset_m: float
    epsg: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    date: NDArray[np.uint16]
    clear: NDArray[np.uint16]
    covered: NDArray[np.uint16]
    scenes: NDArray[np.uint16]
    chips: NDArray[np.uint16]
    list: NDArray[np.uint32]
    first: NDArray[np.uint32]
    members: NDArray[np.uint32]

    def columns(self) -> dict[str, NDArray[Any]]:
        """What the page reads, by name."""
        names = ("row", "col", "date", "clear", "covered", "scenes", "list", "first", "members")
        return {name: getattr(self, name) for name in names} | {"chips_of": self.chips}


def _squares_of_chips(plan: Plan | StoredPlan, grid: Grid, dates: Dates) -> _Squares:
    chips = plan.chips
    used = chips.scenes >= 0
    lists, which = np.unique(chips.scenes, axis=0, return_inverse=True)
    lengths = (lists >= 0).sum(axis=1)
    return _Squares(
        kind="chip",
        side_m=grid.stride_px * GSD_10_M,
        inset_m=grid.overlap_px * GSD_10_M / 2,
        epsg=chips.epsg,
        row=chips.row,
        col=chips.col,
        date=dates.of_chip.astype(np.uint16),
        clear=_ten_thousandths(chips.clear),
        covered=_ten_thousandths(chips.covered),
        scenes=(used.sum(axis=1) * 100).astype(np.uint16),
        chips=np.ones(len(chips), np.uint16),
        list=which.reshape(-1).astype(np.uint32),
        first=np.append(0, np.cumsum(lengths)).astype(np.uint32),
        members=lists[lists >= 0].astype(np.uint32),
    )


def _squares_of_shards(plan: Plan | StoredPlan, grid: Grid, dates: Dates) -> _Squares:
    """Each chip counts for the shard that holds its middle."""
    chips = plan.chips
    step, size = grid.chip_step, grid.chip_side
    row = (chips.row.astype(np.int64) * step + size // 2) // grid.shard_px
    col = (chips.col.astype(np.int64) * step + size // 2) // grid.shard_px
    order, first, shard = _groups(chips.epsg, row, col)
    count = np.bincount(shard)
    used = chips.scenes >= 0
    listed, members = _most_common(np.repeat(shard, used.sum(axis=1)), chips.scenes[used])
    dated, date = _most_common(shard, dates.of_chip)
    return _Squares(
        kind="shard",
        side_m=grid.shard_px * TARGET_GSD_M,
        inset_m=0.0,
        epsg=chips.epsg[order[first]],
        row=row[order[first]].astype(np.int32),
        col=col[order[first]].astype(np.int32),
        date=date[np.flatnonzero(np.diff(dated, prepend=-1))].astype(np.uint16),
        clear=_ten_thousandths(np.bincount(shard, chips.clear) / count),
        covered=_ten_thousandths(np.bincount(shard, chips.covered) / count),
        scenes=np.round(np.bincount(shard, used.sum(axis=1)) / count * 100).astype(np.uint16),
        chips=np.minimum(count, 65_535).astype(np.uint16),
        list=np.arange(len(first), dtype=np.uint32),
        first=np.searchsorted(listed, np.arange(len(first) + 1)).astype(np.uint32),
        members=members.astype(np.uint32),
    )


def _groups(
    epsg: NDArray[np.int32], row: NDArray[np.int64], col: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """An order by zone, row and column, where each group begins in it, and the group of every element."""
    order = np.lexsort((col, row, epsg))
    place = np.stack([epsg, row, col])[:, order]
    begins = np.ones(len(order), bool)
    begins[1:] = (place[:, 1:] != place[:, :-1]).any(axis=0)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(begins) - 1
    return order, np.flatnonzero(begins), group


def _most_common(group: NDArray[np.int64], value: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each group's distinct values, the most frequent first: (k,) groups ascending and (k,) values."""
    base = int(value.max(initial=0)) + 1
    pairs, counts = np.unique(group.astype(np.int64) * base + value, return_counts=True)
    groups, values = pairs // base, pairs % base
    order = np.lexsort((values, -counts, groups))
    return groups[order], values[order]


def _ten_thousandths(share: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Shares as whole numbers; what is more than nothing stays so."""
    number = np.round(np.clip(share, 0, 1) * 10_000)
    return np.where(share > 0, np.maximum(number, 1), 0).astype(np.uint16)


def _header(
    plan: Plan | StoredPlan, grid: Grid, area: BaseGeometry | None, dates: Dates, cells: _Squares, frame: Frame
) -> dict[str, Any]:
    bounds = {epsg: _bounds(zone_edge(plan.chips, part, grid, epsg), frame) for epsg, part in iterate_zones(plan.chips)}
    return {
        "kind": cells.kind,
        "side": cells.side_m,
        "inset": cells.inset_m,
        "view": asdict(frame),
        "zones": [_zone(epsg, part, bounds[epsg]) for epsg, part in _runs(cells.epsg)],
        "zone_borders": _zone_borders(sorted(bounds), frame),
        "days": [str(day) for day in dates.days],
        "chips": dates.chips.tolist(),
        "colours": ["#" + colour.tobytes().hex() for colour in dates.colours],
        "ramp": list(CLEAR_RAMP),
        "borders": plan.manifest.get("borders"),
        "cloudy": int((plan.chips.clear == 0).sum()),
        "outline": _outline(area, frame),
        "scenes_table": _scene_rows(plan),
    }


def _runs(epsg: NDArray[np.int32]) -> list[tuple[int, slice]]:
    starts = np.flatnonzero(np.diff(epsg, prepend=-1))
    stops = np.append(starts[1:], len(epsg))
    return [(int(epsg[start]), slice(int(start), int(stop))) for start, stop in zip(starts, stops, strict=True)]


def _zone(epsg: int, part: slice, bounds: list[float]) -> dict[str, Any]:
    # A territory is made of boxes that each span some latitudes: cut at all of them.
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
    """West, south, east, north of a zone's cells, in the map's turn, with room for a shard that reaches further."""
    lon, lat = unrolled(edge[:, 0], frame.lon), edge[:, 1]
    north = 0.1
    east = north / max(float(np.cos(np.radians(np.abs(lat).max()))), 0.05)
    return [float(v) for v in (lon.min() - east, lat.min() - north, lon.max() + east, lat.max() + north)]


def _zone_borders(zones: list[int], frame: Frame) -> list[list[float]]:
    """Straight pieces along which two zones meet: longitude and latitude of both ends."""
    pieces = []
    for line in frame.zone_borders(zones):
        lon, lat = frame.degrees(*line.T)
        pieces += [[lon[i], lat[i], lon[i + 1], lat[i + 1]] for i in range(len(lon) - 1)]
    return pieces


def _scene_rows(plan: Plan | StoredPlan) -> list[list[Any]]:
    """Id, day, tile, baseline, cloud cover in per cent, chips that use it first, chips that use it at all."""
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
    """Lines of longitudes and latitudes in turn, in one turn around the middle."""
    lines = []
    for ring in frame.rings(area) if area is not None else ():
        kept = shapely.simplify(shapely.linestrings(ring), frame.width * _OUTLINE_DETAIL)
        lon, lat = frame.degrees(*shapely.get_coordinates(kept).T)
        lines.append(np.round(np.stack([lon, lat], axis=-1), 5).ravel().tolist())
    return lines


def _packed(header: dict[str, Any], columns: dict[str, NDArray[Any]]) -> str:
    """Length of the header (4 bytes), the header as JSON, the columns: little-endian, deflated, base64.

    The header tells where each column lies (`columns`: name, type, first byte after the header, length); each starts on
    a multiple of four bytes.
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
