"""Perceptual similarity beyond pixel errors: texture statistics and power spectra.

A blurred image has a good PSNR and no texture; a sample of a generative model has texture at other places than the
truth. These measures compare textures: distributions of patches at several scales, and energy by spatial frequency.
Neither needs trained weights.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

#: Side of the patches that serve as descriptors (Karras et al. 2018).
PATCH_PX: Final = 7

#: The pyramid stops before the shorter side falls below this.
COARSEST_PX: Final = 16

#: About the greatest number of patches of a level that are compared, on a regular grid.
PATCHES: Final = 8192

#: Random directions the distributions are projected on, and the seed they come from.
DIRECTIONS: Final = 256

SEED: Final = 2018


def sliced_wasserstein(x: Tensor, y: Tensor, own_scale: bool = True) -> Tensor:
    """Sliced Wasserstein distance between the patches of two images, by level of their Laplacian pyramids, × 1000.

    Every level's 7×7 patches are projected on random directions; the distance is the mean difference of the sorted
    projections (Karras et al. 2018, "Progressive growing of GANs"; Rabin et al. 2011). The perceptual distance of a
    report is the mean over the levels. Unlike there, the patches of both images are taken at the same places of a
    regular grid: equal images have distance 0, and the result does not depend on a random draw of patches.

    Args:
        x: judged, (C, H, W).
        y: truth, (C, H, W), the shorter side at least 16.
        own_scale: each image's patches are standardised by their own mean and standard deviation per channel, as
            published, so that only structure is compared. Otherwise both by the truth's, and missing or surplus
            energy counts as well.

    Returns:
        (levels,) float64, finest first.
    """
    if x.shape != y.shape or min(x.shape[-2:]) < COARSEST_PX:
        raise ValueError(f"two images of one shape and at least {COARSEST_PX} px, got {list(x.shape)}, {list(y.shape)}")
    levels = int(math.log2(min(x.shape[-2:]) / COARSEST_PX)) + 1
    distances = []
    for a, b in zip(laplacian_pyramid(x.double(), levels), laplacian_pyramid(y.double(), levels), strict=True):
        p, q = _descriptors(a), _descriptors(b)  # (C, 49, N)
        scale_q = _mean_and_std(q)
        p = _standardised(p, _mean_and_std(p) if own_scale else scale_q)
        q = _standardised(q, scale_q)
        directions = _directions(p.shape[0]).to(p)  # (C·49, D)
        difference = (directions.T @ p).sort(1).values - (directions.T @ q).sort(1).values  # (D, N)
        distances.append(1000 * difference.abs().mean())
    return torch.stack(distances)


def laplacian_pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """Band-passed images and the low-pass rest, finest first: (C, H, W) → `levels` tensors (C, ≈H/2ⁱ, ≈W/2ⁱ).

    Burt and Adelson (1983), binomial kernel 1 4 6 4 1, edges reflected.
    """
    pyramid = []
    for _ in range(levels - 1):
        smaller = _smooth(x)[..., ::2, ::2]
        pyramid.append(x - _enlarged(smaller, x))
        x = smaller
    return [*pyramid, x]


def radial_power_spectrum(x: Tensor, bins: int | None = None) -> Tensor:
    """Mean power by spatial frequency, over channels and directions: (C, H, W) → (bins,) float64.

    The periodogram of the image minus its mean under a Hann window. Bins are equally wide in radial frequency from 0 to
    the Nyquist frequency of the shorter side, by default one per frequency of that side; the corners beyond it are
    left out.
    """
    height, width = x.shape[-2:]
    bins = bins or min(height, width) // 2
    window = torch.outer(*(torch.hann_window(n, periodic=False, dtype=torch.float64) for n in (height, width)))
    centred = x.double() - x.double().mean((-2, -1), keepdim=True)
    power = torch.fft.fft2(centred * window.to(x.device)).abs().square().mean(0)  # (H, W)
    rows, cols = (torch.fft.fftfreq(n, dtype=torch.float64, device=x.device) for n in (height, width))
    radius = (rows[:, None] ** 2 + cols[None, :] ** 2).sqrt()  # cycles a pixel, Nyquist at 0.5
    which = (radius * 2 * bins).long()
    inside = which < bins
    sums = torch.zeros(bins, dtype=torch.float64, device=x.device).index_add_(0, which[inside], power[inside])
    counts = torch.bincount(which[inside], minlength=bins)
    return sums / counts.clamp_min(1)


def spectrum_error_db(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of the radial power spectra in decibels, over all frequencies but the lowest; scalar.

    `x` judged, `y` truth, (C, H, W). An image without texture is far off at high frequencies even if its PSNR is good.
    """
    p, q = radial_power_spectrum(x)[1:], radial_power_spectrum(y)[1:]
    floor = 1e-12 * q.max().clamp_min(1e-30)  # anything below is rounding
    return (10 * ((p + floor) / (q + floor)).log10()).abs().mean()


def fine_colour(x: Tensor) -> Tensor:
    """Power of detail finer than 1/8 cycle a pixel, of brightness and of colour: (C, H, W) → (2,) float64, units x².

    Brightness is the mean of the channels, colour what each differs from it, both under a Hann window. Detail that a
    network invents channel by channel has too much colour: grey roofs sparkle.
    """
    height, width = x.shape[-2:]
    window = torch.outer(*(torch.hann_window(n, periodic=False, dtype=torch.float64) for n in (height, width)))
    brightness = x.double().mean(0, keepdim=True)
    parts = torch.cat([brightness, x.double() - brightness])
    spectrum = torch.fft.rfft2((parts - parts.mean((1, 2), keepdim=True)) * window.to(x.device))
    rows = torch.fft.fftfreq(height, dtype=torch.float64, device=x.device)
    cols = torch.fft.rfftfreq(width, dtype=torch.float64, device=x.device)
    fine = (rows[:, None] ** 2 + cols**2).sqrt() >= 1 / 8
    power = spectrum.abs().square()[:, fine].mean(1) / window.square().sum().to(x.device)
    return torch.stack([power[0], power[1:].mean()])


def texture_energy(x: Tensor, scale: int = 2) -> Tensor:
    """Standard deviation of a pixel's difference to its neighbourhood's mean, mean over channels; units of x.

    `x` (C, H, W); the neighbourhood is a box of 2·scale + 1 pixels. 0 for a flat image.
    """
    mean = F.avg_pool2d(F.pad(x[None], [scale] * 4, mode="reflect"), 2 * scale + 1, stride=1)[0]
    return (x - mean).std((-2, -1)).mean()


def _smooth(x: Tensor) -> Tensor:
    kernel = x.new_tensor([1, 4, 6, 4, 1]) / 16
    planes = F.pad(x[:, None], [2] * 4, mode="reflect")  # (C, 1, H + 4, W + 4)
    return F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, 5)), kernel.view(1, 1, 5, 1))[:, 0]


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Every second pixel of a larger image, the rest interpolated by the same kernel."""
    spread = torch.zeros_like(like)
    spread[..., ::2, ::2] = x
    return 4 * _smooth(spread)


def _descriptors(x: Tensor) -> Tensor:
    """Patches on a regular grid: (C, H, W) → (C, 49, N)."""
    places = (x.shape[-2] - PATCH_PX + 1) * (x.shape[-1] - PATCH_PX + 1)
    step = max(1, math.ceil(math.sqrt(places / PATCHES)))
    return F.unfold(x[:, None], PATCH_PX, stride=step)


def _mean_and_std(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel, (C, 1, 1) each; the standard deviation of a constant is taken as tiny, not as 0."""
    return patches.mean((1, 2), keepdim=True), patches.std((1, 2), keepdim=True).clamp_min(1e-9)


def _standardised(patches: Tensor, scale: tuple[Tensor, Tensor]) -> Tensor:
    """(C, 49, N) → (C·49, N)."""
    mean, std = scale
    return ((patches - mean) / std).flatten(0, 1)


def _directions(size: int) -> Tensor:
    """Unit vectors, the same on every machine: (size, DIRECTIONS)."""
    generator = torch.Generator().manual_seed(SEED)
    return F.normalize(torch.randn(size, DIRECTIONS, generator=generator, dtype=torch.float64), dim=0)
