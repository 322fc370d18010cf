"""A plan on disk: GeoParquet tables of scenes, chips and shards, and a manifest."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.config import GridSection
from difffusr.pipeline.geo import Grid, in_degrees, origin_m
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.plan.balance import write_balance
from difffusr.pipeline.plan.manifest import Manifest
from difffusr.pipeline.plan.tables import KEY_BYTES, Chips, Plan, Shards, StoredPlan
from difffusr.pipeline.scenes import Scene
from difffusr.pipeline.storage import Storage, as_kind, read_document, read_table

if TYPE_CHECKING:
    import geopandas as gpd

#: Rows written at a time, so that memory for geometries does not grow with the plan.
_ROW_GROUP = 65_536

#: `date` is that of the first scene.
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

#: What is needed of a scene in any version.
_SCENE_FIELDS = pa.schema([(name, pa.string()) for name in ("id", "datetime", "tile", "baseline", "version")])

#: Chips from a zone's origin to its farthest corner, at the least: 10 000 km in steps of 60 m.
_FARTHEST = 170_000

#: `chips` is how many the shard is blended from.
_SHARD_FIELDS = pa.schema(
    [("epsg", pa.int32()), ("row", pa.int32()), ("col", pa.int32()), ("chips", pa.int32()), ("key", pa.string())]
)


def write_plan(plan: Plan, grid: Grid, staging: Storage, name: str = "plan") -> None:
    """Write the plan into a folder of its run: GeoParquet tables `scenes`, `chips`, `shards`, `manifest.json`, and
    `balance` where scenes are balanced.

    A chip's geometry is its core; its window reaches half the overlap further on every side.
    The same plan gives the same bytes.

    Raises:
        StoreError: the store refuses.
    """
    folder = staging.child(name)
    scenes = BytesIO()
    _scene_table(plan).to_parquet(scenes, index=False)
    folder.write("scenes.parquet", scenes.getvalue())
    write_balance(plan.balance, folder)
    folder.write("chips.parquet", _chip_file(plan, grid))
    folder.write("shards.parquet", _shard_file(plan, grid))
    folder.write("manifest.json", json.dumps(plan.manifest, indent=1, sort_keys=True).encode())


def read_plan(staging: Storage, name: str = "plan") -> StoredPlan:
    """Read the plan in a folder of a run.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    import geopandas as gpd

    folder = staging.child(name)
    manifest = read_document(folder, "manifest.json", dict[str, Any], _ADVICE)
    made = as_kind(manifest, Manifest, f"{folder.url}/manifest.json", _ADVICE)
    table = read_table(folder, "chips.parquet", _CHIP_FIELDS.names, _ADVICE)
    try:
        # The geometries' own reader comes last: it takes its words about a file for granted.
        _check_scenes(read_table(folder, "scenes.parquet", _SCENE_FIELDS.names, _ADVICE))
        scenes = gpd.read_parquet(BytesIO(folder.read("scenes.parquet")))
        chips = _chips_of_table(table, tuple(scenes["id"]))
        return StoredPlan(manifest, scenes, chips, Shards.of(chips, _grid(made.config.grid)))
    except (
        pa.ArrowException,
        shapely.errors.ShapelyError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise StoreError(f"{folder.url}: cannot be understood ({one_line(error)}); {_ADVICE}") from None


def _grid(section: GridSection) -> Grid:
    return Grid(section.chip_px, section.overlap_px, section.shard_px, section.chunk_px)


_ADVICE = "it is of another version, or damaged: plan again"


def _check_scenes(table: pa.Table) -> None:
    """Raise ValueError or an error of pyarrow where the scenes' columns are not what they should be."""
    plain = table.select(_SCENE_FIELDS.names).cast(_SCENE_FIELDS)
    if any(column.null_count for column in plain.columns):
        raise ValueError("scenes.parquet: a scene lacks something")
    if len(set(plain["id"].to_pylist())) < len(plain):
        raise ValueError("scenes.parquet: a scene comes twice")


def _scene_table(plan: Plan) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pandas as pd

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
            **(_correction(plan, scene) if plan.balance is not None else {}),
        }
        for scene, used in zip(plan.scenes, uses, strict=True)
    ]
    return gpd.GeoDataFrame(pd.DataFrame(rows), geometry=[s.footprint for s in plan.scenes], crs="EPSG:4326")


def _correction(plan: Plan, scene: Scene) -> dict[str, Any]:
    """What is done to a scene, for its row; nothing where it could not be balanced."""
    done, made = scene.correction, plan.balance
    if done is None or made is None:
        return {"correction": "", "hazy": False}
    figures = {"shift": made.shift, "before": made.before, "after": made.after}
    return {
        "correction": done.key(),
        "gain": done.gain.tolist(),
        "offset": done.offset.ravel().tolist(),
        "factor": [round(float(value), 5) for value in done.factor.mean(axis=(1, 2), dtype=np.float64)],
        "angles": made.angles[scene.id],
        **{name: values[scene.id].tolist() for name, values in figures.items()},
        "hazy": done.hazy,
    }


def _chip_file(plan: Plan, grid: Grid) -> bytes:
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
    side = grid.shard_px * TARGET_GSD_M
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


def _hexadecimal(keys: NDArray[np.uint8]) -> pa.Array:
    """(n, 32) uint8 as n strings of 64 hexadecimal digits."""
    text = np.frombuffer(np.ascontiguousarray(keys).tobytes().hex().encode(), np.uint8)
    offsets = np.arange(0, text.size + 1, 2 * KEY_BYTES, dtype=np.int32)
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(text))


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


def _chips_of_table(table: pa.Table, scene_ids: tuple[str, ...]) -> Chips:
    table = table.cast(_CHIP_FIELDS).combine_chunks()
    if any(table[name].null_count for name in table.column_names if name != "date"):
        raise ValueError("chips.parquet: a chip lacks something")
    lists = table["scenes"].combine_chunks()
    counts = np.asarray(lists.value_lengths())
    scenes = np.full((len(table), int(counts.max(initial=1))), -1, np.int32)
    known = pc.index_in(lists.flatten(), value_set=pa.array(scene_ids, pa.string()))
    if known.null_count:
        raise ValueError("chips.parquet: a chip is of a scene that scenes.parquet does not have")
    number = np.asarray(known)
    scenes[np.arange(scenes.shape[1]) < counts[:, None]] = number
    key = np.frombuffer(bytes.fromhex("".join(table["key"].to_pylist())), np.uint8).reshape(-1, KEY_BYTES)
    plain = {name: np.asarray(table[name]) for name in ("epsg", "row", "col", "covered", "clear")}
    if len(key) != len(table) or not np.isin(plain["epsg"] // 100, (326, 327)).all():
        raise ValueError("chips.parquet: a chip has a key or a zone that there is not")
    if any((np.abs(plain[name].astype(np.int64)) > _FARTHEST).any() for name in ("row", "col")):
        raise ValueError("chips.parquet: a chip lies beyond its zone")
    return Chips(**plain, scenes=scenes, key=key, scene_ids=scene_ids)
