"""A sample of a plan's chips to measure with; or a generated plan, where there is none."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from rasterio.warp import transform_bounds

from difffusr.kernels.bands import GSD_M
from difffusr.pipeline.config import AreaSection, PeriodSection, RunConfig, SourceSection
from difffusr.pipeline.geo import ChipIndex, Grid, grid_of
from difffusr.pipeline.plan import ChipPlan, Plan, decide
from difffusr.pipeline.scenes import Scene
from difffusr.pipeline.scenes.synthetic import PERIOD, RenderedScene, generate_world, render_scenes, write_catalog

#: Chips read: spread evenly over how much of a chip the scenes cover, which makes chips differ most. In this order any
#: first few of them are spread too.
SPREAD = tuple((part + 0.5) / 8 for part in (1, 6, 3, 4, 0, 7, 2, 5))

#: Where a generated scene lies: northing and easting in its zone.
_PLACE_M = 5_250_000, 520_000


@dataclass(frozen=True)
class Sample:
    """A few chips that stand for all of a plan.

    Attributes:
        plan: all of it.
        chips: in the order in which they are to be used.
        scenes: the plan's, by id.
        grid: sizes of chips and shards.
    """

    plan: Plan
    chips: list[ChipPlan]
    scenes: Mapping[str, Scene]
    grid: Grid

    @classmethod
    def of(cls, config: RunConfig, plan: Plan) -> Sample:
        """The sample of a plan."""
        least_first = np.argsort(plan.chips.covered, kind="stable")
        places = dict.fromkeys(int(least_first[int(part * len(plan.chips))]) for part in SPREAD)
        scenes = {scene.id: scene for scene in plan.scenes}
        return cls(plan, [plan.chips[place] for place in places], scenes, grid_of(config))

    def scenes_of(self, chip: ChipPlan) -> list[Scene]:
        """A chip's scenes, best first."""
        return [self.scenes[scene] for scene in chip.scenes]

    def times(self, count: int) -> list[ChipPlan]:
        """So many chips: the sample over and over, each under its own name."""
        run = uuid4().hex
        return [
            replace(chip, key=f"{number:08d}{run:0<56}") for number, chip in enumerate(islice(cycle(self.chips), count))
        ]


def generated_plan(config: RunConfig, folder: Path) -> Plan:
    """A plan of one chip, over a generated scene that covers it and is written to a folder."""
    grid = grid_of(config)
    rendered = render_scenes(generate_world(size_m=(1200, 1800)))[-1]
    stride_m = grid.stride_px * 10
    window = grid.chip_window(ChipIndex(-_PLACE_M[0] // stride_m, _PLACE_M[1] // stride_m))
    west, south, east, north = window.bounds_m(rendered.epsg)
    catalog = write_catalog([_stretched(rendered, west, north, int(east - west))], folder / "archive")
    inside = transform_bounds(f"EPSG:{rendered.epsg}", "EPSG:4326", *_middle(west, south, east, north))
    there = {
        "area": AreaSection(bbox=inside),
        "period": PeriodSection(start=dt.date.fromisoformat(PERIOD[0]), end=dt.date.fromisoformat(PERIOD[1])),
        "source": SourceSection(static_catalog=str(catalog)),
    }
    return decide(config.model_copy(update=there))


def _stretched(scene: RenderedScene, left_m: float, top_m: float, side_m: int) -> RenderedScene:
    """A scene moved to a corner in metres, and repeated until it fills a square."""

    def filled(pixels: np.ndarray[Any, Any], gsd_m: int) -> np.ndarray[Any, Any]:
        size = side_m // gsd_m
        return np.pad(pixels, [(0, max(size - side, 0)) for side in pixels.shape], mode="wrap")[:size, :size]

    bands = {band: filled(pixels, GSD_M[band]) for band, pixels in scene.bands.items()}
    return replace(scene, bands=bands, scl=filled(scene.scl, 20), left_m=left_m, top_m=top_m)


def _middle(west: float, south: float, east: float, north: float) -> tuple[float, float, float, float]:
    x, y = (west + east) / 2, (south + north) / 2
    return x - 30, y - 30, x + 30, y + 30
