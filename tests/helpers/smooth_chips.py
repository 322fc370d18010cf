"""Chips to run the models on: smooth reflectance with some texture, holes, and noise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.bands import GROUPS

#: Side of the test chips in metres.
SIDE_M = 960


def chips(count: int = 1, side_m: int = SIDE_M) -> tuple[Mapping[int, Tensor], Mapping[int, Tensor], Tensor]:
    """Smooth reflectance with some texture, a hole, and noise."""
    generator = torch.Generator().manual_seed(3)
    ground = F.interpolate(torch.rand(count, 1, 12, 12, generator=generator), size=side_m // 10, mode="bicubic")
    bands, valid = {}, {}
    for gsd, names in GROUPS.items():
        side = side_m // gsd
        level = 0.05 + 0.2 * torch.rand(1, len(names), 1, 1, generator=generator)
        texture = 0.01 * torch.randn(count, len(names), side, side, generator=generator)
        bands[gsd] = level * (0.5 + F.interpolate(ground, size=side, mode="area")) + texture
        valid[gsd] = torch.ones(count, 1, side, side, dtype=torch.bool)
        valid[gsd][:, :, : side // 4, side // 2 :] = False
    return bands, valid, torch.randn(count, 3, 4 * side_m // 10, 4 * side_m // 10, generator=generator)
