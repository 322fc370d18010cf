"""Scenes × lattice → the plan: which chips to compute, from which scenes, for which shards."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.geo import GSD_10_M, Grid, grid_of, origin_m, to_zone
from difffusr.pipeline.ground.errors import CatalogError, ReadError
from difffusr.pipeline.plan.aside import Aside
from difffusr.pipeline.plan.borders import count_borders
from difffusr.pipeline.plan.coverage import chips_to_plan, collar_m
from difffusr.pipeline.plan.keys import ALGORITHM_VERSION, ContentKeys
from difffusr.pipeline.plan.looks import Cells, Look, look_at_all
from difffusr.pipeline.plan.ranking import Candidates, Ranked, Strip, rank_strip
from difffusr.pipeline.plan.tables import Chips, Plan, Shards, iterate_zones
from difffusr.pipeline.scenes import ChipRules, Scene, describe
from difffusr.pipeline.storage import staging_of

log = logging.getLogger("difffusr.planner")

#: Rows of chips planned at a time; only the looks of the scenes of one strip are in memory.
_STRIP_ROWS = 64

#: How far a file may reach beyond its item's footprint if the item does not give the file's size.
_LOOSE_FOOTPRINT_M = 20_000.0


def make_plan(config: RunConfig, scenes: Sequence[Scene], model_fingerprint: str, aside: Aside | None = None) -> Plan:
    """Decide what to compute.

    Goes zone by zone, from north to south, one strip of rows at a time: time and files read grow with the area, memory
    only with its width.

    Args:
        scenes: candidates, as `find_scenes` returns them.
        model_fingerprint: identifies weights and sampler; part of every chip's key.
        aside: scenes that are not to be used, or not in some chips.

    Raises:
        CatalogError: no scene has a readable pixel in the area, or no chip has enough usable pixels.
    """
    grid = grid_of(config)
    ordered = sorted(scenes, key=lambda scene: scene.id)
    rules = ChipRules.of(config.canonical()["scenes"], staging_of(config))
    scene_log, struck = _SceneLog(rules), aside.by_number(ordered) if aside is not None else {}
    parts = []
    for epsg, (rows, cols) in chips_to_plan(config, ordered, grid).items():
        numbers = [number for number, scene in enumerate(ordered) if scene.epsg == epsg]
        ranked = _plan_zone(config, rules, grid, rows, cols, ordered, numbers, struck, scene_log)
        parts += [(epsg, part) for part in ranked]
    scene_log.report(ordered)
    if not any(len(part.row) for _, part in parts):
        shares = ", ".join(f"{s.id} ({s.cloud_cover:.0f} % cloud)" for s in ordered[:3])
        raise CatalogError(
            f"no chip of the area has enough usable pixels in the {len(ordered)} scenes found ({shares} …); widen the "
            "period or the area, or allow clouds with scenes.allow_cloudy: true and scenes.min_clear_share: 0"
        )
    used, chips = _table(config, ordered, parts, model_fingerprint)
    cloudy = int((chips.clear == 0).sum())
    if cloudy:
        log.warning(
            "%d of %d chips have no clear pixel in any scene: they are computed from cloud and flagged "
            "cloudy in `quality` (scenes.allow_cloudy: false leaves them out)",
            cloudy, len(chips),
        )  # fmt: skip
    shards = Shards.of(chips, grid)
    return Plan(used, chips, shards, _manifest(config, used, chips, shards, model_fingerprint))


def _plan_zone(
    config: RunConfig,
    rules: ChipRules,
    grid: Grid,
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    scenes: Sequence[Scene],
    numbers: Sequence[int],
    struck: Mapping[int, Collection[tuple[int, int]] | None],
    scene_log: _SceneLog,
) -> Iterator[Ranked]:
    """The chips of one zone with their ranked scenes, one strip of rows at a time."""
    cells = Cells.of(grid)
    candidates = Candidates.of(scenes, config.scenes.policy)
    reach = {number: _rows_of(scenes[number], grid) for number in numbers}
    order = sorted(numbers, key=lambda number: (reach[number], number))
    looks = zip(order, look_at_all([scenes[number] for number in order], grid, rules), strict=True)
    held: dict[int, Look] = {}
    upcoming = iter(order)
    waiting = next(upcoming, None)
    above = None
    for top in range(_strip_of(int(rows[0])), int(rows[-1]) + 1, _STRIP_ROWS):
        bottom = top + _STRIP_ROWS
        while waiting is not None and reach[waiting][0] < bottom:
            number, look = next(looks)
            scene_log.note(scenes[number], look)
            if isinstance(look, Look):
                held[number] = _without_haze(scenes[number], look)
            waiting = next(upcoming, None)
        here = slice(*np.searchsorted(rows, [top, bottom]))
        if here.start < here.stop:
            strip = Strip.of(top, _STRIP_ROWS, rows[here], cols[here])
            ranked = rank_strip(config.scenes, cells, candidates, strip, held, above, struck)
            above = strip.bottom_labels(ranked)
            yield ranked
        else:
            above = None
        held = {number: look for number, look in held.items() if reach[number][1] >= bottom}


def _without_haze(scene: Scene, look: Look) -> Look:
    """A look of which nothing is clear if the scene counts as hazy: others are used first."""
    hazy = scene.correction is not None and scene.correction.hazy
    return replace(look, clear=np.zeros_like(look.clear)) if hazy else look


def _strip_of(row: int) -> int:
    return row // _STRIP_ROWS * _STRIP_ROWS


def _rows_of(scene: Scene, grid: Grid) -> tuple[int, int]:
    """First and last row of the chips that a scene may cover."""
    asset = scene.scl or max(scene.assets.values(), key=lambda asset: asset.gsd_m)
    if asset.transform is not None and asset.shape is not None:
        top = asset.transform[5]
        bottom = top - asset.shape[0] * asset.gsd_m
    else:
        _, bottom, _, top = to_zone(scene.footprint, scene.epsg).bounds
        bottom, top = bottom - _LOOSE_FOOTPRINT_M, top + _LOOSE_FOOTPRINT_M
    step, size, origin = grid.stride_px * GSD_10_M, grid.chip_px * GSD_10_M, origin_m(scene.epsg)
    return int((origin - top - size) // step), int((origin - bottom) // step)


class _SceneLog:
    """Collects which scenes can be read and judged, and logs each finding once."""

    def __init__(self, rules: ChipRules) -> None:
        self.rules = rules
        self.readable: list[Scene] = []
        self.unjudged: list[Scene] = []
        self.unreadable: list[ReadError] = []
        self.doubted: list[str] = []

    def note(self, scene: Scene, look: Look | ReadError) -> None:
        if isinstance(look, ReadError):
            self.unreadable.append(look)
            return
        self.readable.append(scene)
        if not look.judged:
            self.unjudged.append(scene)
        if look.doubt:
            self.doubted.append(f"{scene.id}: {look.doubt}")
        log.info("%s", describe(scene))

    def report(self, scenes: Sequence[Scene]) -> None:
        if self.unreadable and not self.readable:
            raise CatalogError(f"none of the {len(scenes)} scenes found can be read; the first: {self.unreadable[0]}")
        for error in self.unreadable:
            log.warning("scene left out: %s", error)
        if self.doubted:
            log.warning(
                "the pixels of %d of %d scenes contradict the offset flag of their items: %s%s; correct the items, or "
                "leave the scenes out",
                len(self.doubted), len(self.readable), "; ".join(self.doubted[:3]), " …" if self.doubted[3:] else "",
            )  # fmt: skip
        lacking = [scene for scene in self.readable if self.rules.masks == "asset" and scene.cloud is None]
        if lacking:
            log.warning(
                "%d of %d scenes have no cloud probability among their assets (%s …): their SCL decides what is cloud",
                len(lacking), len(self.readable), lacking[0].id,
            )  # fmt: skip
        if self.unjudged:
            log.warning(
                "%d of %d scenes have no SCL asset (%s …): every pixel with data counts as clear, ranked by the "
                "product's own cloud figure",
                len(self.unjudged), len(self.readable), self.unjudged[0].id,
            )  # fmt: skip


def _table(
    config: RunConfig, scenes: Sequence[Scene], parts: Sequence[tuple[int, Ranked]], model: str
) -> tuple[tuple[Scene, ...], Chips]:
    """The scenes that some chip uses, and all chips."""
    epsg = np.concatenate([np.full(len(part.row), zone, np.int32) for zone, part in parts])
    row, col = (np.concatenate([getattr(part, name) for _, part in parts]) for name in ("row", "col"))
    covered, clear = (np.concatenate([getattr(part, name) for _, part in parts]) for name in ("covered", "clear"))
    chosen = np.concatenate([part.scenes for _, part in parts])
    keys = ContentKeys.of(config, scenes, model).table(np.stack([epsg, row, col], axis=1), chosen)
    used = np.unique(chosen[chosen >= 0])
    position = np.full(len(scenes) + 1, -1, np.int32)  # the last entry is for −1
    position[used] = np.arange(len(used))
    kept = tuple(scenes[number] for number in used)
    return kept, Chips(epsg, row, col, position[chosen], covered, clear, keys, tuple(scene.id for scene in kept))


def _manifest(config: RunConfig, scenes: Sequence[Scene], chips: Chips, shards: Shards, model: str) -> dict[str, Any]:
    return {
        "config": config.canonical(),
        "model": model,
        "algorithm": ALGORITHM_VERSION,
        "versions": {name: version(name) for name in ("difffusr", "numpy", "pyarrow", "rasterio", "shapely")},
        "scenes": len(scenes),
        "chips": len(chips),
        "shards": len(shards),
        "content": {
            "chips": hashlib.sha256(chips.key.tobytes()).hexdigest(),
            "shards": hashlib.sha256(shards.key.tobytes()).hexdigest(),
        },
        "clear_share": round(float(chips.clear.mean(dtype=np.float64)), 4),
        "covered_share": round(float(chips.covered.mean(dtype=np.float64)), 4),
        "borders": borders_between_dates(chips, [scene.datetime.date() for scene in scenes]),
        "collar_m": collar_m(config),
    }


def borders_between_dates(chips: Chips, dates: Sequence[dt.date]) -> int:
    """Sides between neighbouring chips of one zone whose first scenes are of different dates."""
    numbers = np.unique(np.array(dates, "datetime64[D]"), return_inverse=True)[1].astype(np.int32)
    borders = 0
    for _, part in iterate_zones(chips):
        row, col, date = chips.row[part], chips.col[part], numbers[chips.scenes[part, 0]]
        left, width = int(col.min()), int(col.max() - col.min()) + 1
        for first in range(int(row.min()), int(row.max()) + 1, _STRIP_ROWS):
            # One more row, for the sides to the next strip.
            here = (row >= first) & (row <= first + _STRIP_ROWS)
            block = np.full((_STRIP_ROWS + 1, width), -1, np.int32)
            block[row[here] - first, col[here] - left] = date[here]
            borders += count_borders(block) - count_borders(block[-1:])
    return borders
