"""The workload that a plan leaves: chips, looks at scenes, shards, bytes, objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import SCALE
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import overviews_over
from difffusr.pipeline.geo import grid_of
from difffusr.pipeline.plan import Plan, Shards
from difffusr.pipeline.run.cost.calibration import Calibration

#: Objects of a run besides chips and shards: four of the plan, twice, report, progress, lease, claims, history, the
#: note that nothing is left to do, three that hold scenes, and copies of three documents beside the history.
_OBJECTS_PER_RUN = 20


@dataclass(frozen=True)
class Workload:
    """What a plan leaves to do.

    Attributes:
        chips: to compute.
        chips_by_scenes: of those, by how many scenes are planned for each.
        looks: times that a chip will be read from a scene.
        shard_seconds: (shards,) seconds that each takes.
        overviews: by level, (shards of the level,) the number of shards that each is made of.
        bytes_read, bytes_staged, bytes_cube: fetched, written to the staging folder and to the cube.
        objects: written to both.
        zones: to publish.
        km2: of cube that the chips to compute cover, as far as scenes cover them; what overlaps counts once.
    """

    chips: int
    chips_by_scenes: Mapping[int, int]
    looks: float
    shard_seconds: NDArray[np.float64]
    overviews: list[NDArray[np.int64]]
    bytes_read: float
    bytes_staged: float
    bytes_cube: float
    objects: int
    zones: int
    km2: float

    @classmethod
    def of(cls, plan: Plan, config: RunConfig, calibration: Calibration, done: int) -> Workload:
        """The workload of a plan.

        Args:
            done: chips that are staged already, pro rata.
        """
        planned = (plan.chips.scenes >= 0).sum(axis=1)
        chips = max(len(plan.chips) - done, 0)
        left = chips / max(len(plan.chips), 1)
        counts, numbers = np.unique(planned, return_counts=True)
        # Which chips are done is not known here, and hardly matters.
        by_scenes = {int(count): round(int(number) * left) for count, number in zip(counts, numbers, strict=True)}
        read, shard = calibration.read, calibration.shard
        # A composite reads all of its scenes, whatever rules the calibration was made with.
        further = 1.0 if config.scenes.composite != "none" else float(read.further_share)
        looks = left * float((1 + (planned - 1) * further).sum())
        pairs = np.diff(plan.shards.first)
        zones = len(plan.zones())
        variables = 3 + (config.model.uncertainty_samples > 0) + (config.scenes.composite != "none")
        pixels = _pixels(plan.shards, config)
        overviews = _overviews(plan, config)
        levels = sum(1 + overviews_over(plan.extent(epsg, grid_of(config)), grid_of(config)) for epsg in plan.zones())
        shards = len(plan.shards) + sum(map(len, overviews))
        return cls(
            chips,
            by_scenes,
            looks,
            shard.seconds + shard.seconds_per_chip * pairs,
            overviews,
            looks * read.bytes,
            chips * calibration.stage.bytes + left * calibration.stage.bytes_covered * float(plan.chips.covered.sum()),
            # A level has a quarter of the pixels of the one below.
            shards * shard.bytes
            + shard.bytes_per_pixel * pixels
            + calibration.overview.bytes_per_pixel * pixels * sum(0.25 ** (1 + n) for n in range(len(overviews))),
            chips + shards * (variables + 1) + levels * calibration.publish.objects + 2 * zones + 1 + _OBJECTS_PER_RUN,
            zones,
            km2_to_compute(plan, config, done),
        )


def km2_to_compute(plan: Plan, config: RunConfig, done: int) -> float:
    """Square kilometres of cube that chips which are not staged cover, as far as scenes cover them."""
    chips = len(plan.chips)
    left = max(chips - done, 0) / max(chips, 1)
    return left * float(plan.chips.covered.sum(dtype=np.float64)) * km2_of_a_chip(config)


def km2_of_a_chip(config: RunConfig) -> float:
    """Square kilometres of cube that a chip adds: its side without the overlap."""
    return (grid_of(config).stride_px / 100) ** 2


def _overviews(plan: Plan, config: RunConfig) -> list[NDArray[np.int64]]:
    """By level, the number of shards below that each shard of the overview is made of."""
    grid, shards = grid_of(config), plan.shards
    levels: list[list[NDArray[np.int64]]] = []
    for epsg in plan.zones():
        extent, here = plan.extent(epsg, grid), shards.epsg == epsg
        places = np.stack([shards.row[here], shards.col[here]]).astype(np.int64)
        places -= np.array([[extent.row], [extent.col]]) // grid.shard_px
        for level in range(overviews_over(extent, grid)):
            places, children = np.unique(places // 2, axis=1, return_counts=True)
            levels += [[]] if level == len(levels) else []
            levels[level].append(children.astype(np.int64))
    return [np.concatenate(of_zones) for of_zones in levels]


def _pixels(shards: Shards, config: RunConfig) -> float:
    """2.5 m pixels with data in all shards: the part of each chip's core in the shard, times the chip's covered share.

    The rim of the plan, half an overlap wide, is left out.
    """
    step = (config.grid.chip_px - config.grid.overlap_px) * SCALE
    inset = config.grid.overlap_px * SCALE // 2
    size = config.grid.shard_px
    of_pair = np.repeat(np.arange(len(shards)), np.diff(shards.first))
    area = np.ones(len(of_pair))
    for shard_at, chip_at in ((shards.row, shards.chips.row), (shards.col, shards.chips.col)):
        low = shard_at[of_pair].astype(np.int64) * size
        start = chip_at[shards.members].astype(np.int64) * step + inset
        area *= np.clip(np.minimum(start + step, low + size) - np.maximum(start, low), 0, None)
    return float((area * shards.chips.covered[shards.members]).sum())
