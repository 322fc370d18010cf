"""Makes low-resolution images of high-resolution patches: as Sentinel-2 would see them, and blindly."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from difffusr.kernels.bands import MTF_NYQUIST, RGB, SCALE
from difffusr.kernels.images import (
    SIGMA_RANGE,
    DegradationDraws,
    bicubic_downsample,
    blur,
    gaussian_kernels,
    sensor_matrix,
)
from difffusr.kernels.images import (
    degrade as degrade_as_published,
)

Degradation = Literal["mixed", "published"]


def degrade_patches(hr: Tensor, rng: np.random.Generator, margin: int, kind: Degradation) -> Tensor:
    """`degrade` or `published_degrade`, by name."""
    return {"mixed": degrade, "published": published_degrade}[kind](hr, rng, margin)


def degrade(hr: Tensor, rng: np.random.Generator, margin: int = 2) -> Tensor:
    """LR images of HR patches, each sample with its own degradation, shared by its patches.

    Half of the samples: the sensor of Sentinel-2 (detector box and Gaussian) with an MTF that varies by band and
    sample. The other half: the blind anisotropic Gaussian of the reference over its full range, turned freely, then
    bicubic reduction. Noise is mostly that of Sentinel-2 (below 0.01), sometimes up to the 0.1 of the reference.

    Args:
        hr: (B, P, 3, H, W) reflectance, H = W a multiple of 4.
        margin: LR pixels cut off each side, where the degradation has no neighbours.

    Returns:
        (B, P, 3, H / 4 − 2·margin, W / 4 − 2·margin) reflectance, not clamped.
    """
    lr = torch.stack([_sensor(x, rng) if rng.random() < 0.5 else _blind(x, rng) for x in hr])
    inner = slice(margin, lr.shape[-1] - margin)
    lr = lr[..., inner, inner]
    level = torch.tensor([_noise_level(rng) for _ in hr], dtype=torch.float32).view(-1, 1, 1, 1, 1)
    lr = lr + level * torch.from_numpy(rng.standard_normal(lr.shape, dtype=np.float32))
    step = 1 / 255 if rng.random() < 0.1 else 1e-4
    return (lr / step).round() * step


def _noise_level(rng: np.random.Generator) -> float:
    """Standard deviation of the noise in reflectance."""
    kind = rng.random()
    if kind < 0.5:
        return rng.uniform(0, 0.001)
    return math.exp(rng.uniform(math.log(0.001), math.log(0.01 if kind < 0.85 else 0.1)))


def _sensor(x: Tensor, rng: np.random.Generator) -> Tensor:
    shift = rng.uniform(-0.1, 0.15) if rng.random() < 0.8 else 0.33  # sometimes a sharp sensor, close to a box
    mtf = tuple(round(float(np.clip(MTF_NYQUIST[band] + shift, 0.14, 0.6)), 2) for band in RGB)
    m = torch.stack([sensor_axis(x.shape[-1] // SCALE, value) for value in mtf])  # (3, h, H)
    return m @ x @ m.transpose(-1, -2)


@lru_cache(maxsize=128)
def sensor_axis(coarse: int, mtf: float) -> Tensor:
    """(coarse, 4·coarse) float32 matrix from an axis at 2.5 m to 10 m, of a sensor with this MTF at Nyquist."""
    return torch.from_numpy(sensor_matrix(coarse, SCALE, mtf)).float()


def _blind(x: Tensor, rng: np.random.Generator) -> Tensor:
    low, high = SIGMA_RANGE
    sigma = torch.tensor(rng.uniform(low, high if rng.random() < 0.6 else 2.2, 2))
    kernel = gaussian_kernels(sigma[:1], sigma[1:], torch.tensor([rng.uniform(0, math.pi)]))
    return bicubic_downsample(blur(x[None], kernel), SCALE)[0]


def published_degrade(hr: Tensor, rng: np.random.Generator, margin: int = 0) -> Tensor:
    """LR images as the published training made them (reference section 3), shapes as `degrade`.

    Anisotropic Gaussian kernels of 21 × 21, turned freely in [0, π) as documented, bicubic reduction, noise of up to
    25 / 255, rounding to 8 bits.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    draws = DegradationDraws.draw((*hr.shape[:-2], hr.shape[-2] // SCALE, hr.shape[-1] // SCALE), generator)
    lr = degrade_as_published(hr * 255, draws, SCALE) / 255
    inner = slice(margin, lr.shape[-1] - margin)
    return lr[..., inner, inner]
