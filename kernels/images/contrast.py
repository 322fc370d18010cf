"""Local mean and variance of an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def local_moments(x: Tensor, sigma_px: float = 2.0) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel in a Gaussian window: (B, C, h, w) → twice (B, C, h, w), units of x and x².

    The window reaches 3σ, edges are repeated: a pixel's values depend on its neighbourhood only, not on the chip.
    """
    radius = int(3 * sigma_px)
    offset = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    g = torch.exp(-0.5 * (offset / sigma_px) ** 2)
    g = g / g.sum()

    def smooth(planes: Tensor) -> Tensor:
        padded = F.pad(planes.flatten(0, 1)[:, None], [radius] * 4, mode="replicate")
        return F.conv2d(F.conv2d(padded, g.view(1, 1, 1, -1)), g.view(1, 1, -1, 1)).view(planes.shape)

    centre = x.mean((-2, -1), keepdim=True)  # subtracted and added back to keep float32 digits
    mean = smooth(x - centre)
    variance = (smooth((x - centre) ** 2) - mean**2).clamp_min(0)
    return mean + centre, variance
