"""Training steps a second of both networks of `base` with made-up images in memory, and what share batches take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from difffusr.kernels.networks.fusion.frame import BASE as FUSION_BASE
from difffusr.kernels.networks.fusion.frame import FusionConfig
from difffusr.kernels.networks.stage1 import BASE, SMALL
from gpu.bare import missing
from gpu.parts import NotHereError, Row, Setting, no_time, tried
from gpu.subject import TINY

#: The settings of `base` (`train-sr-base.yaml`, `train-fusion-base.yaml`), where no YAML may be read.
STAGE1: dict[str, Any] = {
    "seed": 1, "steps": 6000, "batch": 128, "rate": 1e-3, "warm_up": 200, "weight_decay": 1e-4, "ema": 0.999,
    "clip": 2.0, "loss": "relative", "precision": "mixed", "network": BASE, "start": "random", "degradation": "mixed",
    "radiometry": "mixed", "lr_px": 48, "margin": 2, "encoder_rate": 0.4, "tail_weight": None, "contrast_weight": None,
    "memory_gb": 4.0,
}  # fmt: skip
FUSION: dict[str, Any] = {
    "seed": 1, "steps": 4000, "batch": 32, "rate": 1e-3, "warm_up": 100, "weight_decay": 1e-4, "ema": 0.998,
    "clip": 1.0, "loss": "relative", "precision": "mixed", "network": FUSION_BASE, "variation": "wide", "truth_px": 96,
}  # fmt: skip

#: What is smaller in a dry run.
DRY_STAGE1 = {"network": replace(TINY, diffusion=SMALL.diffusion), "batch": 2, "lr_px": 8}
DRY_FUSION = {"network": FusionConfig("corrected", channels=8, blocks=1, growth=4), "batch": 1, "truth_px": 48}

#: What trainings import beside torch and NumPy.
NEEDED = ("matplotlib",)

#: Steps before those that are measured, and seconds that these take.
WARM_UPS, MEASURED_S = 3, 5.0


@dataclass(frozen=True)
class Held:
    """A `patches.Image` in memory."""

    image: Any
    resample: str = "pyramid"

    @property
    def gsd_m(self) -> float:
        return float(self.image.gsd_m)

    @property
    def size(self) -> tuple[int, int]:
        h, w = self.image.valid.shape
        return h, w

    def read(self) -> Any:
        return self.image


def rows(setting: Setting) -> Iterator[Row]:
    """A row for each network and precision: "mixed" is what `base` is trained with."""
    if lacking := missing(NEEDED):
        raise NotHereError(f"not installed: {', '.join(lacking)}")
    from difffusr.pipeline.weights.training.fusion import FusionTask
    from difffusr.pipeline.weights.training.super_resolution import SuperResolutionTask

    torch.backends.cudnn.benchmark = False
    device = torch.device(setting.device)
    images = [Held(image) for image in _images(*((1, 256) if setting.dry else (4, 1500)))]
    scenes = _scenes(*((1, 144) if setting.dry else (3, 960)))
    kinds: dict[str, tuple[Callable[..., Any], dict[str, Any], Any]] = {
        "stage 1": (SuperResolutionTask, STAGE1 | (DRY_STAGE1 if setting.dry else {}), (images, [])),
        "fusion": (FusionTask, FUSION | (DRY_FUSION if setting.dry else {}), (scenes, [])),
    }
    for precision in ("mixed",) if setting.dry else ("mixed", "bfloat16"):
        for name, (kind, given, data) in kinds.items():
            what = f"{name}, {precision}, batch {given['batch']}"
            if not setting.has(10):
                yield no_time(what)
                continue
            settings = SimpleNamespace(**given | {"precision": precision})
            yield tried(what, partial(_row, what, kind(settings, device, data), settings, device, setting.dry))


def _row(what: str, task: Any, settings: Any, device: torch.device, dry: bool) -> Row:
    return {"what": what, **measured(task, settings, device, dry)}


def measured(task: Any, settings: Any, device: torch.device, dry: bool) -> Row:
    """Steps a second as a training makes them, and milliseconds of making a batch and of a step, after each other."""
    from difffusr.pipeline.weights.training.loop import Context, Learner, check_finite, values_of

    task.build()
    learner, done = Learner(task, settings, Context(device=device)), 0

    def step() -> None:
        nonlocal done
        losses = learner.step(done, task.batch(done, 0), done / settings.warm_up, done / settings.steps)
        done += 1
        check_finite(done, values_of(losses))  # waits for the device, as a training does

    for _ in range(1 if dry else WARM_UPS):
        step()
    begun, before = time.perf_counter(), done
    while done - before < 2 or (not dry and time.perf_counter() - begun < MEASURED_S):
        step()
    rate = (done - before) / (time.perf_counter() - begun)
    batch_s = step_s = 0.0
    apart = 1 if dry else 5
    for _ in range(apart):
        started = _now(device)
        batch = task.batch(done, 0)
        made = _now(device)
        values_of(learner.step(done, batch, done / settings.warm_up, done / settings.steps))
        batch_s, step_s, done = batch_s + made - started, step_s + _now(device) - made, done + 1
    row = {
        "steps_per_s": rate, "samples_per_s": rate * settings.batch, "batch_ms": 1e3 * batch_s / apart,
        "step_ms": 1e3 * step_s / apart, "share_of_batches": batch_s / (batch_s + step_s),
    }  # fmt: skip
    if device.type == "cuda":
        row["memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
        torch.cuda.reset_peak_memory_stats(device)
    return row


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _images(count: int, size: int) -> list[Any]:
    """Pictures of coarse squares and fine grain."""
    from difffusr.pipeline.weights.training.imagery import HRImage

    found, whole = [], np.ones((size, size), dtype=bool)
    for i in range(count):
        generator = torch.Generator().manual_seed(i)
        coarse = torch.rand(1, 3, size // 8, size // 8, generator=generator)
        pixels = F.interpolate(coarse, size=(size, size)) + 0.05 * torch.rand(1, 3, size, size, generator=generator)
        found.append(HRImage(f"made up {i}", 2.5, pixels[0].clamp(0, 1).numpy(), whole, display=i % 2 == 0))
    return found


def _scenes(count: int, side: int) -> list[Any]:
    from varied_ground import ground

    return [ground(i, side) for i in range(count)]
