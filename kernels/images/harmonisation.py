"""Give 8-bit aerial imagery the radiometry of Sentinel-2: a power law per channel (reference section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

#: Mean of the gamma model for red, green, blue (opensr-degradation's, as the reference shifts it by hand).
GAMMA_RGB: Final = (0.35212655, 0.33608668, 0.35346831)


def power_law(x: Tensor, gamma: Sequence[float] = GAMMA_RGB) -> Tensor:
    """x^(1/γ) per channel: float (..., C, H, W) in [0, 1] with one γ a channel → same shape and range."""
    exponent = x.new_tensor([1 / g for g in gamma])[:, None, None]  # (C, 1, 1)
    return x**exponent


def harmonise(image: Tensor, gamma: Sequence[float] = GAMMA_RGB) -> Tensor:
    """The power law on 8-bit images: uint8 (..., C, H, W) → uint8, ⌊255·(x/255)^(1/γ)⌋, same shape.

    The reference draws γ per patch as the median of 100 000 draws, which equals the mean within a few 1e-4; the mean is
    the default here.
    """
    return (255 * power_law(image.to(torch.float32) / 255, gamma)).to(torch.uint8)
