"""Makes low-resolution images of high-resolution patches: as Sentinel-2 would see them, and blindly."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, Literal

import torch
from torch import Tensor

from difffusr.kernels.bands import MTF_NYQUIST, RGB, SCALE
from difffusr.kernels.images import (
    SIGMA_RANGE,
    DegradationDraws,
    blur_and_reduce,
    gaussian_kernels,
    sensor_matrix,
)
from difffusr.kernels.images import (
    degrade as degrade_as_published,
)
from difffusr.pipeline.weights.training.draws import Draws

Degradation = Literal["mixed", "published"]

#: MTFs at Nyquist that a sensor may have: (lowest, highest), in steps of 0.01.
_MTFS: Final = (0.14, 0.60)


def degrade_patches(hr: Tensor, draws: Draws, margin: int, kind: Degradation) -> Tensor:
    """`degrade` or `published_degrade`, by name."""
    return {"mixed": degrade, "published": published_degrade}[kind](hr, draws, margin)


def degrade(hr: Tensor, draws: Draws, margin: int = 2) -> Tensor:
    """LR images of HR patches, each sample with its own degradation, shared by its patches.

    Half of the samples: the sensor of Sentinel-2 (detector box and Gaussian) with an MTF that varies by band and
    sample. The other half: the blind anisotropic Gaussian of the reference over its full range, turned freely, then
    bicubic reduction. Noise is mostly that of Sentinel-2 (below 0.01), sometimes up to the 0.1 of the reference.

    Args:
        hr: (B, P, 3, H, W) reflectance, H = W a multiple of 4.
        margin: LR pixels cut off each side, where the degradation has no neighbours; it needs 2.

    Returns:
        (B, P, 3, H / 4 − 2·margin, W / 4 − 2·margin) reflectance, not clamped.
    """
    batch = len(hr)
    # samples are drawn independently: the first half is as good as any other
    half = batch // 2 if batch > 1 else int(draws.happens(0.5))
    parts = (_sensor, hr[:half]), (_blind, hr[half:])
    lr = torch.cat([degraded(some, draws) for degraded, some in parts if len(some)])
    inner = slice(margin, lr.shape[-1] - margin)
    lr = lr[..., inner, inner]

    def per_sample(value: Tensor) -> Tensor:
        return value.view(-1, 1, 1, 1, 1)

    lr = lr + per_sample(_noise_level(batch, draws)) * draws.normal(*lr.shape)
    step = per_sample(torch.where(draws.happens(0.1, batch), 1 / 255, 1e-4))
    return (lr / step).round_() * step


def _noise_level(batch: int, draws: Draws) -> Tensor:
    """Standard deviation of the noise in reflectance, (batch,)."""
    kind = draws.uniform(0, 1, batch)
    little, more = draws.uniform(0, 0.001, batch), draws.log_uniform(0.001, 0.01, batch)
    much = draws.log_uniform(0.001, 0.1, batch)
    return torch.where(kind < 0.5, little, torch.where(kind < 0.85, more, much))


def _sensor(x: Tensor, draws: Draws) -> Tensor:
    batch, (low, high) = len(x), _MTFS
    # sometimes a sharp sensor, close to a box
    shift = torch.where(draws.happens(0.8, batch), draws.uniform(-0.1, 0.15, batch), 0.33)
    nominal = torch.tensor([MTF_NYQUIST[band] for band in RGB], device=x.device)
    mtf = (nominal + shift[:, None]).clamp(low, high)  # (B, 3)
    axes = _sensor_axes(x.shape[-1] // SCALE, x.device)
    m = axes[((mtf - low) * 100).round().long()][:, None]  # (B, 1, 3, h, H)
    return m @ x @ m.mT


@lru_cache(maxsize=8)
def _sensor_axes(coarse: int, device: torch.device) -> Tensor:
    """`sensor_axis` of all MTFs: (47, coarse, 4·coarse)."""
    low, high = (round(100 * mtf) for mtf in _MTFS)
    return torch.stack([sensor_axis(coarse, mtf / 100) for mtf in range(low, high + 1)]).to(device)


@lru_cache(maxsize=128)
def sensor_axis(coarse: int, mtf: float) -> Tensor:
    """(coarse, 4·coarse) float32 matrix from an axis at 2.5 m to 10 m, of a sensor with this MTF at Nyquist."""
    return torch.from_numpy(sensor_matrix(coarse, SCALE, mtf)).float()


def _blind(x: Tensor, draws: Draws) -> Tensor:
    batch, (low, high) = len(x), SIGMA_RANGE
    widest = torch.where(draws.happens(0.6, batch), high, 2.2)[:, None]
    sigma = low + draws.uniform(0, 1, batch, 2) * (widest - low)
    kernels = gaussian_kernels(sigma[:, 0], sigma[:, 1], draws.uniform(0, math.pi, batch))
    return blur_and_reduce(x, kernels, SCALE)


def published_degrade(hr: Tensor, draws: Draws, margin: int = 0) -> Tensor:
    """LR images as the published training made them (reference section 3), shapes as `degrade`.

    Anisotropic Gaussian kernels of 21 × 21, turned freely in [0, π) as documented, bicubic reduction, noise of up to
    25 / 255, rounding to 8 bits.
    """
    shape = (*hr.shape[:-2], hr.shape[-2] // SCALE, hr.shape[-1] // SCALE)
    lr = degrade_as_published(hr * 255, DegradationDraws.draw(shape, draws.generator), SCALE) / 255
    inner = slice(margin, lr.shape[-1] - margin)
    return lr[..., inner, inner]
