"""Follows one chip by its name through the code, without Ray: planned, read, resolved, staged, blended, published.

``python tests/follow_chip.py`` prints each step's file and function, and ends with an error if a room is entered twice.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from difffusr.pipeline.assemble.blend import ChipSource, blend_shard
from difffusr.pipeline.chips.actor import SuperResolver
from difffusr.pipeline.chips.batch import stacked
from difffusr.pipeline.chips.staging import StagedChip, write_chip
from difffusr.pipeline.config import load_config
from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.geo import grid_of
from difffusr.pipeline.plan.decision import plan_run
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.run.work import draft_of, numbers_of
from difffusr.pipeline.scenes import ChipRules
from difffusr.pipeline.scenes.chip import read_chip
from difffusr.pipeline.scenes.synthetic import write_demo_world
from difffusr.pipeline.storage import cube_staging_of, staging_of, storage_of

ROOT = Path(__file__).resolve().parents[1]


def follow(folder: Path) -> list[tuple[str, str, str]]:
    """Step, file and function of the way of one chip; the work is done in a folder."""
    way: list[tuple[str, str, str]] = []

    def step(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        file = Path(str(inspect.getsourcefile(inspect.unwrap(function)))).resolve().relative_to(ROOT)
        way.append((name, str(file), function.__qualname__))
        return function

    world = write_demo_world(folder / "world", seed=11, size_m=(1200, 1800))
    settings = {
        "area": {"bbox": [float(edge) for edge in world.bbox]},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog)},
        "grid": {"chip_px": 96, "overlap_px": 24, "shard_px": 512, "chunk_px": 256},
        "model": {"sampler": "draft"},
        "store": {"url": "cube.zarr"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    config = load_config(folder / "run.yaml")
    staging, grid = staging_of(config), grid_of(config)

    plan = step("planned", plan_run)(config)
    chip = max(plan.chips, key=lambda chip: chip.clear)
    scenes = {scene.id: scene for scene in plan.scenes}

    window = grid.chip_window(chip.index)
    read = step("read", read_chip)(window, [scenes[name] for name in chip.scenes], ChipRules())

    row = {"name": chip.name, "error": "", "epsg": chip.epsg, "pixel_row": window.row, "pixel_col": window.col}
    row |= {"quality": read.quality, "source": read.source}
    row |= {f"dn{gsd}": dn for gsd, dn in read.dn.items()}
    row |= {f"valid{gsd}": valid.astype(np.uint8) for gsd, valid in read.valid.items()}
    resolver = SuperResolver(config)
    resolved = step("super-resolved", SuperResolver.__call__)(resolver, stacked([row]))

    made = StagedChip(resolved["dn"][0], resolved["quality"][0], resolved["source"][0])
    step("staged", write_chip)(staging, chip.object_name, made)

    draft = draft_of(config, plan)
    numbers = dict(zip(plan.chips.scene_ids, numbers_of(plan, draft).tolist(), strict=True))
    shard = next(shard for shard in plan.shards if chip in shard.chips)
    source = ChipSource(chip.index, chip.object_name, tuple(numbers[name] for name in chip.scenes))
    blended = step("blended", blend_shard)(grid, shard.index, [source], staging)
    assert (blended.source > 0).any(), f"nothing of {chip.name} is in {shard.name}"

    step("written", CubeDraft.write_shard)(draft, shard.epsg, shard.index, blended)

    target = open_target(storage_of(config), cube_staging_of(config), draft, config.period.label)
    published = step("published", type(target).publish)(target, shards_written=1, keep=1)
    assert published.current
    print(f"chip {chip.name}, scenes {', '.join(chip.scenes)}")
    return way


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        steps = follow(Path(scratch))
    for name, file, function in steps:
        print(f"{name:15} {file:35} {function}")
    rooms = [room for room, _ in groupby(file.split("/")[1] for _, file, _ in steps)]
    print("rooms:", " → ".join(rooms))
    if len(rooms) != len(set(rooms)):
        raise SystemExit("a room is entered twice")
