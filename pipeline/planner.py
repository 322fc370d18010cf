"""Scenes × lattice → the plan: which chips are computed, from which scenes, for which shards."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from kernels.bands import TARGET_GSD_M
from pipeline.catalog import Scene, describe
from pipeline.config import RunConfig, area_geometry
from pipeline.errors import CatalogError, ReadError
from pipeline.grid import LATTICE_M, ChipIndex, Grid, PixelWindow, ShardIndex, to_zone, utm_epsg
from pipeline.raster import is_clear, read_overview
from pipeline.storage import Storage

log = logging.getLogger("difffusr.planner")

#: Changes whenever a chip computed from the same inputs comes out with other numbers.
ALGORITHM_VERSION = 1

#: A chip's further scenes are added until this share of what they can show is clear.
_CLEAR_ENOUGH = 0.995


@dataclass(frozen=True)
class ChipPlan:
    """One chip to compute.

    Attributes:
        epsg: its zone.
        index: its place on the zone's lattice.
        scenes: ids of the scenes to use, best first.
        covered: share of the chip that the scenes cover, 0 … 1.
        clear: share of the chip that they cover without cloud, 0 … 1.
        key: hash of everything its pixels depend on.
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
        key: hash of everything its pixels depend on.
    """

    epsg: int
    index: ShardIndex
    chips: tuple[ChipPlan, ...]
    key: str

    @property
    def name(self) -> str:
        """Zone, row and column, as the manifest and messages show them."""
        return f"{self.epsg}/{self.index.row}_{self.index.col}"


@dataclass(frozen=True)
class Plan:
    """What a run will do, known before it does anything.

    Attributes:
        scenes: every scene that some chip uses, in order of id.
        chips, shards: in lattice order, by zone.
        manifest: JSON-able description: config, versions, content keys.
    """

    scenes: tuple[Scene, ...]
    chips: tuple[ChipPlan, ...]
    shards: tuple[ShardPlan, ...]
    manifest: Mapping[str, Any]

    def zones(self) -> list[int]:
        """EPSG codes of the zones the plan touches, ascending."""
        return sorted({shard.epsg for shard in self.shards})

    def extent(self, epsg: int, grid: Grid) -> PixelWindow:
        """The window of whole shards that holds the plan's part of a zone."""
        return grid.shard_extent([s.index for s in self.shards if s.epsg == epsg])


@dataclass(frozen=True)
class SceneMask:
    """Where a scene has data and where it is clear, on the 60 m lattice.

    Attributes:
        row, col: lattice position of the top left cell, in cells from the zone's origin.
        valid, clear: (h, w) bool; clear implies valid.
        judged: whether the scene has a classification to tell clouds by.
    """

    row: int
    col: int
    valid: NDArray[np.bool_]
    clear: NDArray[np.bool_]
    judged: bool

    def cut(self, window: PixelWindow) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(valid, clear) over a window of the zone; False outside the scene."""
        step = int(LATTICE_M / TARGET_GSD_M)
        row, col = window.row // step - self.row, window.col // step - self.col
        shape = window.height // step, window.width // step
        out = np.zeros((2, *shape), bool)
        h, w = self.valid.shape
        r0, r1, c0, c1 = max(row, 0), min(row + shape[0], h), max(col, 0), min(col + shape[1], w)
        if r0 < r1 and c0 < c1:
            target = np.s_[r0 - row : r1 - row, c0 - col : c1 - col]
            out[0][target], out[1][target] = self.valid[r0:r1, c0:c1], self.clear[r0:r1, c0:c1]
        return out[0], out[1]


def make_plan(config: RunConfig, scenes: Sequence[Scene], model_fingerprint: str) -> Plan:
    """Decide what to compute.

    Args:
        scenes: candidates, as `catalog.find_scenes` returns them.
        model_fingerprint: identifies weights and sampler; part of every chip's key.

    Raises:
        CatalogError: none of the scenes has a readable pixel in the area.
    """
    grid = grid_of(config)
    masks, unreadable = _read_masks(scenes)
    usable = [scene for scene in scenes if scene.id in masks]
    if not usable:
        raise CatalogError(f"none of the {len(scenes)} scenes found can be read; the first: {unreadable[0]}")
    for error in unreadable:
        log.warning("scene left out: %s", error)
    unjudged = [s.id for s in usable if not masks[s.id].judged]
    if unjudged:
        log.warning(
            "%d of %d scenes have no SCL asset (%s …): every pixel with data counts as clear, ranked by the product's "
            "own cloud figure",
            len(unjudged), len(usable), unjudged[0],
        )  # fmt: skip
    given = area_geometry(config)
    area = None if isinstance(given, list) else given
    chips: list[ChipPlan] = []
    for epsg in sorted({scene.epsg for scene in usable}):
        local = [scene for scene in usable if scene.epsg == epsg]
        zone_area = _zone_area(area, local, epsg)
        for index in grid.chips_over(zone_area):
            if _belongs_elsewhere(grid, index, epsg, usable):
                continue
            chip = _plan_chip(config, grid, epsg, index, local, masks, model_fingerprint)
            if chip is not None:
                chips.append(chip)
    if not chips:
        shares = ", ".join(f"{s.id} ({s.cloud_cover:.0f} % cloud)" for s in usable[:3])
        raise CatalogError(
            f"no chip of the area has enough usable pixels in the {len(usable)} scenes found ({shares} …); widen the "
            "period or the area, or allow clouds with scenes.allow_cloudy: true and scenes.min_clear_share: 0"
        )
    cloudy = sum(chip.clear == 0 for chip in chips)
    if cloudy:
        log.warning(
            "%d of %d chips have no clear pixel in any scene: they are computed from cloud and flagged "
            "cloudy in `quality` (scenes.allow_cloudy: false leaves them out)",
            cloudy, len(chips),
        )  # fmt: skip
    shards = _plan_shards(grid, chips)
    used = {scene_id for chip in chips for scene_id in chip.scenes}
    kept = tuple(sorted((s for s in usable if s.id in used), key=lambda s: s.id))
    manifest = {
        "config": config.canonical(),
        "model": model_fingerprint,
        "algorithm": ALGORITHM_VERSION,
        "scenes": [scene.id for scene in kept],
        "chips": len(chips),
        "shards": {shard.name: shard.key for shard in shards},
        "clear_share": round(float(np.mean([c.clear for c in chips])), 4),
        "covered_share": round(float(np.mean([c.covered for c in chips])), 4),
    }
    return Plan(kept, tuple(chips), tuple(shards), manifest)


def grid_of(config: RunConfig) -> Grid:
    """The grid a configuration asks for."""
    g = config.grid
    return Grid(g.chip_px, g.overlap_px, g.shard_px, g.chunk_px)


def _plan_chip(
    config: RunConfig,
    grid: Grid,
    epsg: int,
    index: ChipIndex,
    scenes: Sequence[Scene],
    masks: Mapping[str, SceneMask],
    model_fingerprint: str,
) -> ChipPlan | None:
    """Rank the scenes of one chip; None when nothing usable covers it."""
    window = grid.chip_window(index)
    views = {}
    for scene in scenes:
        valid, clear = masks[scene.id].cut(window)
        if valid.any():
            views[scene.id] = (scene, valid, clear)
    if not views:
        return None
    chosen: list[str] = []
    cells = (grid.chip_px // 6) ** 2
    covered = np.zeros((grid.chip_px // 6,) * 2, bool)
    seen_clear = covered.copy()
    while len(chosen) < config.scenes.max_scenes:
        best = max(
            (v for scene_id, v in views.items() if scene_id not in chosen),
            key=lambda v: _merit(v, covered, seen_clear),
            default=None,
        )
        if best is None:
            break
        scene, valid, clear = best
        gain_clear = int((clear & ~seen_clear).sum())
        gain_cover = int((valid & ~covered).sum()) if config.scenes.allow_cloudy else 0
        if chosen and gain_clear + gain_cover == 0:
            break
        chosen.append(scene.id)
        covered |= valid
        seen_clear |= clear
        if seen_clear.sum() >= _CLEAR_ENOUGH * cells:
            break
    clear_share = float(seen_clear.sum()) / cells
    usable = covered.any() if config.scenes.allow_cloudy else seen_clear.any()
    if not usable or clear_share < config.scenes.min_clear_share:
        return None
    by_id = {s.id: s for s in scenes}
    key = _content_key(config, epsg, index, [by_id[i] for i in chosen], model_fingerprint)
    return ChipPlan(epsg, index, tuple(chosen), round(float(covered.mean()), 4), round(clear_share, 4), key)


def _merit(
    view: tuple[Scene, NDArray[np.bool_], NDArray[np.bool_]],
    covered: NDArray[np.bool_],
    seen_clear: NDArray[np.bool_],
) -> tuple[float, float, float, float, str]:
    """What a scene would add: clear cells first, then any cells; ties go to less cloud, then newer, then id."""
    scene, valid, clear = view
    added_clear = round(float((clear & ~seen_clear).mean()), 2)
    added = round(float((valid & ~covered).mean()), 2)
    return added_clear, added, -scene.cloud_cover, scene.datetime.timestamp(), scene.id


def _content_key(config: RunConfig, epsg: int, index: ChipIndex, scenes: Sequence[Scene], model: str) -> str:
    content = {
        "algorithm": ALGORITHM_VERSION,
        "model": model,
        "zone": epsg,
        "chip": list(index),
        "seed": config.model.seed,
        "grid": [config.grid.chip_px, config.grid.overlap_px],
        "cloudy": config.scenes.allow_cloudy,
        "scenes": [scene.version_key() for scene in scenes],
    }
    if config.model.uncertainty_samples:
        content["uncertainty"] = config.model.uncertainty_samples
    return digest(content)


def digest(content: Any) -> str:
    """sha256 of JSON-able content in canonical form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plan_shards(grid: Grid, chips: Iterable[ChipPlan]) -> list[ShardPlan]:
    touching: dict[tuple[int, ShardIndex], list[ChipPlan]] = {}
    for chip in chips:
        for index in grid.shards_touching(grid.chip_window(chip.index)):
            touching.setdefault((chip.epsg, index), []).append(chip)
    shards = []
    for (epsg, index), members in sorted(touching.items()):
        content = {"shard": [epsg, *index], "size": grid.shard_px, "chips": [chip.key for chip in members]}
        shards.append(ShardPlan(epsg, index, tuple(members), digest(content)))
    return shards


def _zone_area(area: BaseGeometry | None, scenes: Sequence[Scene], epsg: int) -> BaseGeometry:
    footprints = shapely.union_all([to_zone(scene.footprint, epsg) for scene in scenes])
    return footprints if area is None else to_zone(area, epsg)


def _belongs_elsewhere(grid: Grid, index: ChipIndex, epsg: int, scenes: Sequence[Scene]) -> bool:
    """Whether a chip's centre lies in another zone that has a scene there: tiles reach past their zone's edge."""
    left, bottom, right, top = grid.chip_window(index).bounds_m()
    lon, lat = _to_geographic(epsg).transform((left + right) / 2, (bottom + top) / 2)
    home = utm_epsg(lon, lat)
    if home == epsg:
        return False
    centre = shapely.Point(lon, lat)
    return any(scene.epsg == home and scene.footprint.covers(centre) for scene in scenes)


@lru_cache(maxsize=256)
def _to_geographic(epsg: int) -> Transformer:
    return Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326", always_xy=True)


def _read_masks(scenes: Sequence[Scene]) -> tuple[dict[str, SceneMask], list[ReadError]]:
    """Masks of all scenes that can be read, and why the others can't."""
    masks: dict[str, SceneMask] = {}
    unreadable = []
    with ThreadPoolExecutor(max_workers=8) as pool:
        for scene, result in zip(scenes, pool.map(_try_mask, scenes), strict=True):
            if isinstance(result, ReadError):
                unreadable.append(result)
            else:
                masks[scene.id] = result
                log.info("%s", describe(scene))
    return masks, unreadable


def _try_mask(scene: Scene) -> SceneMask | ReadError:
    try:
        return read_mask(scene)
    except ReadError as error:
        return error


def read_mask(scene: Scene) -> SceneMask:
    """Read where a scene has data (its 60 m band) and where it is clear (its SCL).

    Raises:
        ReadError: a file cannot be read.
    """
    band, row, col = read_overview(scene, "B01", LATTICE_M)
    valid = band > 0
    if scene.scl is None:
        return SceneMask(row, col, valid, valid, judged=False)
    classes, scl_row, scl_col = read_overview(scene, "SCL", LATTICE_M)
    if (scl_row, scl_col) != (row, col) or classes.shape != valid.shape:
        raise ReadError(
            f"scene {scene.id}, SCL: covers {classes.shape} cells of 60 m from {(scl_row, scl_col)}, the bands "
            f"{valid.shape} from {(row, col)}; the item's files do not belong together"
        )
    return SceneMask(row, col, valid, valid & is_clear(classes), judged=True)


# ---------------------------------------------------------------------------------------------------------------------
# The plan on disk
# ---------------------------------------------------------------------------------------------------------------------


def write_plan(plan: Plan, grid: Grid, staging: Storage) -> None:
    """Write the plan below ``plan/``: GeoParquet tables `scenes`, `chips`, `shards` and `manifest.json`.

    Raises:
        StoreError: the store refuses.
    """
    folder = staging.child("plan")
    for name, frame in (
        ("scenes", _scene_table(plan)),
        ("chips", _window_table(plan.chips, grid)),
        ("shards", _window_table(plan.shards, grid)),
    ):
        buffer = BytesIO()
        frame.to_parquet(buffer, index=False)
        folder.write(f"{name}.parquet", buffer.getvalue())
    folder.write("manifest.json", json.dumps(plan.manifest, indent=1, sort_keys=True).encode())


def read_manifest(staging: Storage) -> dict[str, Any]:
    """The manifest of the plan in a staging folder.

    Raises:
        StoreError: there is none.
    """
    manifest: dict[str, Any] = json.loads(staging.child("plan").read("manifest.json"))
    return manifest


def read_chip_table(staging: Storage) -> gpd.GeoDataFrame:
    """The planned chips: epsg, row, col, scenes, covered, clear, key, object, geometry (EPSG:4326)."""
    return gpd.read_parquet(BytesIO(staging.child("plan").read("chips.parquet")))


def _scene_table(plan: Plan) -> gpd.GeoDataFrame:
    rows = [
        {
            "id": scene.id,
            "datetime": scene.datetime.isoformat(),
            "tile": scene.tile,
            "epsg": scene.epsg,
            "baseline": scene.baseline,
            "cloud_cover": float(scene.cloud_cover),
            "provider": scene.provider,
            "chips": sum(scene.id in chip.scenes for chip in plan.chips),
        }
        for scene in plan.scenes
    ]
    return gpd.GeoDataFrame(rows, geometry=[s.footprint for s in plan.scenes], crs="EPSG:4326")


def _window_table(items: Sequence[ChipPlan] | Sequence[ShardPlan], grid: Grid) -> gpd.GeoDataFrame:
    rows, shapes = [], []
    for item in items:
        row: dict[str, Any] = {"epsg": item.epsg, "row": item.index.row, "col": item.index.col, "key": item.key}
        if isinstance(item, ChipPlan):
            row |= {"scenes": list(item.scenes), "covered": item.covered, "clear": item.clear}
            row["object"] = item.object_name
            window = grid.chip_window(item.index)
        else:
            row["chips"] = [f"{c.index.row}_{c.index.col}" for c in item.chips]
            window = grid.shard_window(item.index)
        rows.append(row)
        shapes.append(shapely.transform(window.box(), _to_geographic(item.epsg).transform, interleaved=False))
    return gpd.GeoDataFrame(rows, geometry=shapes, crs="EPSG:4326")
