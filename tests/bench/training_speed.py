"""Batches of the trainings a second: drawn as tensors, beside the same drawn one sample after the other."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drawn_one_by_one
import numpy as np
import torch
from held_image import Held
from machine import machine
from varied_ground import ground

from difffusr.pipeline.weights.training.degrading import degrade
from difffusr.pipeline.weights.training.draws import Seeds
from difffusr.pipeline.weights.training.imagery import HRImage
from difffusr.pipeline.weights.training.patches import patch_source, with_radiometry
from difffusr.pipeline.weights.training.variation import GroundSource
from difffusr.pipeline.weights.training.wald import STAND_INS, view_of

HERE = Path(__file__).resolve().parent

CPU = torch.device("cpu")

#: Samples a batch, of stage 1 and of each group of the fusion, as the example settings have them; turns of each way.
BATCH, GROUP_BATCH, TURNS = 16, 8, 5

#: Sides of what is drawn: patches of stage 1 with their margins, squares of the fusion by GSD.
PATCH_PX, SQUARES = 144, {10: 96, 20: 96, 60: 144}


def measure(threads: int) -> list[dict[str, Any]]:
    """A row for each kind of batch: processor seconds of both ways, which take turns, and their ratio."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [_compared(name, threads, *ways) for name, ways in _kinds().items()]
    finally:
        torch.set_num_threads(before)


def _compared(
    name: str, threads: int, one_by_one: Callable[[int], Any], tensors: Callable[[int], Any]
) -> dict[str, Any]:
    took: dict[str, list[float]] = {"one_by_one_s": [], "tensors_s": []}
    for turn in range(TURNS + 1):
        for key, way in zip(took, (one_by_one, tensors), strict=True):
            begun = time.process_time()
            way(turn)
            if turn:  # the first warms up
                took[key].append(time.process_time() - begun)
    medians = {key: statistics.median(times) for key, times in took.items()}
    ratio = medians["one_by_one_s"] / medians["tensors_s"]
    return {"batch": name, "threads": threads, **{k: round(v, 4) for k, v in medians.items()}, "ratio": round(ratio, 2)}


def _kinds() -> dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]]:
    rng = np.random.default_rng(0)
    whole = np.ones((1000, 1000), dtype=bool)
    images = [HRImage(str(i), 2.5, rng.random((3, 1000, 1000), np.float32), whole, display=i < 3) for i in range(4)]
    source = patch_source([Held(image) for image in images], PATCH_PX, CPU, 4)

    def pairs(step: int) -> Any:
        seeds = Seeds(0, step, 0)
        patches = with_radiometry(*source.draw(seeds, BATCH), "mixed", seeds)
        return degrade(patches, seeds.draws(CPU, 0), 2)

    def pairs_one_by_one(step: int) -> Any:
        return [drawn_one_by_one.pair(images, [0.25] * 4, PATCH_PX, 2, rng) for _ in range(BATCH)]

    views = {gsd: [view_of(ground(i, 960), gsd, *STAND_INS[gsd][-1][:2]) for i in range(2)] for gsd in SQUARES}
    grounds = {gsd: GroundSource.of(gsd, [(v, 1.0) for v in of], SQUARES[gsd], CPU) for gsd, of in views.items()}

    def squares(step: int) -> Any:
        return [of.draw(Seeds(0, step, 0), GROUP_BATCH, wide=True) for of in grounds.values()]

    def squares_one_by_one(step: int) -> Any:
        return [
            drawn_one_by_one.square([v.bands for v in of], gsd, SQUARES[gsd], True, rng)
            for gsd, of in views.items()
            for _ in range(GROUP_BATCH)
        ]

    return {"stage 1": (pairs_one_by_one, pairs), "fusion": (squares_one_by_one, squares)}


def write(rows: list[dict[str, Any]]) -> None:
    """Leave figures beside this file. Where `load` exceeds the cores, threads wait for each other: trust one."""
    told = {"machine": machine(), "load": round(os.getloadavg()[0], 1), "rows": rows}
    (HERE / "training.json").write_text(json.dumps(told, indent=1) + "\n")
