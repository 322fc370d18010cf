"""What a training draws, written plainly: one sample after the other with NumPy, on the host.

The trainings draw whole batches as tensors on the device. Their distributions are compared with these, and their speed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.bands import GROUPS, MTF_NYQUIST, RGB, WAVELENGTH_NM
from difffusr.kernels.images.degradation import bicubic_downsample, blur, gaussian_kernels
from difffusr.kernels.images.harmonisation import power_law
from difffusr.kernels.networks.fusion.frame import upscale_factor
from difffusr.pipeline.weights.training.degrading import sensor_axis
from difffusr.pipeline.weights.training.imagery import HRImage
from difffusr.pipeline.weights.training.wald import sensor_axis as wald_axis


def pair(
    levels: Sequence[HRImage], shares: Sequence[float], size: int, margin: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """HR (2, 3, n, n) and LR (2, 3, n / 4, n / 4) of one sample of stage 1, from images as often as `shares` say."""
    patches = patch(levels, shares, size, rng)
    lr = degraded(patches, margin, rng)
    m = 4 * margin
    return patches[..., m : size - m, m : size - m], lr


def patch(levels: Sequence[HRImage], shares: Sequence[float], size: int, rng: np.random.Generator) -> Tensor:
    """Two patches of one image: (2, 3, size, size) reflectance."""
    while True:
        image = levels[rng.choice(len(levels), p=shares)]
        windows = []
        for _ in range(2):
            row, column = (int(rng.integers(n - size + 1)) for n in image.valid.shape)
            windows.append((slice(row, row + size), slice(column, column + size)))
        if all(image.valid[window].all() for window in windows):
            break
    x = torch.from_numpy(turned(np.stack([image.pixels[(slice(None), *window)] for window in windows]), rng))
    if image.display:
        kind = rng.random()
        exponent = 1.0 if kind < 0.15 else rng.uniform(1.0, 2.2) if kind < 0.4 else rng.uniform(2.2, 3.4)
        x = power_law(x, [1 / (exponent * rng.uniform(0.95, 1.05)) for _ in range(3)])
    if rng.random() < 0.8:
        gain = math.exp(rng.uniform(math.log(0.4), math.log(1.6)))
        offset = rng.uniform(0, 0.1) ** 1.5 if rng.random() < 0.7 else rng.uniform(0, 0.25)
        jitter = torch.from_numpy(rng.uniform(0.85, 1.15, (2, 3, 1, 1)).astype(np.float32))
        x = x * gain * jitter[0] + offset * jitter[1]
    return x.clamp(0, 1)


def turned(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x = np.rot90(x, int(rng.integers(4)), axes=(-2, -1))
    return np.ascontiguousarray(x[..., ::-1] if rng.integers(2) else x)


def degraded(x: Tensor, margin: int, rng: np.random.Generator) -> Tensor:
    """(P, 3, H, W) → (P, 3, h, w)."""
    if rng.random() < 0.5:
        shift = rng.uniform(-0.1, 0.15) if rng.random() < 0.8 else 0.33
        mtf = [round(float(np.clip(MTF_NYQUIST[band] + shift, 0.14, 0.6)), 2) for band in RGB]
        m = torch.stack([sensor_axis(x.shape[-1] // 4, value) for value in mtf])
        lr = m @ x @ m.mT
    else:
        sigma = torch.tensor(rng.uniform(0.2, 4.0 if rng.random() < 0.6 else 2.2, 2))
        kernel = gaussian_kernels(sigma[:1], sigma[1:], torch.tensor([rng.uniform(0, math.pi)]))
        lr = bicubic_downsample(blur(x[None], kernel), 4)[0]
    inner = slice(margin, lr.shape[-1] - margin)
    lr, kind = lr[..., inner, inner], rng.random()
    highest = 0.01 if kind < 0.85 else 0.1
    level = rng.uniform(0, 0.001) if kind < 0.5 else math.exp(rng.uniform(math.log(0.001), math.log(highest)))
    lr = lr + level * torch.from_numpy(rng.standard_normal(lr.shape, dtype=np.float32))
    step = 1 / 255 if rng.random() < 0.1 else 1e-4
    return (lr / step).round() * step


def square(
    views: Sequence[Mapping[int, Tensor]], gsd: int, size: int, wide: bool, rng: np.random.Generator
) -> tuple[Tensor, Tensor, dict[int, Tensor], Tensor]:
    """Guide, measured, finer groups and truth of one sample of the fusion."""
    view = views[rng.integers(len(views))]
    row, column = (int(rng.integers(n - size + 1)) for n in view[gsd].shape[-2:])
    turn, gain = int(rng.integers(8)), float(np.exp(rng.uniform(-0.4, 0.4)))

    def cut(x: Tensor) -> Tensor:
        part = x[:, row : row + size, column : column + size].rot90(turn % 4, (1, 2))
        return (part.flip(2) if turn > 3 else part) * gain

    bands = {g: cut(x) for g, x in view.items()}
    if wide:
        bands = varied(bands, rng)

    def seen(band: Tensor, name: str, g: int) -> Tensor:
        mtf = round(MTF_NYQUIST[name] + (rng.uniform(-0.05, 0.05) if wide else 0), 2)
        m = wald_axis(size // upscale_factor(g), upscale_factor(g), mtf)
        return m @ band @ m.T

    low = {g: torch.stack([seen(b, name, g) for b, name in zip(x, GROUPS[g], strict=True)]) for g, x in bands.items()}
    guide = bands[10][:3]
    if rng.random() < 0.25:
        soft = F.interpolate(F.avg_pool2d(guide[None], 2), size=size, mode="bicubic", align_corners=False)[0]
        guide = guide + rng.uniform(0, 0.8) * (soft - guide)
    return guide, low.pop(gsd), low, bands[gsd]


def varied(bands: Mapping[int, Tensor], rng: np.random.Generator) -> dict[int, Tensor]:
    bands = related_anew(bands, rng)
    haze = rng.uniform(0, 0.12) * (rng.random() < 0.5)
    coarsest, out = max(bands), {}
    for g, x in bands.items():
        names = GROUPS[g]
        gain = torch.from_numpy(np.exp(rng.uniform(-0.3, 0.3, len(names))).astype(np.float32))[:, None, None]
        veil = torch.tensor([haze * (0.45 / (WAVELENGTH_NM[b] / 1000)) ** 4 for b in names]).float()[:, None, None]
        x = x * gain * (1 - veil) + veil
        if g > 10 or coarsest == 10:
            x = moved(x, rng.uniform(-0.3, 0.3, 2), g)
        if g < coarsest:
            lost = torch.tensor([name not in RGB and rng.random() < 0.05 for name in names])
            x = torch.where(lost[:, None, None], x.mean((1, 2), keepdim=True), x)
        out[g] = x
    return out


def related_anew(bands: Mapping[int, Tensor], rng: np.random.Generator) -> dict[int, Tensor]:
    every = [band for x in bands.values() for band in x]

    def related(name: str, x: Tensor) -> Tensor:
        mean = x.mean().clamp_min(1e-4)
        if name not in RGB and rng.random() < 0.3:
            other = every[int(rng.integers(len(every)))]
            share, sign = rng.uniform(0, 1), float(rng.choice([-1, 1, 1]))
            like = x.mean() + sign * x.std() / (other.std() + 1e-4) * (other - other.mean())
            x = (x + share * (like - x)).clamp_min(0.1 * float(mean))
            mean = x.mean()
        if rng.random() < 0.5:
            x = mean * (x.clamp_min(1e-4) / mean) ** float(np.exp(rng.uniform(-0.6, 0.6)))
        return x

    return {g: torch.stack([related(*pair) for pair in zip(GROUPS[g], x, strict=True)]) for g, x in bands.items()}


def moved(x: Tensor, shift: np.ndarray, g: int) -> Tensor:
    height, width = x.shape[-2:]
    rows, columns = (torch.arange(n) + 0.5 + float(s) for n, s in zip((height, width), shift, strict=True))
    grid = torch.stack(torch.broadcast_tensors(columns[None] * 2 / width - 1, rows[:, None] * 2 / height - 1), -1)
    out = F.grid_sample(x[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)[0]
    out = out.clamp(x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True))
    return torch.where(torch.tensor([name in RGB for name in GROUPS[g]])[:, None, None], x, out)
