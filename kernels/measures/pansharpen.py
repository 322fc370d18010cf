"""Classical pansharpening without learned weights: the field's baselines, and Gram-Schmidt as the reference codes it.

Every baseline is `method(ms, pan, mtf)`:

    ms: (B, C, h, w) float32 reflectance of the coarse bands.
    pan: (B, 1, H, W) float32 reflectance over the same ground, H / h = W / w a whole number; or (B, C, H, W), one pan a
        band, which the methods that substitute a component average.
    mtf: each band's modulation transfer at the coarse Nyquist frequency, C of them, each below 2 / π.

and returns (B, C, H, W) float32. A pan that does not fit the bands raises ValueError. Statistics are each image's own.
Methods that low-pass the pan with the sensor or match its moments get the best case: the sensor model of
`kernels.images.consistency`, and the moments of the pan seen through it. `METHODS` has all of them under the names
used in papers, guided by the super-resolved red, green and blue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.bands import GROUPS, band_indices
from difffusr.kernels.images import gaussian_sigma, sensor_matrix

#: Weights of red, green, blue in a luma.
LUMA: Final = (0.2989, 0.5870, 0.1140)

#: A variance below this share of the mean square is rounding: the image is constant.
FLAT: Final = 1e-10

#: Directions in which regressors vary less than this share of their greatest variance are left out of a fit.
COLLINEAR: Final = 1e-6

#: Side in coarse pixels of the neighbourhood whose regression is a local gain, and how much of the image's own variance
#: counts with it, so that a flat neighbourhood takes the image's gain.
CONTEXT: Final = 7

CONTEXT_PRIOR: Final = 0.05

#: The ratio of pan to low-passed pan is not used where the latter is below this share of its mean.
DARK: Final = 0.1


def pan_from_rgb(rgb: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """A panchromatic image (B, 1, H, W) from RGB (B, 3, H, W): the mean, or a weighted sum (for example `LUMA`)."""
    if weights is None:
        return rgb.mean(1, keepdim=True)
    return (rgb * rgb.new_tensor(weights)[:, None, None]).sum(1, keepdim=True)


def synthesised_pan(ms: Tensor, rgb: Tensor, mtf: Sequence[float]) -> Tensor:
    """One pan per band: the mix of red, green, blue and a constant that fits the band best on its own grid.

    Least squares between the band and the colours as the band's sensor would see them; the mix is then applied to the
    fine colours ("hypersharpening": Selva et al. 2015, the synthesised band). It never fits worse than one pan for all.

    `ms` (B, C, h, w), `rgb` (B, 3, H, W), reflectance; `mtf` as everywhere here. Returns float32 (B, C, H, W). Raises
    ValueError if the sizes have no whole ratio.
    """
    ratio = _ratio(ms, rgb)
    count = rgb.shape[1]
    colours = rgb.repeat(1, ms.shape[1], 1, 1)  # (B, C·3, H, W), red, green, blue for each band in turn
    seen = _observed(colours, ratio, [m for m in mtf for _ in range(count)])
    seen = seen.unflatten(1, (-1, count)).flatten(0, 1)  # (B·C, 3, h, w)
    weights, offset = _fit(ms.flatten(0, 1)[:, None], seen)  # (B·C, 1, 3), (B·C, 1, 1, 1)
    return _mix(rgb, weights.view(*ms.shape[:2], count), offset.view(*ms.shape[:2], 1, 1))


def gram_schmidt(ms: Tensor, pan: Tensor) -> Tensor:
    """Inject the detail of a pan image into bands by their regression on the synthetic pan (their own mean).

    `ms` (B, C, h, w) reflectance; `pan` (B, 1, H, W) reflectance over the same ground. Returns (B, C, H, W). Statistics
    are taken on the coarse grid; the pan is not matched to the synthetic one, unlike the textbook method.
    """
    size = pan.shape[-2:]
    mean = ms.mean((-2, -1), keepdim=True)  # μ_c, (B, C, 1, 1)
    synthetic = ms.mean(1, keepdim=True)  # S, (B, 1, h, w)
    variance = synthetic.var((-2, -1), correction=0, keepdim=True)
    # centring one factor is enough; the published numbers depend on the float32 rounding of this form
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


def bicubic(ms: Tensor, pan: Tensor, _mtf: Sequence[float]) -> Tensor:
    """Bands enlarged without any pan ("EXP", the floor of every comparison; Keys 1981 with a = −0.75)."""
    return _enlarge(ms, _ratio(ms, pan))


def brovey(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """Bands times the ratio of the matched pan to their mean (Gillespie et al. 1987)."""
    ratio = _ratio(ms, pan)
    intensity = ms.mean(1, keepdim=True)
    return _modulated(_enlarge(ms, ratio), _substitute(intensity, pan, mtf), _enlarge(intensity, ratio))


def ihs(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """Fast generalised intensity-hue-saturation: matched pan minus mean of bands, added to each (Tu et al. 2001)."""
    ratio = _ratio(ms, pan)
    intensity = ms.mean(1, keepdim=True)
    return _enlarge(ms, ratio) + (_substitute(intensity, pan, mtf) - _enlarge(intensity, ratio))


def pca(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """The matched pan in place of the first principal component (Chavez and Kwarteng 1989).

    The component's sign is arbitrary; the one is taken in which component and pan rise together.
    """
    ratio = _ratio(ms, pan)
    centred = ms - ms.mean((-2, -1), keepdim=True)
    columns = centred.double().flatten(2)  # (B, C, n)
    first = torch.linalg.eigh(columns @ columns.mT).eigenvectors[..., -1:].to(ms.dtype)  # (B, C, 1)
    component = (first.mT @ centred.flatten(2)).unflatten(2, ms.shape[-2:])  # (B, 1, h, w)
    pan = _single(pan)
    sign = _covariance(component, _observed(pan, ratio, [_mean(mtf)])).sign().to(ms.dtype)  # (B, 1, 1, 1)
    change = _substitute(component * sign, pan, mtf) - _enlarge(component * sign, ratio)
    return _enlarge(ms, ratio) + first[..., None] * sign * change


def gram_schmidt_matched(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """Textbook Gram-Schmidt, mode 1: the matched pan replaces the mean of bands (Laben and Brower 2000).

    Written as injection: each band gets the change times its regression on the mean of bands.
    """
    ratio = _ratio(ms, pan)
    intensity = ms.mean(1, keepdim=True)
    change = _substitute(intensity, pan, mtf) - _enlarge(intensity, ratio)
    return _enlarge(ms, ratio) + _slope(ms, intensity) * change


def gsa(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """Adaptive Gram-Schmidt: the pan replaces the mix of bands that fits the low-passed pan best (Aiazzi et al. 2007).

    With one pan per band, each band has its own fit and change (hypersharpening, Selva et al. 2015).
    """
    ratio = _ratio(ms, pan)
    seen = _observed(pan, ratio, [_mean(mtf)] if pan.shape[1] == 1 else mtf)
    intensity = _mix(ms, *_fit(seen, ms))  # (B, 1 or C, h, w)
    return _enlarge(ms, ratio) + _slope(ms, intensity) * (pan - _enlarge(intensity, ratio))


def hpf(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """Pan minus its box mean, added to each band by the ratio of their standard deviations (Chavez et al. 1991).

    Papers use boxes of one to two coarse pixels; this one is as wide as the bands' mean sensor, about 1.75.
    """
    ratio = _ratio(ms, pan)
    return _added(_enlarge(ms, ratio), pan, _box(pan, ratio, _mean(mtf)))


def sfim(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """Bands times the ratio of the pan to its box mean: smoothing-filter-based intensity modulation (Liu 2000).

    The box is that of `hpf`; the pan is not matched.
    """
    ratio = _ratio(ms, pan)
    return _modulated(_enlarge(ms, ratio), pan, _box(pan, ratio, _mean(mtf)))


def atwt(ms: Tensor, pan: Tensor, _mtf: Sequence[float]) -> Tensor:
    """Additive à trous wavelet (Núñez et al. 1999), pan matched to each band as in Vivone et al. (2015).

    As many levels of the cubic B-spline as there are whole halvings in the ratio: 2, 3, 4 for 4, 8, 24.
    """
    ratio = _ratio(ms, pan)
    return _added(_enlarge(ms, ratio), pan, _a_trous(pan, ratio.bit_length() - 1))


def mtf_glp(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """Generalised Laplacian pyramid, pan low-passed by each band's sensor and matched to the band (Aiazzi et al. 2006).

    The part of the pan that the sensor does not pass is added by the ratio of standard deviations.
    """
    ratio = _ratio(ms, pan)
    seen = _observed(pan, ratio, mtf)
    return _enlarge(ms, ratio) + _spread_ratio(ms, seen) * (pan - _enlarge(seen, ratio))


def mtf_glp_reg(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """As `mtf_glp`, with the band's regression on the low-passed pan as gain, one for the image (Alparone et al. 2007).

    The gain is negative where a band darkens as the pan brightens.
    """
    ratio = _ratio(ms, pan)
    seen = _observed(pan, ratio, mtf)
    return _enlarge(ms, ratio) + _slope(ms, seen) * (pan - _enlarge(seen, ratio))


def mtf_glp_fs(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """As `mtf_glp_reg`, with the gain estimated at full scale, against the pan itself (Vivone et al. 2018).

    Gain: cov(enlarged band, pan) / cov(low-passed pan, pan).
    """
    ratio = _ratio(ms, pan)
    bands, low = _enlarge(ms, ratio), _enlarge(_observed(pan, ratio, mtf), ratio)
    gain = _guarded(_covariance(bands, pan), _covariance(low, pan), pan)
    return bands + gain * (pan - low)


def mtf_glp_cbd(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """As `mtf_glp_reg`, with a gain for each neighbourhood: context-based injection (Aiazzi et al. 2002, 2006).

    The papers decide by a threshold on local correlation; here a flat neighbourhood takes the image's gain instead.
    """
    ratio = _ratio(ms, pan)
    seen = _observed(pan, ratio, mtf)
    return _enlarge(ms, ratio) + _enlarge(_local_slope(ms, seen), ratio) * (pan - _enlarge(seen, ratio))


def mtf_glp_hpm(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """As `mtf_glp`, multiplying by the ratio of the matched pan to its low-pass: modulation (Vivone et al. 2014)."""
    ratio = _ratio(ms, pan)
    seen = _observed(pan, ratio, mtf)
    gain = _spread_ratio(ms, seen)
    return _modulated(_enlarge(ms, ratio), _moved(pan, seen, ms, gain), _enlarge(_moved(seen, seen, ms, gain), ratio))


def mtf_glp_hpm_r(ms: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """As `mtf_glp_hpm`, the pan matched to each band by regression instead of its spread (Vivone et al. 2018)."""
    ratio = _ratio(ms, pan)
    seen = _observed(pan, ratio, mtf)
    gain = _slope(ms, seen)
    return _modulated(_enlarge(ms, ratio), _moved(pan, seen, ms, gain), _enlarge(_moved(seen, seen, ms, gain), ratio))


#: A method guided by one pan (B, 1, H, W) or C pans; in `METHODS` by the fine red, green and blue (B, 3, H, W).
Method = Callable[[Tensor, Tensor, Sequence[float]], Tensor]


def with_mean_pan(method: Method) -> Method:
    """A method guided by RGB (B, 3, H, W) whose mean is the pan of all bands."""
    return lambda ms, rgb, mtf: method(ms, pan_from_rgb(rgb), mtf)


def hypersharpened(method: Method) -> Method:
    """A method guided by RGB (B, 3, H, W), from which each band gets its own pan, `synthesised_pan`."""
    return lambda ms, rgb, mtf: method(ms, synthesised_pan(ms, rgb, mtf), mtf)


#: Baselines by name: (ms (B, C, h, w), rgb (B, 3, H, W), mtf) → (B, C, H, W). "-HS" are hypersharpened.
METHODS: Final[dict[str, Method]] = {
    "bicubic": with_mean_pan(bicubic),
    "Brovey": with_mean_pan(brovey),
    "IHS": with_mean_pan(ihs),
    "PCA": with_mean_pan(pca),
    "Gram-Schmidt": with_mean_pan(gram_schmidt_matched),
    "GSA": with_mean_pan(gsa),
    "GSA-HS": hypersharpened(gsa),
    "HPF": with_mean_pan(hpf),
    "SFIM": with_mean_pan(sfim),
    "ATWT": with_mean_pan(atwt),
    "MTF-GLP": with_mean_pan(mtf_glp),
    "MTF-GLP-REG": with_mean_pan(mtf_glp_reg),
    "MTF-GLP-FS": with_mean_pan(mtf_glp_fs),
    "MTF-GLP-CBD": with_mean_pan(mtf_glp_cbd),
    "MTF-GLP-HPM": with_mean_pan(mtf_glp_hpm),
    "MTF-GLP-HPM-R": with_mean_pan(mtf_glp_hpm_r),
    "MTF-GLP-HS": hypersharpened(mtf_glp_reg),
    "MTF-GLP-CBD-HS": hypersharpened(mtf_glp_cbd),
    "MTF-GLP-HPM-HS": hypersharpened(mtf_glp_hpm_r),
}


def _ratio(ms: Tensor, pan: Tensor) -> int:
    """How many fine pixels span a coarse one; raises ValueError unless that is one whole number on both axes."""
    (h, w), (height, width) = ms.shape[-2:], pan.shape[-2:]
    ratio = height // h
    if (height, width) != (h * ratio, w * ratio) or ratio < 1:
        sizes = f"bands {h}×{w}, pan {height}×{width}"
        raise ValueError(f"the pan must have a whole number of times the bands' pixels, alike on both axes: {sizes}")
    return ratio


def _single(pan: Tensor) -> Tensor:
    """One pan of one or several: their mean (B, 1, H, W)."""
    return pan.mean(1, keepdim=True)


def _mean(mtf: Sequence[float]) -> float:
    return sum(mtf) / len(mtf)


def _enlarge(x: Tensor, ratio: int) -> Tensor:
    """Bicubic, pixel centres at halves: (B, C, h, w) → (B, C, h·ratio, w·ratio)."""
    size = [n * ratio for n in x.shape[-2:]]
    return F.interpolate(x, size=size, mode="bicubic", align_corners=False)


def _observed(x: Tensor, ratio: int, mtf: Sequence[float]) -> Tensor:
    """What sensors of these MTFs measure: (B, C, H, W), or (B, 1, H, W) for each of C sensors, → (B, C, h, w)."""
    rows, columns = (
        torch.from_numpy(np.stack([sensor_matrix(n // ratio, ratio, m) for m in mtf])).to(x) for n in x.shape[-2:]
    )  # (C, h, H), (C, w, W)
    return rows @ x @ columns.mT


def _box(pan: Tensor, ratio: int, mtf: float) -> Tensor:
    """Mean over an odd square about as wide as the sensor's point spread, of the pixels inside the image."""
    exact = math.sqrt(ratio**2 + 12 * gaussian_sigma(ratio, mtf) ** 2)  # a box's variance is its side² / 12
    side = 2 * round((exact - 1) / 2) + 1
    rows = F.avg_pool2d(pan, (side, 1), stride=1, padding=(side // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), stride=1, padding=(0, side // 2), count_include_pad=False)


def _a_trous(pan: Tensor, levels: int) -> Tensor:
    """The approximation after `levels` undecimated levels of the cubic B-spline (1 4 6 4 1) / 16, edges repeated."""
    spline = pan.new_tensor([1, 4, 6, 4, 1]) / 16
    planes = pan.flatten(0, 1)[:, None]  # (B·K, 1, H, W)
    for level in range(levels):
        hole = 2**level
        planes = F.pad(planes, [2 * hole] * 4, mode="replicate")
        planes = F.conv2d(planes, spline.view(1, 1, 5, 1), dilation=hole)
        planes = F.conv2d(planes, spline.view(1, 1, 1, 5), dilation=hole)
    return planes.view_as(pan)


def _substitute(component: Tensor, pan: Tensor, mtf: Sequence[float]) -> Tensor:
    """The pan that, seen by the bands' mean sensor, has mean and spread of the component (B, 1, h, w) it replaces."""
    pan = _single(pan)
    seen = _observed(pan, _ratio(component, pan), [_mean(mtf)])
    return _moved(pan, seen, component, _spread_ratio(component, seen))


def _moved(pan: Tensor, seen: Tensor, target: Tensor, gain: Tensor) -> Tensor:
    """The pan times a gain, offset so that the observed pan has the target's mean."""
    return (pan - seen.mean((-2, -1), keepdim=True)) * gain + target.mean((-2, -1), keepdim=True)


def _added(bands: Tensor, pan: Tensor, low: Tensor) -> Tensor:
    """Bands plus the pan's detail, with the gain that gives the low-passed pan each band's standard deviation."""
    return bands + _spread_ratio(bands, low) * (pan - low)


def _modulated(bands: Tensor, pan: Tensor, low: Tensor) -> Tensor:
    """Bands times pan / low; where `low` is too dark for a ratio, the difference is added instead."""
    bright = low > DARK * low.abs().mean((-2, -1), keepdim=True)
    return bands + torch.where(bright, bands / torch.where(bright, low, 1.0), 1.0) * (pan - low)


def _covariance(a: Tensor, b: Tensor) -> Tensor:
    """Covariance of each channel of a with that of b; either may have one channel: float64 (B, C, 1, 1)."""
    a, b = a.double(), b.double()
    centred = a - a.mean((-2, -1), keepdim=True)
    return (centred * (b - b.mean((-2, -1), keepdim=True))).mean((-2, -1), keepdim=True)


def _guarded(numerator: Tensor, variance: Tensor, x: Tensor) -> Tensor:
    """numerator / variance as a gain of x's dtype; 0 where the variance is within the rounding of x."""
    varies = variance > FLAT * x.double().square().mean((-2, -1), keepdim=True)
    return torch.where(varies, numerator / torch.where(varies, variance, 1.0), 0.0).to(x.dtype)


def _slope(y: Tensor, x: Tensor) -> Tensor:
    """Regression of y on x: cov(y, x) / var(x), (B, C, 1, 1); 0 where x is constant."""
    return _guarded(_covariance(y, x), _covariance(x, x), x)


def _spread_ratio(y: Tensor, x: Tensor) -> Tensor:
    """Standard deviation of y over that of x, (B, C, 1, 1); 0 where x is constant."""
    return _guarded(_covariance(y, y), _covariance(x, x), x).sqrt()


def _local_slope(y: Tensor, x: Tensor) -> Tensor:
    """Regression of y on x around each pixel, (B, C, h, w), shrunk a little towards that of the whole image."""

    def local(z: Tensor) -> Tensor:
        return F.avg_pool2d(z, CONTEXT, stride=1, padding=CONTEXT // 2, count_include_pad=False)

    overall = _slope(y, x)
    a, b = (z.double() - z.double().mean((-2, -1), keepdim=True) for z in (y, x))
    prior = CONTEXT_PRIOR * _covariance(x, x)
    covariance = local(a * b) - local(a) * local(b) + prior * overall
    variance = local(b * b) - local(b) ** 2 + prior
    return _guarded(covariance, variance, x)


def _fit(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of y (B, K, h, w) on x (B, C, h, w) and a constant: weights (B, K, C), offsets (B, K, 1, 1).

    Of equally good weights the smallest; directions in which x hardly varies get weight 0.
    """
    y_mean, x_mean = (z.double().mean((-2, -1)) for z in (y, x))
    a, b = y.double().flatten(2) - y_mean[..., None], x.double().flatten(2) - x_mean[..., None]
    floor = FLAT * x.double().square().sum((1, 2, 3))
    part = torch.full_like(floor, COLLINEAR)
    inverse = torch.linalg.pinv(b @ b.mT, hermitian=True, atol=floor, rtol=part)  # (B, C, C)
    weights = a @ b.mT @ inverse
    offset = y_mean - (weights @ x_mean[..., None])[..., 0]
    return weights.to(y.dtype), offset[..., None, None].to(y.dtype)


def _mix(x: Tensor, weights: Tensor, offset: Tensor) -> Tensor:
    """Channels mixed: (B, C, H, W), (B, K, C), (B, K, 1, 1) → (B, K, H, W)."""
    return (weights @ x.flatten(2)).unflatten(2, x.shape[-2:]) + offset


def _bilinear(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)
