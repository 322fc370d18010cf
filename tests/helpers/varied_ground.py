"""A made-up 12-band scene whose bands differ in pattern and brightness, of any size."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from difffusr.kernels.bands import GROUPS
from difffusr.pipeline.weights.training.scenes import NativeScene


def ground(seed: int, side: int = 144) -> NativeScene:
    """`side`: in pixels of 10 m, a multiple of 24."""
    generator = torch.Generator().manual_seed(seed)
    bands = {}
    for gsd, names in GROUPS.items():
        for name in names:
            coarse = torch.rand((1, 1, side // 4, side // 8), generator=generator)
            fine = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
            bands[name] = (F.avg_pool2d(fine, gsd // 10)[0, 0] * 0.3 + 0.1).clamp_min(0.01)
    return NativeScene(f"ground {seed}", bands)
