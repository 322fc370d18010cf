"""Filling of pixels without data, so that no fill value enters a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fill_invalid(x: Tensor, valid: Tensor) -> Tensor:
    """Replace invalid pixels by a smooth continuation of their valid surroundings (push–pull pyramid).

    Args:
        x: (B, C, H, W), any units; NaN or anything else where it is invalid.
        valid: (B, 1, H, W) bool or 0/1.

    Returns:
        x where valid; elsewhere the mean from the nearest pyramid level with data. All zero for an image without
        any valid pixel.
    """
    v = valid.to(x.dtype)
    if x.device.type == "cpu" and bool(v.all()):  # on a GPU the check would cost more than it saves
        return x
    x = x.masked_fill(v == 0, 0.0)
    height, width = x.shape[-2:]
    if height == 1 and width == 1:
        return x
    pad = (0, width % 2, 0, height % 2)
    weight = F.avg_pool2d(F.pad(v, pad), 2)
    mean = F.avg_pool2d(F.pad(x, pad), 2) / weight.clamp_min(1e-12)
    coarse = fill_invalid(mean, weight > 0)
    fine = F.interpolate(coarse, scale_factor=2, mode="nearest")[..., :height, :width]
    return torch.where(v > 0, x, fine)
