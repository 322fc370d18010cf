"""A plan: what a run will do, as tables in memory and as GeoParquet on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, overload

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import box

from pipeline.catalog import Scene
from pipeline.errors import StoreError
from pipeline.grid import ChipIndex, Grid, PixelWindow, ShardIndex, origin_m
from pipeline.storage import Storage

#: Bytes of a content key (sha256).
KEY_BYTES = 32

#: Rows written at a time: memory for geometries stays small however long the plan.
_ROW_GROUP = 65_536


@dataclass(frozen=True)
class ChipPlan:
    """One chip to compute.

    Attributes:
        epsg: its zone.
        index: its place on the zone's lattice.
        scenes: ids of the scenes to use, best first.
        covered: share of the chip that the scenes cover, 0 … 1.
        clear: share of the chip that they cover without cloud, 0 … 1.
        key: hash of everything its pixels depend on, 64 hexadecimal digits.
    """

    epsg: int
    index: ChipIndex
    scenes: tuple[str, ...]
    covered: float
    clear: float
    key: str

    @property
    def name(self) -> str:
        """Zone, row and column, as staged objects and messages show them."""
        return f"{self.epsg}/{self.index.row}_{self.index.col}"

    @property
    def object_name(self) -> str:
        """Name of the staged object: it exists exactly when the chip is done."""
        return f"{self.name}-{self.key[:20]}.chip"


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write, and the chips it is blended from.

    Attributes:
        epsg: its zone.
        index: its place on the zone's lattice.
        chips: the chips that touch it, in lattice order.
        key: hash of everything its pixels depend on, 64 hexadecimal digits.
    """

    epsg: int
    index: ShardIndex
    chips: tuple[ChipPlan, ...]
    key: str

    @property
    def name(self) -> str:
        """Zone, row and column, as the ledger and messages show them."""
        return f"{self.epsg}/{self.index.row}_{self.index.col}"


@dataclass(frozen=True, eq=False)
class Chips(Sequence[ChipPlan]):
    """All chips of a plan, one column an attribute: millions of them fit where as many objects would not.

    Attributes:
        epsg, row, col: (n,) int32; rows of the table are ordered by them.
        scenes: (n, m) int32 positions in `scene_ids`, best first, −1 after the last.
        covered, clear: (n,) float32, 0 … 1.
        key: (n, 32) uint8 content keys.
        scene_ids: what `scenes` counts.
    """

    epsg: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    scenes: NDArray[np.int32]
    covered: NDArray[np.float32]
    clear: NDArray[np.float32]
    key: NDArray[np.uint8]
    scene_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)

    @overload
    def __getitem__(self, position: int) -> ChipPlan: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[ChipPlan]: ...
    def __getitem__(self, position: int | slice) -> ChipPlan | Sequence[ChipPlan]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]
        return ChipPlan(
            int(self.epsg[i]),
            ChipIndex(int(self.row[i]), int(self.col[i])),
            tuple(self.scene_ids[s] for s in self.scenes[i] if s >= 0),
            round(float(self.covered[i]), 4),
            round(float(self.clear[i]), 4),
            self.key[i].tobytes().hex(),
        )

    def object_names(self) -> list[str]:
        """Name of each chip's staged object."""
        places = zip(self.epsg.tolist(), self.row.tolist(), self.col.tolist(), self.key[:, :10], strict=True)
        return [f"{epsg}/{row}_{col}-{key.tobytes().hex()}.chip" for epsg, row, col, key in places]


@dataclass(frozen=True, eq=False)
class Shards(Sequence[ShardPlan]):
    """All shards of a plan.

    Attributes:
        epsg, row, col: (n,) int32; rows of the table are ordered by them.
        first: (n + 1,) int64: shard i is blended from the chips at `members[first[i]:first[i + 1]]`.
        members: positions in `chips`, in lattice order within a shard.
        key: (n, 32) uint8 content keys.
        chips: the plan's chips.
    """

    epsg: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    first: NDArray[np.int64]
    members: NDArray[np.int32]
    key: NDArray[np.uint8]
    chips: Chips

    @classmethod
    def of(cls, chips: Chips, grid: Grid) -> Shards:
        """The shards that some chip touches."""
        place, members = _touching(chips, grid)
        order = np.lexsort((members, place[2], place[1], place[0]))
        place, members = place[:, order], members[order]
        begins = np.ones(len(members), bool)
        begins[1:] = (place[:, 1:] != place[:, :-1]).any(axis=0)
        first = np.append(np.flatnonzero(begins), len(members)).astype(np.int64)
        epsg, row, col = place[:, first[:-1]].astype(np.int32)
        size = grid.shard_px.to_bytes(8, "little")
        places = np.ascontiguousarray(np.stack([epsg, row, col], axis=1))
        keys = [
            hashlib.sha256(size + places[i].tobytes() + chips.key[members[first[i] : first[i + 1]]].tobytes()).digest()
            for i in range(len(epsg))
        ]
        key = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        return cls(epsg, row, col, first, members.astype(np.int32), key, chips)

    def __len__(self) -> int:
        return len(self.row)

    @overload
    def __getitem__(self, position: int) -> ShardPlan: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[ShardPlan]: ...
    def __getitem__(self, position: int | slice) -> ShardPlan | Sequence[ShardPlan]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]
        chips = tuple(self.chips[int(m)] for m in self.members[self.first[i] : self.first[i + 1]])
        index = ShardIndex(int(self.row[i]), int(self.col[i]))
        return ShardPlan(int(self.epsg[i]), index, chips, self.key[i].tobytes().hex())

    def place(self, i: int) -> ShardIndex:
        """Place of the i-th shard."""
        return ShardIndex(int(self.row[i]), int(self.col[i]))

    def names(self) -> list[str]:
        """Zone, row and column of each shard, as the ledger names it."""
        places = zip(self.epsg.tolist(), self.row.tolist(), self.col.tolist(), strict=True)
        return [f"{epsg}/{row}_{col}" for epsg, row, col in places]


def _touching(chips: Chips, grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(3, k) zone, row and column of a shard, and the chip that touches it, for every such pair."""
    step, size, shard = grid.chip_step, grid.chip_side, grid.shard_px
    row, col = chips.row.astype(np.int64) * step, chips.col.astype(np.int64) * step
    top, left, bottom, right = row // shard, col // shard, (row + size - 1) // shard, (col + size - 1) // shard
    places, members = [], []
    for down in range(-(-size // shard) + 1):
        for across in range(-(-size // shard) + 1):
            here = np.flatnonzero((top + down <= bottom) & (left + across <= right))
            places.append(np.stack([chips.epsg[here].astype(np.int64), top[here] + down, left[here] + across]))
            members.append(here)
    return np.concatenate(places, axis=1), np.concatenate(members)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run will do, known before it does anything.

    Attributes:
        scenes: every scene that some chip uses, in order of id.
        chips, shards: in lattice order, by zone.
        manifest: JSON-able description: config, versions, content keys, shares.
    """

    scenes: tuple[Scene, ...]
    chips: Chips
    shards: Shards
    manifest: Mapping[str, Any]

    def zones(self) -> list[int]:
        """EPSG codes of the zones the plan touches, ascending."""
        return [int(epsg) for epsg in np.unique(self.shards.epsg)]

    def extent(self, epsg: int, grid: Grid) -> PixelWindow:
        """The window of whole shards that holds the plan's part of a zone."""
        here = self.shards.epsg == epsg
        return grid.shard_extent(self.shards.row[here].astype(np.int64), self.shards.col[here].astype(np.int64))


@dataclass(frozen=True, eq=False)
class StoredPlan:
    """A plan as it lies on disk: all but what is needed to read the scenes.

    Attributes:
        manifest: as in `Plan`.
        scenes: id, datetime, tile, epsg, baseline, cloud_cover, provider, version, chips, geometry; a row a scene.
        chips, shards: as in `Plan`.
    """

    manifest: Mapping[str, Any]
    scenes: gpd.GeoDataFrame
    chips: Chips
    shards: Shards


# ---------------------------------------------------------------------------------------------------------------------
# On disk
# ---------------------------------------------------------------------------------------------------------------------


def write_plan(plan: Plan, grid: Grid, staging: Storage) -> None:
    """Write the plan below ``plan/``: GeoParquet tables `scenes`, `chips`, `shards` and `manifest.json`.

    The geometry of a chip is its core, what it answers for; its window reaches half the overlap further on every side.
    The same plan gives the same bytes.

    Raises:
        StoreError: the store refuses.
    """
    folder = staging.child("plan")
    scenes = BytesIO()
    _scene_table(plan).to_parquet(scenes, index=False)
    folder.write("scenes.parquet", scenes.getvalue())
    folder.write("chips.parquet", _chip_file(plan, grid))
    folder.write("shards.parquet", _shard_file(plan, grid))
    folder.write("manifest.json", json.dumps(plan.manifest, indent=1, sort_keys=True).encode())


def copy_plan(staging: Storage, folder: str) -> None:
    """Keep the plan of a run under another folder of it.

    Raises:
        StoreError: there is none, or the store refuses.
    """
    source, kept = staging.child("plan"), staging.child(folder)
    for name in ("scenes.parquet", "chips.parquet", "shards.parquet", "manifest.json"):
        kept.write(name, source.read(name))


def read_manifest(staging: Storage) -> dict[str, Any]:
    """The manifest of the plan in a staging folder.

    Raises:
        StoreError: there is none.
    """
    manifest: dict[str, Any] = json.loads(staging.child("plan").read("manifest.json"))
    return manifest


def read_plan(staging: Storage, name: str = "plan") -> StoredPlan:
    """The plan in a folder of a run's.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    folder = staging.child(name)
    manifest = json.loads(folder.read("manifest.json"))
    try:
        scenes = gpd.read_parquet(BytesIO(folder.read("scenes.parquet")))
        table = pq.read_table(BytesIO(folder.read("chips.parquet")), columns=list(_CHIP_FIELDS.names))
        chips = _chips_of_table(table, tuple(scenes["id"]))
        grid = Grid(**{name: manifest["config"]["grid"][name] for name in manifest["config"]["grid"]})
        return StoredPlan(manifest, scenes, chips, Shards.of(chips, grid))
    except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise StoreError(f"{folder.url}: is no plan of this version ({error}); make it again") from None


def _scene_table(plan: Plan) -> gpd.GeoDataFrame:
    uses = np.bincount(plan.chips.scenes[plan.chips.scenes >= 0], minlength=len(plan.scenes))
    rows = [
        {
            "id": scene.id,
            "datetime": scene.datetime.isoformat(),
            "tile": scene.tile,
            "epsg": scene.epsg,
            "baseline": scene.baseline,
            "cloud_cover": float(scene.cloud_cover),
            "provider": scene.provider,
            "version": scene.version_key(),
            "chips": int(used),
        }
        for scene, used in zip(plan.scenes, uses, strict=True)
    ]
    return gpd.GeoDataFrame(pd.DataFrame(rows), geometry=[s.footprint for s in plan.scenes], crs="EPSG:4326")


_CHIP_FIELDS = pa.schema(
    [
        ("epsg", pa.int32()),
        ("row", pa.int32()),
        ("col", pa.int32()),
        ("scenes", pa.list_(pa.string())),
        ("date", pa.date32()),
        ("covered", pa.float32()),
        ("clear", pa.float32()),
        ("key", pa.string()),
    ]
)
_SHARD_FIELDS = pa.schema(
    [("epsg", pa.int32()), ("row", pa.int32()), ("col", pa.int32()), ("chips", pa.int32()), ("key", pa.string())]
)


def _chip_file(plan: Plan, grid: Grid) -> bytes:
    """`chips.parquet`; `date` is that of the first scene."""
    chips = plan.chips
    ids = pa.array(chips.scene_ids, pa.string())
    days = np.array([scene.datetime.date() for scene in plan.scenes], "datetime64[D]")
    file = _GeoFile(_CHIP_FIELDS)
    for start in range(0, len(chips), _ROW_GROUP):
        part = slice(start, start + _ROW_GROUP)
        used = chips.scenes[part]
        offsets = np.concatenate([[0], np.cumsum((used >= 0).sum(axis=1))]).astype(np.int32)
        columns = [
            pa.array(chips.epsg[part]),
            pa.array(chips.row[part]),
            pa.array(chips.col[part]),
            pa.ListArray.from_arrays(pa.array(offsets), ids.take(pa.array(used[used >= 0]))),
            pa.array(days[used[:, 0]]),
            pa.array(chips.covered[part]),
            pa.array(chips.clear[part]),
            _hexadecimal(chips.key[part]),
        ]
        bounds = grid.chip_cores_m(chips.epsg[part], chips.row[part].astype(np.int64), chips.col[part].astype(np.int64))
        file.add(columns, in_degrees(bounds, chips.epsg[part]))
    return file.close()


def _shard_file(plan: Plan, grid: Grid) -> bytes:
    shards = plan.shards
    file = _GeoFile(_SHARD_FIELDS)
    side = grid.shard_px * 2.5
    for start in range(0, len(shards), _ROW_GROUP):
        part = slice(start, start + _ROW_GROUP)
        row, col = shards.row[part].astype(np.int64), shards.col[part].astype(np.int64)
        top = origin_m(shards.epsg[part]) - row * side
        bounds = np.stack([col * side, top - side, (col + 1) * side, top], axis=1)
        columns = [
            pa.array(shards.epsg[part]),
            pa.array(shards.row[part]),
            pa.array(shards.col[part]),
            pa.array(np.diff(shards.first)[part].astype(np.int32)),
            _hexadecimal(shards.key[part]),
        ]
        file.add(columns, in_degrees(bounds, shards.epsg[part]))
    return file.close()


class _GeoFile:
    """A GeoParquet 1.1 file that grows by row groups; longitude and latitude (OGC:CRS84), geometries as WKB."""

    def __init__(self, fields: pa.Schema) -> None:
        self._buffer = BytesIO()
        self._fields = fields.append(pa.field("geometry", pa.binary()))
        self._writer = pq.ParquetWriter(self._buffer, self._fields, compression="zstd")
        self._kinds: set[str] = set()
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def add(self, columns: list[pa.Array], shapes: NDArray[np.object_]) -> None:
        """One more row group."""
        self._kinds |= {str(shape) for shape in np.unique(shapely.get_type_id(shapes))}
        low, high = shapely.bounds(shapes)[:, :2].min(axis=0), shapely.bounds(shapes)[:, 2:].max(axis=0)
        self._bounds = np.concatenate([np.minimum(self._bounds[:2], low), np.maximum(self._bounds[2:], high)])
        wkb = pa.array(shapely.to_wkb(shapes), pa.binary())
        self._writer.write_table(pa.table([*columns, wkb], schema=self._fields), row_group_size=_ROW_GROUP)

    def close(self) -> bytes:
        """The whole file."""
        kinds = [{"3": "Polygon", "6": "MultiPolygon"}[kind] for kind in sorted(self._kinds)]
        column = {"encoding": "WKB", "geometry_types": kinds, "bbox": [round(float(v), 9) for v in self._bounds]}
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        self._writer.add_key_value_metadata({"geo": json.dumps(geo, sort_keys=True)})
        self._writer.close()
        return self._buffer.getvalue()


def _hexadecimal(keys: NDArray[np.uint8]) -> pa.Array:
    """(n, 32) uint8 as n strings of 64 hexadecimal digits."""
    text = np.frombuffer(np.ascontiguousarray(keys).tobytes().hex().encode(), np.uint8)
    offsets = np.arange(0, text.size + 1, 2 * KEY_BYTES, dtype=np.int32)
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(text))


def _chips_of_table(table: pa.Table, scene_ids: tuple[str, ...]) -> Chips:
    table = table.combine_chunks()
    lists = table["scenes"].combine_chunks()
    counts = np.asarray(lists.value_lengths())
    scenes = np.full((len(table), int(counts.max(initial=1))), -1, np.int32)
    number = np.asarray(pa.compute.index_in(lists.flatten(), value_set=pa.array(scene_ids, pa.string())))
    scenes[np.arange(scenes.shape[1]) < counts[:, None]] = number
    key = np.frombuffer(bytes.fromhex("".join(table["key"].to_pylist())), np.uint8).reshape(-1, KEY_BYTES)
    plain = {name: np.asarray(table[name]) for name in ("epsg", "row", "col", "covered", "clear")}
    return Chips(**plain, scenes=scenes, key=key, scene_ids=scene_ids)


# ---------------------------------------------------------------------------------------------------------------------
# On the globe
# ---------------------------------------------------------------------------------------------------------------------


def in_degrees(bounds_m: NDArray[np.float64], epsg: NDArray[np.int32]) -> NDArray[np.object_]:
    """Boxes in metres of their zones as polygons in longitude and latitude, cut at 180° where they cross it.

    Args:
        bounds_m: (n, 4) left, bottom, right, top.
        epsg: (n,) zone of each box.
    """
    left, bottom, right, top = bounds_m.T
    x = np.stack([left, left, right, right, left], axis=1)
    y = np.stack([top, bottom, bottom, top, top], axis=1)
    corners = np.empty((len(bounds_m), 5, 2))
    for zone in np.unique(epsg):
        here = epsg == zone
        lon, lat = _to_geographic(int(zone)).transform(x[here], y[here])
        corners[here] = np.stack([lon, lat], axis=-1)
    shapes: NDArray[np.object_] = shapely.polygons(corners)
    for i in np.flatnonzero(np.ptp(corners[:, :, 0], axis=1) > 180):
        unrolled = shapely.polygons(np.stack([corners[i, :, 0] % 360.0, corners[i, :, 1]], axis=-1))
        beyond = shapely.intersection(unrolled, box(180, -90, 360, 90))
        here = shapely.intersection(unrolled, box(0, -90, 180, 90))
        beyond = shapely.transform(beyond, lambda x, y: (x - 360.0, y), interleaved=False)
        parts = [part for part in (beyond, here) if part.area > 0]
        shapes[i] = shapely.multipolygons(parts) if len(parts) > 1 else parts[0]
    return shapes


@lru_cache(maxsize=256)
def _to_geographic(epsg: int) -> Transformer:
    return Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326", always_xy=True)


def iterate_zones(chips: Chips) -> Iterator[tuple[int, slice]]:
    """Each zone of a table and the rows that belong to it."""
    starts = np.flatnonzero(np.diff(chips.epsg, prepend=-1))
    stops = np.append(starts[1:], len(chips))
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        yield int(chips.epsg[start]), slice(start, stop)
