"""What the fusion learns from: random squares of scenes by Wald's protocol, varied, a batch at a time on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.bands import GROUPS, MTF_NYQUIST, RGB, WAVELENGTH_NM
from difffusr.kernels.networks.fusion import upscale_factor
from difffusr.pipeline.weights.training.crops import Crops
from difffusr.pipeline.weights.training.draws import Draws, Seeds
from difffusr.pipeline.weights.training.wald import View, guide_of, sensor_axis

#: In wide variation: how far an MTF at Nyquist is off at most, how far a group lies beside the guide at most (pixels of
#: the truth, along either axis), and the probability that a band of a finer group is lost.
MTF_ERROR: Final = 0.05

SHIFT_PX: Final = 0.3

LOST: Final = 0.05

#: Probability that a band, other than the guide, is mixed with another one, and that a band is bent.
MIXED: Final = 0.3

BENT: Final = 0.5

#: The share of guides that are softened.
SOFTENED: Final = 0.25


@dataclass(frozen=True)
class WaldBatch:
    """One group of several pieces of ground of one size: `wald.WaldSample`'s attributes with a leading axis B."""

    gsd: int
    guide: Tensor = field(repr=False)
    measured: Tensor = field(repr=False)
    others: Mapping[int, Tensor] = field(repr=False)
    truth: Tensor = field(repr=False)


@dataclass(frozen=True)
class GroundSource:
    """Draws squares of views of one group. Views that hold less than a whole square give smaller ones.

    Attributes:
        crops: by side of the squares.
        shares: how often each side is drawn.
        channels: bands by GSD, in the order of the pixels' channels.
    """

    gsd: int
    crops: Sequence[Crops]
    shares: Sequence[float]
    channels: Mapping[int, int]

    @classmethod
    def of(cls, gsd: int, views: Sequence[tuple[View, float]], size_px: int, device: torch.device) -> GroundSource:
        """Squares of `size_px` pixels of the truth, in whole coarse pixels; with the weight of each view."""
        f = upscale_factor(gsd)
        by_side: dict[int, list[tuple[View, float]]] = {}
        for view, weight in views:
            by_side.setdefault(max(f, min(size_px, *view.size) // f * f), []).append((view, weight))
        crops, shares = [], []
        for side, alike in by_side.items():
            weights = np.array([weight for _, weight in alike])
            crops.append(Crops.of([_pixels(view).to(device) for view, _ in alike], [None] * len(alike), weights, side))
            shares.append(float(weights.sum()))
        channels = {g: len(x) for g, x in views[0][0].bands.items()}
        return cls(gsd, crops, [share / sum(shares) for share in shares], channels)

    def draw(self, seeds: Seeds, batch: int, *, wide: bool) -> list[WaldBatch]:
        """`batch` squares, those of one size together: turned, of a random brightness, some with a softened guide.

        `wide`: also as other instruments, levels and landscapes would show them (`varied`), through other MTFs than the
        band's own.
        """
        rng = seeds.rng(self.gsd)
        counts = rng.multinomial(batch, self.shares)
        soft = rng.binomial(counts, SOFTENED)
        return [
            self._squares(crops, seeds.draws(crops.pixels.device, self.gsd, crops.size), count, some, wide)
            for crops, count, some in zip(self.crops, counts.tolist(), soft.tolist(), strict=True)
            if count
        ]

    def _squares(self, crops: Crops, draws: Draws, count: int, soft: int, wide: bool) -> WaldBatch:
        pixels, _ = crops.draw(draws.shares(count, 3))  # (B, 1, C, side, side)
        pixels = pixels[:, 0] * draws.uniform(-0.4, 0.4, count, 1, 1, 1).exp()
        bands = dict(zip(self.channels, pixels.split(list(self.channels.values()), 1), strict=True))
        bands = {g: x.contiguous() for g, x in bands.items()}
        if wide:
            bands = varied(bands, draws)
        seen = {g: observed(x, g, draws if wide else None) for g, x in bands.items()}
        guide = guide_of(bands)
        # samples are drawn independently: the first are as good as any others
        guide = torch.cat([softened(guide[:soft], draws), guide[soft:]]) if soft else guide
        others = {g: x for g, x in seen.items() if g != self.gsd}
        return WaldBatch(self.gsd, guide, seen[self.gsd], others, bands[self.gsd])


def _pixels(view: View) -> Tensor:
    """All bands of a view as (H, W, C), cut to whole coarse pixels."""
    height, width = view.size
    return torch.cat([x[:, :height, :width] for x in view.bands.values()]).permute(1, 2, 0)


def softened(guide: Tensor, draws: Draws) -> Tensor:
    """Guides (B, 3, H, W) softened more or less, as super-resolved ones are."""
    soft = F.interpolate(F.avg_pool2d(guide, 2), size=guide.shape[-2:], mode="bicubic", align_corners=False)
    return guide.lerp(soft, draws.uniform(0, 0.8, len(guide), 1, 1, 1))


def observed(x: Tensor, gsd: int, draws: Draws | None = None) -> Tensor:
    """A group (B, C, n, n) as its sensors would see it at f times the GSD: (B, C, n / f, n / f).

    With `draws`, each band's MTF at Nyquist is off by up to `MTF_ERROR`.
    """
    factor = upscale_factor(gsd)
    axes, numbers = _axes(x.shape[-1] // factor, factor, x.device)
    number = numbers[gsd]
    if draws is None:
        m = axes[number]
    else:
        off = draws.uniform(-MTF_ERROR, MTF_ERROR, *x.shape[:2]) * 100
        m = axes[number + off.round().long()]  # (B, C, n / f, n)
    return m @ x @ m.mT


@lru_cache(maxsize=16)
def _axes(coarse: int, factor: int, device: torch.device) -> tuple[Tensor, dict[int, Tensor]]:
    """`wald.sensor_axis` of all MTFs in steps of 0.01, and by GSD the numbers of its bands' own among them."""
    percent = {g: [round(100 * MTF_NYQUIST[band]) for band in names] for g, names in GROUPS.items()}
    off = round(100 * MTF_ERROR)
    lowest, highest = (f(v for values in percent.values() for v in values) for f in (min, max))
    mtfs = range(lowest - off, highest + off + 1)
    axes = torch.stack([sensor_axis(coarse, factor, mtf / 100) for mtf in mtfs])
    numbers = {g: torch.tensor(values, device=device) - mtfs[0] for g, values in percent.items()}
    return axes.to(device), numbers


def varied(bands: Mapping[int, Tensor], draws: Draws) -> dict[int, Tensor]:
    """The same ground (B, C, H, W) by GSD as another instrument, level or landscape would show it.

    Bands related as in no scene (`related_anew`); half the time with haze as at the top of the atmosphere, in blue more
    than in the infrared; each band with a gain of its own; each group beside the others by up to `SHIFT_PX` of its
    pixels along either axis; and now and then a band of a finer group without any contrast, so that none is relied
    upon.
    """
    bands = related_anew(bands, draws)
    batch, coarsest = len(bands[10]), max(bands)
    haze = (draws.uniform(0, 0.12, batch) * draws.happens(0.5, batch))[:, None]
    out = {}
    for g, x in bands.items():
        shape = x.shape[:2]
        veil = (haze * _scattering(g, x.device))[..., None, None]
        x = x * draws.uniform(-0.3, 0.3, *shape).exp()[..., None, None] * (1 - veil) + veil
        if g > 10 or coarsest == 10:
            x = shifted(x, draws.uniform(-SHIFT_PX, SHIFT_PX, batch, 2), g)
        if g < coarsest:
            lost = draws.happens(LOST, *shape) & ~_is_colour(g, x.device)
            x = torch.where(lost[..., None, None], x.mean((2, 3), keepdim=True), x)
        out[g] = x
    return out


def related_anew(bands: Mapping[int, Tensor], draws: Draws) -> dict[int, Tensor]:
    """Bands on one grid, some of them partly another band with their own mean and spread, also upside down, and some a
    power of themselves: over snow the visible is bright where the infrared is dark, as over nothing else.
    """
    x = torch.cat(list(bands.values()), 1)
    batch, every = x.shape[:2]
    colour = torch.cat([_is_colour(g, x.device) for g in bands])
    which = (draws.uniform(0, every, batch, every)).long().clamp_max(every - 1)
    which = (which + torch.arange(batch, device=x.device)[:, None] * every).flatten()
    share = draws.uniform(0, 1, batch * every, 1)
    sign = torch.where(draws.happens(1 / 3, batch * every, 1), -1.0, 1.0)
    power = draws.uniform(-0.6, 0.6, batch * every, 1).exp()
    mixed = _numbers(draws.happens(MIXED, batch, every) & ~colour)
    bent = _numbers(draws.happens(BENT, batch, every))

    planes = x.flatten(2).flatten(0, 1)  # (B·C, H·W), a copy of its own
    own, other = planes[mixed], planes[which[mixed]]
    mean, departure = _parted(own)
    _, other_departure = _parted(other)
    scale = _spread(departure) / (_spread(other_departure) + 1e-4)
    like = mean + sign[mixed] * scale * other_departure
    planes[mixed] = torch.maximum(own.lerp(like, share[mixed]), 0.1 * mean.clamp_min(1e-4))
    own = planes[bent]
    mean = own.mean(1, keepdim=True).clamp_min(1e-4)
    planes[bent] = mean * (own.clamp_min(1e-4) / mean).log_().mul_(power[bent]).exp_()
    return dict(zip(bands, planes.view(x.shape).split([part.shape[1] for part in bands.values()], 1), strict=True))


def _parted(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Each plane's mean (N, 1), and the planes (N, H·W) without it."""
    mean = planes.mean(1, keepdim=True)
    return mean, planes - mean


def _spread(departure: Tensor) -> Tensor:
    return departure.square().mean(1, keepdim=True).sqrt()


def _numbers(chosen: Tensor) -> Tensor:
    """Where a mask is true, counted through."""
    return chosen.flatten().nonzero()[:, 0]


def shifted(x: Tensor, shift_px: Tensor, gsd: int) -> Tensor:
    """All bands of a group (B, C, H, W) but red, green, blue moved by parts of a pixel (B, 2), down and right.

    Bicubic, edges repeated.
    """
    first = sum(band in RGB for band in GROUPS[gsd])  # red, green, blue come first
    rest = x[:, first:]
    batch, bands = rest.shape[:2]
    taps = _cubic_taps(shift_px).repeat_interleave(bands, 0)  # (B·C, 2, 5)
    planes = F.pad(rest, [2] * 4, mode="replicate").reshape(1, batch * bands, *(n + 4 for n in rest.shape[-2:]))
    planes = F.conv2d(planes, taps[:, 0].view(-1, 1, 5, 1), groups=batch * bands)
    moved = F.conv2d(planes, taps[:, 1].view(-1, 1, 1, 5), groups=batch * bands).view(rest.shape)
    # bicubic overshoots beside edges
    lowest, highest = rest.amin((2, 3), keepdim=True), rest.amax((2, 3), keepdim=True)
    return torch.cat([x[:, :first], moved.clamp(lowest, highest)], 1)


def _cubic_taps(shift: Tensor) -> Tensor:
    """Weights of the pixels −2 … 2 in a cubic interpolation (a = −0.75) `shift` away from pixel 0: (...) → (..., 5)."""
    away = (torch.arange(-2, 3, device=shift.device) - shift[..., None]).abs()
    near = 1.25 * away**3 - 2.25 * away**2 + 1
    far = -0.75 * away**3 + 3.75 * away**2 - 6 * away + 3
    return torch.where(away <= 1, near, torch.where(away < 2, far, 0.0))


@lru_cache(maxsize=16)
def _scattering(gsd: int, device: torch.device) -> Tensor:
    """How much each band of a group sees of haze that is 1 at 450 nm: (C,)."""
    return torch.tensor([(0.45 / (WAVELENGTH_NM[band] / 1000)) ** 4 for band in GROUPS[gsd]], device=device)


@lru_cache(maxsize=16)
def _is_colour(gsd: int, device: torch.device) -> Tensor:
    return torch.tensor([band in RGB for band in GROUPS[gsd]], device=device)
