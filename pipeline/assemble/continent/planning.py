"""The plan of a cube of one CRS: its shards, and the zones' shards that each is made of. No pixel is opened."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from difffusr.pipeline.assemble.continent.sources import (
    SourcePeriod,
    all_places,
    source_places,
    touching,
    windows_in_degrees,
)
from difffusr.pipeline.assemble.continent.warping import Resolution, ZoneView
from difffusr.pipeline.config import EVERYWHERE, RunConfig
from difffusr.pipeline.cube import Cube, CubeDraft, draft_cube
from difffusr.pipeline.geo import Grid, Lattice, PixelWindow, area_geometry, grid_of
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.plan import Chips, Plan, Shards
from difffusr.pipeline.storage import Storage, storage_of

log = logging.getLogger("difffusr.planner")

#: Part of every shard's key: changing it makes all of them again.
_ALGORITHM = "cubic or mean, mode; zones by smooth weights: 1"


@dataclass(frozen=True, eq=False, kw_only=True)
class ContinentPlan(Plan):
    """The plan of a cube of one CRS: shards without chips.

    Attributes:
        source: what it is made of.
        lattice: its pixels.
        window: what its arrays cover, the same in every period.
        zones_of: (shards, zones) bool, the zones that each shard shows, in the order of `source.views`.
    """

    source: SourcePeriod
    lattice: Lattice
    window: PixelWindow
    zones_of: NDArray[np.bool_]

    def extent(self, epsg: int, grid: Grid) -> PixelWindow:
        """See `Plan`."""
        return self.window

    @cached_property
    def resolution(self) -> Resolution:
        """How zones are brought to its pixels."""
        return Resolution.of(self.lattice, min(self.source.cube.overviews(epsg) for epsg in self.source.views))


def with_source(config: RunConfig) -> RunConfig:
    """A configuration with what its source decides: samples and composite of the cube that zones are taken from."""
    if config.source.cube is None:
        return config
    cube = Cube(source_places(config)[0])
    attributes: list[dict[str, Any]] = [dict(cube.zones[epsg].attrs) for epsg in sorted(cube.zones)]
    samples = {zone.get("difffusr:uncertainty_samples", 0) for zone in attributes}
    composites = {zone.get("difffusr:composite", "none") for zone in attributes}
    if len(samples) > 1 or len(composites) > 1:
        raise ConfigError(f"source.cube: the zones of {cube.storage.url} have different variables")
    model = config.model.model_copy(update={"uncertainty_samples": samples.pop()})
    return config.model_copy(
        update={"model": model, "scenes": config.scenes.model_copy(update={"composite": composites.pop()})}
    )


def plan_continent(config: RunConfig) -> ContinentPlan:
    """What a run makes of the zones of `source.cube`.

    Raises:
        ConfigError: the cube does not have the period, the CRS is none, or nothing of the cube lies in the area.
        StoreError: the cube, or its ledger, cannot be read.
    """
    assert config.grid.crs is not None
    source, grid = SourcePeriod.of(config), grid_of(config)
    lattice = _cut(Lattice.asked_for(config.grid.crs, config.grid.resolution), source)
    rows, cols = _inside(config, lattice, grid, *all_places(source, lattice, grid.shard_px))
    if not len(rows):
        raise ConfigError(f"area: nothing of {source.cube.storage.url} lies in it; choose another area")
    window = grid.shard_extent(rows.astype(np.int64), cols.astype(np.int64))
    shards, zones = shards_of(source, lattice, grid.shard_px, (rows, cols))
    if not len(shards):
        raise ConfigError(f"area: {source.cube.storage.url} has nothing of {source.label} in it; choose another area")
    if not all(source.cube.collar_m(epsg) for epsg in source.views) and len(source.views) > 1:
        log.warning(
            "%s: its zones go over into each other on %.0f m: it was begun before zones had a collar of their own "
            "(those of new cubes meet on 2 km)", source.cube.storage.url, 2 * source.half_m,
        )  # fmt: skip
    log.info("%d shards of %s from %d of its zones", len(shards), lattice.known.name, len(source.epsg))
    return ContinentPlan(
        (), _no_chips(), shards, _manifest(config), source=source, lattice=lattice, window=window, zones_of=zones
    )


def shards_of(
    source: SourcePeriod,
    lattice: Lattice,
    shard_px: int,
    within: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None,
) -> tuple[Shards, NDArray[np.bool_]]:
    """The shards of a lattice that a cube's zones show something of, and (shards, zones) bool, which zones do.

    Args:
        shard_px: their side.
        within: rows and columns of those to take; all by default.
    """
    row, col, member = touching(lattice, shard_px, source.epsg, source.row, source.col, source.shard_px)
    if within is not None:
        kept = np.isin(_coded(row, col), _coded(*within))
        row, col, member = row[kept], col[kept], member[kept]
    order = np.lexsort((member, col, row))
    row, col, member = row[order], col[order], member[order]
    begins = np.flatnonzero(np.diff(_coded(row, col), prepend=-(1 << 62)))
    place, first = (row[begins], col[begins]), np.append(begins, len(row))
    codes = np.array(list(source.views), np.int32)
    zones = np.zeros((len(begins), len(codes)), bool)
    if len(begins):
        zones = np.logical_or.reduceat(source.epsg[member][:, None] == codes, begins, axis=0)
    return _shards(lattice, source, shard_px, place, first, member), zones


def _cut(lattice: Lattice, source: SourcePeriod) -> Lattice:
    return cut_lattice(lattice, source.views)


def cut_lattice(lattice: Lattice, views: Mapping[int, ZoneView]) -> Lattice:
    """A lattice of degrees, cut at 180°, or in the middle of what the zones do not show where they cross that.

    Args:
        views: the zones, by EPSG code.
    """
    if not lattice.is_geographic:
        return lattice
    taken = np.zeros(360, bool)  # degrees from −180° on
    for code, view in views.items():
        own = view.lattice
        left, bottom, right, top = own.bounds(view.window)
        middle = 6.0 * (code % 100) - 183.0
        if view.of_crs is not None:
            middle = float(own.degrees((left + right) / 2, (bottom + top) / 2)[0])
        x, y = np.meshgrid(np.linspace(left, right, 9), np.linspace(bottom, top, 9))
        lon, _ = Transformer.from_crs(own.crs, lattice.crs, always_xy=True).transform(x, y)
        turned = (lon - middle + 180.0) % 360.0 - 180.0
        degrees = np.arange(math.floor(middle + turned.min()), math.ceil(middle + turned.max()))
        taken[(degrees + 180) % 360] = True
    if not (taken[0] and taken[-1]) or taken.all():
        return lattice
    free = np.flatnonzero(~taken)
    run = max(np.split(free, np.flatnonzero(np.diff(free) > 1) + 1), key=len)
    return replace(lattice, west=float(run[len(run) // 2] - 180))


def _inside(
    config: RunConfig, lattice: Lattice, grid: Grid, row: NDArray[np.int32], col: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Those of a lattice's shards that share ground with the configured area."""
    if config.area.bbox == EVERYWHERE:
        return row, col
    area = area_geometry(config)
    if isinstance(area, list):
        area = shapely.union_all(area)
    shapely.prepare(area)
    here = shapely.intersects(area, windows_in_degrees(lattice, row, col, grid.shard_px))
    return row[here], col[here]


def _coded(row: NDArray[np.int32], col: NDArray[np.int32]) -> NDArray[np.int64]:
    code: NDArray[np.int64] = (row.astype(np.int64) << 32) + col
    return code


def _shards(
    lattice: Lattice,
    source: SourcePeriod,
    shard_px: int,
    place: tuple[NDArray[np.int32], NDArray[np.int32]],
    first: NDArray[np.int64],
    member: NDArray[np.int64],
) -> Shards:
    """The table of shards; a shard's key covers all that its pixels depend on."""
    common = hashlib.sha256(json.dumps([_ALGORITHM, asdict(lattice), source.half_m, shard_px]).encode())
    epsg, row, col = source.epsg.tolist(), source.row.tolist(), source.col.tolist()
    told = [f"{e}/{r}_{c} {d}\n".encode() for e, r, c, d in zip(epsg, row, col, source.digests, strict=True)]
    digests = []
    bounds, members = first.tolist(), member.tolist()
    for start, stop in pairwise(bounds):
        key = common.copy()
        key.update(b"".join([told[at] for at in members[start:stop]]))
        digests.append(key.digest())
    count = len(digests)
    keys = np.frombuffer(b"".join(digests), np.uint8).reshape(count, common.digest_size)
    return Shards(
        np.full(count, lattice.number, np.int32), *place, np.zeros(count + 1, np.int64), np.zeros(0, np.int32), keys,
        _no_chips(),
    )  # fmt: skip


def _no_chips() -> Chips:
    none = np.zeros(0, np.int32)
    return Chips(
        none, none, none, np.zeros((0, 1), np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32),
        np.zeros((0, 32), np.uint8), (),
    )  # fmt: skip


def _manifest(config: RunConfig) -> dict[str, Any]:
    return {
        "config": config.canonical(),
        "model": "",
        "algorithm": _ALGORITHM,
        "versions": {name: version(name) for name in ("difffusr", "rasterio", "pyproj", "zarr")},
    }


def draft_continent(
    config: RunConfig,
    plan: ContinentPlan,
    revise: Mapping[int, int] | None = None,
    begun: Collection[int] = (),
    storage: Storage | None = None,
) -> CubeDraft:
    """The cube as it will be once the plan is carried out; arguments as of `run.draft_of`."""
    period, source = (config.period.start, config.period.end), plan.source
    told = dict(source.cube.attributes.get("difffusr:provenance") or {})
    provenance = {
        **{name: value for name, value in told.items() if name != "config"},
        "software": {**told.get("software", {}), "difffusr": version("difffusr")},
        "derived_from": {"cube": source.cube.storage.url, "config": told.get("config", {})},
        "config": {name: plan.manifest["config"][name] for name in ("area", "period", "source", "grid")},
    }
    return draft_cube(
        storage or storage_of(config), grid_of(config), {plan.lattice.number: plan.window}, period,
        source.cube.scenes_of(period), provenance, config.model.uncertainty_samples,
        composite=config.scenes.composite, revise=revise, begun=begun, of_crs=plan.lattice,
    )  # fmt: skip


def write_continent(plan: ContinentPlan, grid: Grid, staging: Storage, name: str) -> None:
    """Write the plan into a folder of its run: `shards.parquet` (row, column, zones, key) and `manifest.json`."""
    shards, codes = plan.shards, np.array(list(plan.source.views))
    table = pa.table(
        {
            "row": pa.array(shards.row),
            "col": pa.array(shards.col),
            "zones": pa.array([codes[here].tolist() for here in plan.zones_of], pa.list_(pa.int32())),
            "key": pa.array([key.tobytes().hex() for key in shards.key]),
        }
    )
    buffer, folder = BytesIO(), staging.child(name)
    pq.write_table(table, buffer, compression="zstd")
    folder.write("shards.parquet", buffer.getvalue())
    folder.write("manifest.json", json.dumps(plan.manifest, indent=1, sort_keys=True).encode())
