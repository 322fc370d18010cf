"""Configurations, calibrations and plans of a few numbers, to estimate runs that nobody starts."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import shapely

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.plan.tables import Chips, Plan, Shards
from difffusr.pipeline.run.cost.calibration import (
    Calibration,
    OverviewWriting,
    Planning,
    Publishing,
    Reading,
    SceneStep,
    ShardWriting,
    Staging,
    StartUp,
    conditions_of,
)
from difffusr.pipeline.scenes.item import Scene

PRICES = {"gpu_hour": 2.5, "cpu_hour": 0.05, "gb_read": 0.09, "gb_written": 0.01, "gb_month": 0.02,
          "thousand_requests": 0.005}  # fmt: skip


def config_of(**sections: Any) -> RunConfig:
    content: dict[str, Any] = {
        "name": "test",
        "area": {"bbox": [8, 47, 9, 48]},
        "period": {"start": dt.date(2023, 6, 1), "end": dt.date(2023, 6, 30)},
        "source": {"items": "/tmp/items.json"},
        "store": {"url": "/tmp/cube.zarr"},
        "costs": {"prices": PRICES},
    }
    return RunConfig.model_validate({**content, **sections})


def planning_of(config: RunConfig, **figures: Any) -> Planning:
    """As measured with a configuration's masks and balance."""
    balance = config.scenes.balance
    content: dict[str, Any] = {
        "masks": config.scenes.masks,
        "look": SceneStep(seconds=0.4, cpu_seconds=0.1, bytes=300_000, requests=2),
        "angles": SceneStep(seconds=0.3, cpu_seconds=0.05, bytes=700_000, requests=1) if balance != "none" else None,
        "overviews": SceneStep(seconds=2.0, cpu_seconds=0.5, bytes=9e6, requests=26) if balance == "full" else None,
        "overlap_seconds": 0.002 if balance == "full" else None,
    }
    return Planning(**{**content, **figures})


def calibration_of(config: RunConfig, **figures: Any) -> Calibration:
    content: dict[str, Any] = {
        "version": 3,
        "measured": "2026-01-01T00:00:00+00:00",
        "machine": "2 cores",
        "gpu": False,
        "actors": 2,
        "load": 0.0,
        "source": "own",
        "conditions": conditions_of(config),
        "model": {1: 8.0, 4: 7.0},
        "planning": planning_of(config),
        "start_up": StartUp(ray=4.0, actors=10.0),
        "read": Reading(seconds=0.05, cpu_seconds=0.03, bytes=500_000, further_share=0.5),
        "stage": Staging(seconds=0.1, cpu_seconds=0.1, bytes=1_000_000, bytes_covered=7_000_000),
        "shard": ShardWriting(seconds=1.5, seconds_per_chip=0.1, bytes=100_000, bytes_per_pixel=15.0),
        "overview": OverviewWriting(seconds_per_shard=0.5, bytes_per_pixel=18.0),
        "publish": Publishing(seconds=0.01, objects=19),
    }
    return Calibration(**{**content, **figures})


def plan_of(count: int, scenes_a_chip: int = 1, wide: int = 20, found: int | None = None) -> Plan:
    """So many chips, row by row, all covered.

    Args:
        found: scenes that a search found; None where the plan does not say.
    """
    number = np.arange(count)
    scenes = np.tile(np.arange(scenes_a_chip, dtype=np.int32), (count, 1))
    chips = Chips(
        np.full(count, 32632, np.int32),
        (number // wide - 3000).astype(np.int32),
        (number % wide + 300).astype(np.int32),
        scenes,
        np.ones(count, np.float32),
        np.ones(count, np.float32),
        np.zeros((count, 32), np.uint8),
        tuple(f"scene {i}" for i in range(scenes_a_chip)),
    )
    known = tuple(scene_of(scene) for scene in chips.scene_ids)
    left_out = [{"reason": "broken", "items": 2}]
    items = {} if found is None else {"seen": found + 5, "filtered": {"cloud": 3}, "left_out": left_out}
    return Plan(known, chips, Shards.of(chips, Grid()), {"items": items})


def scene_of(name: str) -> Scene:
    when = dt.datetime(2023, 6, 1, tzinfo=dt.UTC)
    return Scene(
        name, "sentinel-2-l2a", when, "32TMT", 32632, "05.09", 0.0, "test", shapely.box(8, 47, 9, 48), {}, None, None,
        None, None, None, None,
    )  # fmt: skip


CONFIG = config_of()
CALIBRATION = calibration_of(CONFIG)
