"""Measures of image quality: the usual ones, and the published evaluation's own variants (reference section 6).

Images are float (..., C, H, W) and results scalars unless stated otherwise. `x` is judged, `y` is the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(x: Tensor, y: Tensor, data_range: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in decibels over all values, or over those pixels where `mask` is true.

    `mask`: bool, broadcastable to (..., C, H, W). Infinite for equal images, NaN for an empty mask.
    """
    error = (x - y) ** 2
    mse = error.mean() if mask is None else error[mask.expand_as(error)].mean()
    return 10 * torch.log10(data_range**2 / mse)


def sam_degrees(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean spectral angle in degrees between (..., C, H, W), over all pixels or those where `mask` (..., H, W) is true.

    Pixels whose spectrum is all zero in either image have no angle and count as 0.
    """
    x, y = x.double(), y.double()  # acos near 1 needs the digits
    norm = x.norm(dim=-3) * y.norm(dim=-3)  # (..., H, W)
    cosine = torch.where(norm > 0, (x * y).sum(-3) / norm.clamp_min(1e-30), 1.0)
    angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    return angle.mean() if mask is None else angle[mask.expand_as(angle)].mean()


def ergas(x: Tensor, y: Tensor, ratio: float) -> Tensor:
    """Relative dimensionless global error in synthesis, the mean over images: 100 / ratio · √mean((RMSE_c / mean_c)²).

    `ratio`: how many times finer the fused grid is, for example 4. Lower is better (Wald 2000).
    """
    rmse = ((x - y) ** 2).mean((-2, -1)).sqrt()  # (..., C)
    return (100 / ratio * ((rmse / y.mean((-2, -1))) ** 2).mean(-1).sqrt()).mean()


def ssim(x: Tensor, y: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity: 11×11 Gaussian window (σ 1.5), mean over channels and where the window fits (Wang 2004).

    H and W at least 11.
    """
    g = _gaussian(11, 1.5, x)
    return _ssim_map(x, y, torch.outer(g, g), data_range).mean()


def uqi(x: Tensor, y: Tensor, window: int = 8, shift: int = 1) -> Tensor:
    """Universal image quality index: mean over bands and windows of Q (Wang and Bovik 2002), float64 in [−1, 1].

    Q = 2 μx μy / (μx² + μy²) · 2 σxy / (σx² + σy²); a factor is 1 where both images lack what it compares, so that
    equal images score 1 even where they are constant. The paper slides by one pixel; 32 and 32 are `q2n`'s blocks.

    `x`, `y`: (..., C, H, W). `window`: side in pixels, or the whole of a shorter axis. `shift`: pixels from a window to
    the next; a last one ends at the edge.
    """
    x, y = x.double(), y.double()
    mx, my = _window_means(x, window, shift), _window_means(y, window, shift)  # (planes, rows, columns)
    xx, yy, xy = (_window_means(a * b, window, shift) for a, b in ((x, x), (y, y), (x, y)))
    level = _likeness(mx * my, mx**2 + my**2, xx + yy)
    return (level * _likeness(xy - mx * my, xx - mx**2 + yy - my**2, xx + yy)).mean()


def q2n(x: Tensor, y: Tensor, block: int = 32, shift: int = 32) -> Tensor:
    """Q2ⁿ, the quality index of a spectrum taken as one hypercomplex number (Garzelli and Nencini 2009).

    Bands are the components, zeros making up the next power of two; n = 2 is Q4 (Alparone et al. 2004). With
    z = x₀ + x₁i₁ + … and products by Cayley and Dickson, a block scores
    2 |z̄x| |z̄y| / (|z̄x|² + |z̄y|²) · 2 |σxy| / (σx² + σy²), σxy = E[(zx − z̄x)(zy − z̄y)*], and the result is the blocks'
    mean. Blocks are taken as they are, not first scaled to the truth's mean and spread as some programs do. One band
    gives |UQI| a block. The value depends on the order of bands. Beyond eight bands products do not preserve
    lengths: equal images still score 1, but 1 is not a proven upper bound.

    `x`, `y`: (..., C, H, W). `block`: side in pixels, or the whole of a shorter axis. `shift`: pixels from a block to
    the next; a last one ends at the edge. Returns a float64 scalar; 1 for equal images, constant ones as well.
    """
    a, b = (_blocks(z.double(), block, shift) for z in (x, y))  # (..., blocks, C, pixels)
    mean_a, mean_b = a.mean(-1, keepdim=True), b.mean(-1, keepdim=True)
    square = (a * a + b * b).mean(-1).sum(-1)  # (..., blocks)
    norm_a, norm_b = mean_a.square().sum((-2, -1)), mean_b.square().sum((-2, -1))
    a, b = a - mean_a, b - mean_b
    variances = (a * a + b * b).mean(-1).sum(-1)
    # a hypercomplex mean of products is a signed sum of the bands' plain covariances
    products = (a @ b.mT / a.shape[-1])[..., None] * _conjugate_products(a.shape[-2]).to(a)  # (..., blocks, C, C, 2ⁿ)
    covariance = products.sum((-3, -2)).norm(dim=-1)
    level = _likeness((norm_a * norm_b).sqrt(), norm_a + norm_b, square)
    return (level * _likeness(covariance, variances, square)).mean()


@dataclass(frozen=True)
class BenchmarkScores:
    """The reference's final table for one image: how well a fused image, downsampled again, matches its input."""

    r2: float
    cosine: float
    ssim: float
    psnr: float
    mse: float
    ergas: float


def benchmark_downsample(fused: Tensor) -> Tensor:
    """Fused image (C, H, W) → float (C, H / 4, W / 4), as the reference's final table does it.

    Eight Gaussian taps (σ 3, at −4..4) a side, edges reflected, then 4×4 means; the even kernel shifts the image by
    half a pixel, which the published numbers include.
    """
    tap = torch.linspace(-4, 4, 8, dtype=torch.float64, device=fused.device)
    g = torch.exp(-(tap**2) / 18)
    g = g / g.sum()
    h, w = fused.shape[-2:]
    smooth = _correlate(F.pad(fused.double()[None], [4] * 4, mode="reflect")[0], torch.outer(g, g))
    return F.avg_pool2d(smooth[..., :h, :w], 4).to(torch.float32)


def benchmark_scores(lr: Tensor, downsampled: Tensor) -> BenchmarkScores:
    """The six numbers of the final table: `lr` the input (C, h, w), `downsampled` the same shape, both 0..255.

    Its ERGAS multiplies by the ratio where the definition divides, and takes the means of the image judged.
    """
    x, y = downsampled.double(), lr.double()
    mse_c = ((x - y) ** 2).mean((1, 2))  # (C,)
    r2 = 1 - ((x - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    cosine = (x * y).sum() / (x.norm() * y.norm())
    window = torch.full((7, 7), 1 / 49, dtype=torch.float64, device=x.device)
    return BenchmarkScores(
        r2=float(r2),
        cosine=float(cosine),
        ssim=float(_ssim_map(x, y, window, 255.0, unbiased=49 / 48).mean()),
        psnr=float((10 * torch.log10(255.0**2 / mse_c)).mean()),
        mse=float(mse_c.mean()),
        ergas=float(400 * (mse_c / x.mean((1, 2)) ** 2).mean().sqrt()),
    )


def validation_psnr_ssim(x: Tensor, y: Tensor, border: int = 4, luma: bool = False) -> tuple[float, float]:
    """PSNR in decibels and SSIM of stage-1 validation, for uint8-valued RGB (3, H, W), without a border in pixels.

    `luma`: on the Y of BT.601 (16..235) instead of the three channels.
    """
    inner = (..., slice(border, x.shape[-2] - border), slice(border, x.shape[-1] - border))
    x, y = x.double()[inner], y.double()[inner]
    if luma:
        x, y = _bt601_luma(x), _bt601_luma(y)
    g = _gaussian(11, 1.5, x)
    return float(psnr(x, y, 255.0)), float(_ssim_map(x, y, torch.outer(g, g), 255.0).mean())


def validation_ergas(x: Tensor, y: Tensor, rounded: bool = True) -> float:
    """The ERGAS that chose the fusion networks' checkpoints: ratio 4 for every group, rounded to an integer."""
    value = float(ergas(x, y, ratio=4))
    return float(round(value)) if rounded else value


def _gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    offset = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    g = torch.exp(-0.5 * (offset / sigma) ** 2)
    return g / g.sum()


def _correlate(x: Tensor, window: Tensor) -> Tensor:
    """Each plane of (..., H, W) with one window (k, k), where it fits → (..., H − k + 1, W − k + 1)."""
    planes = F.conv2d(x.reshape(-1, 1, *x.shape[-2:]), window[None, None].to(x))
    return planes.reshape(*x.shape[:-2], *planes.shape[-2:])


def _ssim_map(x: Tensor, y: Tensor, window: Tensor, data_range: float, unbiased: float = 1.0) -> Tensor:
    """Structural similarity at every position of the window; `unbiased` is n / (n − 1) for sample variances."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mx, my = _correlate(x, window), _correlate(y, window)
    vx = unbiased * (_correlate(x * x, window) - mx * mx)
    vy = unbiased * (_correlate(y * y, window) - my * my)
    cov = unbiased * (_correlate(x * y, window) - mx * my)
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))


def _likeness(product: Tensor, squares: Tensor, scale: Tensor) -> Tensor:
    """2 product / squares; 1 where the squares are only the rounding error of numbers whose square is `scale`."""
    there = squares > 1e-12 * scale
    return torch.where(there, 2 * product / torch.where(there, squares, 1.0), 1.0)


def _starts(length: int, window: int, shift: int) -> list[int]:
    """Where windows begin along an axis: every `shift`, and one that ends at the edge."""
    last = max(length - window, 0)
    return sorted({*range(0, last + 1, shift), last})


def _window_means(x: Tensor, window: int, shift: int) -> Tensor:
    """Means over the windows of each plane of (..., H, W) → (planes, rows, columns)."""
    h, w = x.shape[-2:]
    means = F.avg_pool2d(x.reshape(-1, h, w), (min(window, h), 1), stride=1)
    means = F.avg_pool2d(means, (1, min(window, w)), stride=1)
    return means[:, _starts(h, window, shift)][:, :, _starts(w, window, shift)]


def _blocks(x: Tensor, block: int, shift: int) -> Tensor:
    """(..., C, H, W) → (..., blocks, C, pixels of a block)."""
    h, w = x.shape[-2:]
    cut = x.unfold(-2, min(block, h), 1)[..., _starts(h, block, shift), :, :]  # (..., C, rows, W, block)
    cut = cut.unfold(-2, min(block, w), 1)[..., _starts(w, block, shift), :, :]  # (..., C, rows, columns, block, block)
    return cut.flatten(-2).flatten(-3, -2).transpose(-3, -2)


@lru_cache(maxsize=8)
def _conjugate_products(bands: int) -> Tensor:
    """The component k of eᵢ eⱼ* for the first `bands` hypercomplex units: float64 (bands, bands, 2ⁿ) of −1, 0, 1.

    Units are numbered so that eᵢ eⱼ = ±e of i xor j. Doubling: (a, b)(c, d) = (ac − d*b, da + bc*).
    """
    sign = torch.ones(1, 1, dtype=torch.float64)
    while len(sign) < bands:
        conjugate = -torch.ones(len(sign), dtype=torch.float64)
        conjugate[0] = 1
        upper = torch.cat([sign, sign.T], dim=1)
        lower = torch.cat([sign * conjugate, -(conjugate[:, None] * sign).T], dim=1)
        sign = torch.cat([upper, lower])
    size = len(sign)
    sign[:, 1:] *= -1  # the second factor is conjugated
    unit = torch.arange(size)
    table = torch.zeros(size, size, size, dtype=torch.float64)
    table.scatter_(2, (unit[:, None] ^ unit)[..., None], sign[..., None])
    return table[:bands, :bands]


def _bt601_luma(rgb: Tensor) -> Tensor:
    """RGB (3, H, W) on 0..255 → Y (1, H, W) on 16..235."""
    weights = rgb.new_tensor([65.481, 128.553, 24.966])[:, None, None]
    return (rgb * weights).sum(-3, keepdim=True) / 255 + 16
