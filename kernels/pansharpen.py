"""Classical pansharpening without learned weights: Gram-Schmidt as the reference codes it (section 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.bands import GROUPS, band_indices

#: Weights of red, green, blue in a luma.
LUMA: Final = (0.2989, 0.5870, 0.1140)


def pan_from_rgb(rgb: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """A panchromatic image (B, 1, H, W) from RGB (B, 3, H, W): the mean, or a weighted sum (for example `LUMA`)."""
    if weights is None:
        return rgb.mean(1, keepdim=True)
    return (rgb * rgb.new_tensor(weights)[:, None, None]).sum(1, keepdim=True)


def gram_schmidt(ms: Tensor, pan: Tensor) -> Tensor:
    """Inject the detail of a pan image into bands by their regression on the synthetic pan (their own mean).

    `ms` (B, C, h, w) reflectance; `pan` (B, 1, H, W) reflectance over the same ground. Returns (B, C, H, W). Statistics
    are taken on the coarse grid; the pan is not matched to the synthetic one, unlike the textbook method.
    """
    size = pan.shape[-2:]
    mean = ms.mean((-2, -1), keepdim=True)  # μ_c, (B, C, 1, 1)
    synthetic = ms.mean(1, keepdim=True)  # S, (B, 1, h, w)
    variance = synthetic.var((-2, -1), correction=0, keepdim=True)
    # centring one factor is enough; the published numbers have float32's rounding of exactly this form
    covariance = ((ms - mean) * synthetic).mean((-2, -1), keepdim=True)
    gain = covariance / (variance + 1e-6)  # a_c, (B, C, 1, 1)
    return _bilinear(ms - mean, size) + gain * (pan - _bilinear(synthetic, size)) + mean


def gram_schmidt_by_resolution(ms: Tensor, rgb: Tensor) -> Tensor:
    """All 12 bands sharpened, each group with statistics on its native grid.

    `ms` (B, 12, h, w) reflectance in `BANDS` order on the 10 m grid; `rgb` (B, 3, H, W) reflectance of the
    super-resolved red, green, blue, whose mean is the pan. Returns (B, 12, H, W).
    """
    pan = pan_from_rgb(rgb)
    out = ms.new_empty(ms.shape[0], ms.shape[1], *rgb.shape[-2:])
    for gsd, bands in GROUPS.items():
        where = band_indices(bands)
        factor = gsd // 10
        group = ms[:, where]  # (B, C, h, w)
        if factor > 1:
            group = _bilinear(group, torch.Size(n // factor for n in ms.shape[-2:]))
        out[:, where] = gram_schmidt(group, pan)
    return out


def _bilinear(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)
