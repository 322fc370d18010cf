"""Trainings so small that a test can afford them: a tiny network, pictures to learn from, and how to run one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch

from difffusr.pipeline.weights.training.fusion import FusionTask
from difffusr.pipeline.weights.training.loop import Context, train
from difffusr.pipeline.weights.training.settings import SuperResolutionSettings
from difffusr.pipeline.weights.training.super_resolution import SuperResolutionTask

#: Sizes of stage 1 for a network that learns nothing worth having, quickly.
TINY = {
    "rrdb": {"channels": 8, "blocks": 1, "growth": 4},
    "encoder": {"widths": [4, 4, 8, 8, 8, 8]},
    "unet": {
        "inner_channels": 16,
        "channel_mults": [1, 2],
        "res_blocks": 1,
        "attn_strides": [],
        "fold": 4,
        "norm_groups": 4,
        "kernel_dim": 8,
        "mid_attention": False,
    },
}


def write_image(path: Path, bands: int = 3, size: int = 160, dtype: str = "uint8", high: int = 255) -> None:
    """A picture of coarse squares."""
    rng = np.random.default_rng(len(path.name))
    coarse = rng.integers(high // 8, high, (bands, size // 8, size // 8)).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = "PNG" if path.suffix == ".png" else "GTiff"
    with rasterio.open(path, "w", driver=driver, width=size, height=size, count=bands, dtype=dtype) as file:
        file.write(coarse.repeat(8, 1).repeat(8, 2))


def losses_of(out: Path) -> list[str]:
    """The lines of a table of losses, but for the seconds."""
    return [line.rsplit(",", 1)[0] for line in (out / "losses.csv").read_text().splitlines()]


def run(settings, out: Path, **changes) -> list[str]:
    changed = settings.model_copy(update={"out": str(out), **changes})
    kind = SuperResolutionTask if isinstance(settings, SuperResolutionSettings) else FusionTask
    train(kind(changed, torch.device("cpu")), changed, changes.pop("context", Context()))
    return losses_of(out)
