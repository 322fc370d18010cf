"""Local mean and variance of an image, and how much of that is more than noise."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

#: How dark a fine pixel may be, as a share of the darkest of the 3 × 3 measured pixels around it.
DARKEST: Final = 0.2

#: Standard deviation of a sensor's noise, reflectance: what varies no more than this has no texture of its own.
SENSOR_NOISE: Final = 0.0012


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


def signal_share(x: Tensor, noise: float = SENSOR_NOISE) -> Tensor:
    """The share of an image's contrast that is not noise: (B, C, h, w) reflectance → (B, 1, h, w), from 0 to 1.

    One for all channels; `noise` is its standard deviation. Where the share is 0 (open water, fog) there is nothing to
    make finer.
    """
    variance = local_moments(x)[1].mean(1, keepdim=True)
    return (1 - noise**2 / variance.clamp_min(noise**2)).sqrt()


def not_darker(x: Tensor, measured: Tensor) -> Tensor:
    """A fine image (B, C, H, W) raised to `DARKEST` of the darkest measured pixel near: no halo, nothing below zero.

    `measured` (B, C, h, w): the same ground, coarser; both reflectance.
    """
    darkest = -F.max_pool2d(-measured, 3, stride=1, padding=1)
    size = list(x.shape[-2:])
    return torch.maximum(x, DARKEST * F.interpolate(darkest, size=size, mode="bilinear", align_corners=False))
