"""Fusion network that corrects the classical estimate: where it has nothing to add, the estimate stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difffusr.kernels.bands import GROUPS, RGB, SCALE
from difffusr.kernels.images import DARKEST, FUSION, FUSION_RGB, local_moments, signal_share
from difffusr.kernels.networks.convolutions import ConvActivation
from difffusr.kernels.networks.fusion.classical import classical_estimates, projected
from difffusr.kernels.networks.fusion.frame import (
    Bands,
    ConvBlock,
    FusionNetwork,
    Groups,
    pick_channels,
    split_groups,
    upscale_factor,
)

#: Standard deviation of an image's noise, reflectance: contrast below it is none, and a chip that varies less is flat.
NOISE: Final = 0.002

#: The largest correction by native GSD, in units of the local contrast. Of 60 m bands there is the least to learn from:
#: a scene has few pixels of 1.4 km.
LARGEST: Final = {10: 1.0, 20: 1.0, 60: 0.25}

#: By native GSD, the share of a correction that is taken after training: it is right for the places seen there. Of
#: places left out, those least alike (snow) are spoilt by all of it; the others lose next to nothing with less.
SURE: Final = {10: 1.0, 20: 0.7, 60: 1.0}

#: By native GSD, how far a result may leave the range of the measured values around it, in units of that range: the
#: larger a pixel, the less of what is in it shows.
BEYOND: Final = {10: 4.0, 20: 4.0, 60: 10.0}

#: By native GSD, how often a result is projected on the measurement and brought back into its range, which is the last
#: thing done: a projection alone throws dark halos around bright roofs, down to the floor and below.
ROUNDS: Final = {10: 3, 20: 3, 60: 2}


class CorrectingBranch(nn.Module):
    """One group's network: corrections (B, C, H, W) between −1 and 1, at first 0.

    It takes guides and estimates twice: (B, K, H, W) in units of the local contrast, and (B, K, H / 4, W / 4) in units
    of the chip's.

    A few channels on the guide's grid, most of the work on the 10 m grid. The way back is enlarged and convolved, twice
    by 2: no pixel of the fine grid has weights of its own, so that none stands out.
    """

    def __init__(self, seen: int, bands: int, channels: int, blocks: int, fine: int) -> None:
        super().__init__()
        self.fine = ConvActivation(seen, fine)
        self.coarse = ConvActivation(2 * seen + fine, channels)
        self.body = nn.Sequential(*(ConvBlock(channels) for _ in range(blocks)))
        self.up2 = ConvActivation(channels, fine)
        self.up4 = ConvActivation(fine, fine)
        self.last = nn.Conv2d(fine, bands, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, texture: Tensor, level: Tensor) -> Tensor:
        texture, level = (x.to(self.fine.weight.dtype) for x in (texture, level))
        detail = self.fine(texture.contiguous(memory_format=torch.channels_last))
        x = torch.cat([level, F.avg_pool2d(texture, SCALE), F.avg_pool2d(detail, SCALE)], 1)
        x = self.body(self.coarse(x.contiguous(memory_format=torch.channels_last)))
        x = self.up2(_bilinear(x, [2 * n for n in x.shape[-2:]]))
        x = _bilinear(x, list(texture.shape[-2:])).add_(detail)
        out: Tensor = self.last(self.up4(x))
        return torch.tanh(out.float())


class FusionCorrected(FusionNetwork):
    """Classical estimate plus a bounded correction: three `CorrectingBranch`es.

    `channels` and `blocks` are those on the 10 m grid, `fine` the channels on the guide's. Inputs are standardised by
    each chip's own mean and spread, corrections are in units of the local contrast: no landscape is brighter or of more
    contrast than another, and where nothing varies nothing is added. Red, green and blue are the guide, unchanged.
    Results stay positive and near the range of what is measured around them, also where they are projected on it.
    """

    sources: ClassVar[Mapping[int, tuple[int, ...]]] = {10: (10,), 20: (20, 10), 60: (60, 10, 20)}
    lowered: ClassVar[tuple[str, ...]] = ("fine", "coarse", "body", "up2", "up4", "last")
    passes_rgb: ClassVar[bool] = True

    def __init__(self, channels: int, blocks: int, fine: int, groups: Groups = GROUPS) -> None:
        super().__init__(groups)
        finer = len(RGB)
        for gsd in sorted(groups):
            own = sum(band not in RGB for band in groups[gsd])
            self.add_module(f"rrdb_block_{gsd}_fusion", CorrectingBranch(finer + own, own, channels, blocks, fine))
            finer += own

    def forward(self, bands: Bands, guide: Tensor | None = None) -> dict[int, Tensor]:
        """As `FusionNetwork.forward`; the estimates are made once for all groups."""
        native = split_groups(bands, self.groups)
        return self._fused(tuple(self.groups), self.own_guide(native[10]) if guide is None else guide, native)

    def fuse_group(self, gsd: int, guide: Tensor, *ms: Tensor) -> Tensor:
        """As `FusionNetwork.fuse_group`; the first of `ms` is the group itself."""
        return self._fused((gsd,), guide, dict(zip(self.sources[gsd], ms, strict=True)))[gsd]

    def _fused(self, wanted: tuple[int, ...], guide: Tensor, native: Mapping[int, Tensor]) -> dict[int, Tensor]:
        size = list(guide.shape[-2:])
        rgb = FUSION_RGB.invert(guide)
        measured = {
            gsd: FUSION.select(self.groups[gsd]).invert(_on_grid(x, [n // upscale_factor(gsd) for n in size]))
            for gsd, x in native.items()
        }
        with torch.no_grad():
            estimates = classical_estimates(_quiet(rgb), measured, max(wanted), self.groups)
        out, (texture, level) = {}, _inputs(rgb)
        for gsd, estimate in sorted(estimates.items()):
            names = self.groups[gsd]
            unknown = [i for i, band in enumerate(names) if band not in RGB]
            estimate, own = pick_channels(estimate, unknown), pick_channels(measured[gsd], unknown)
            texture, level = (torch.cat(pair, 1) for pair in zip((texture, level), _inputs(estimate), strict=True))
            if gsd in wanted:
                correction = self.branch(gsd)(texture, level)
                low, high = _range(own, estimate, gsd)
                step = LARGEST[gsd] * (1.0 if self.training else SURE[gsd])
                fused = estimate + step * _contrast(estimate, own) * correction
                fused = torch.minimum(torch.maximum(fused, low), high)
                for _ in range(ROUNDS[gsd]):
                    fused = projected(gsd, fused, own, [names[i] for i in unknown])
                    fused = torch.minimum(torch.maximum(fused, low), high)
                channels = dict(zip(RGB, rgb.unbind(1), strict=True))
                channels |= {names[i]: x for i, x in zip(unknown, fused.unbind(1), strict=True)}
                out[gsd] = FUSION.select(names).apply(torch.stack([channels[band] for band in names], 1))
        return out


def _inputs(x: Tensor) -> tuple[Tensor, Tensor]:
    """What a branch sees of some channels (B, C, H, W): deviations from the local mean in units of the local spread,
    and the channels on the 10 m grid (B, C, H / 4, W / 4) by the mean and spread of each chip's channel.

    Both spreads are taken above the noise: of a flat chip nothing but that is left.
    """
    size, small = list(x.shape[-2:]), F.avg_pool2d(x, SCALE)
    mean, variance = local_moments(small)
    texture = (x - _bilinear(mean, size)) / _bilinear((variance + NOISE**2).sqrt(), size)
    centre = small.mean((-2, -1), keepdim=True)
    spread = (small - centre).square().mean((-2, -1), keepdim=True).sqrt()
    return texture, (small - centre) / (spread + NOISE)


def _quiet(guide: Tensor) -> Tensor:
    """A guide whose texture is left out where it is no more than noise: waves in blue are not in the other bands."""
    small, size = F.avg_pool2d(guide, SCALE), list(guide.shape[-2:])
    mean = _bilinear(local_moments(small)[0], size)
    return mean + _bilinear(signal_share(small, NOISE), size) * (guide - mean)


def _contrast(estimate: Tensor, measured: Tensor) -> Tensor:
    """Spread around each pixel of what is measured and of the estimate, above the noise: (B, C, H, W), reflectance."""
    size = list(estimate.shape[-2:])
    coarse = _bilinear((local_moments(measured)[1] - NOISE**2).clamp_min(0), size)
    fine = (local_moments(F.avg_pool2d(estimate, SCALE))[1] - NOISE**2).clamp_min(0)
    return (coarse + _bilinear(fine, size) + 1e-12).sqrt() - 1e-6


def _range(measured: Tensor, estimate: Tensor, gsd: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest results (B, C, H, W): positive and near the range of the 3 × 3 measured pixels around, so that
    there is no pixel at the floor and no halo; beyond it only as far as the estimate is, which knows the guide.
    """
    size = list(estimate.shape[-2:])
    high = F.max_pool2d(measured, 3, stride=1, padding=1)
    low = -F.max_pool2d(-measured, 3, stride=1, padding=1)
    beyond = BEYOND[gsd] * (high - low) + NOISE
    darkest = _bilinear(DARKEST * low, size)
    least = torch.minimum(torch.maximum(_bilinear(low - beyond, size), darkest), torch.maximum(estimate, darkest))
    return least, torch.maximum(_bilinear(high + beyond, size), estimate)


def _on_grid(x: Tensor, size: list[int]) -> Tensor:
    """On the native grid, also if it was given on a finer one."""
    return x if list(x.shape[-2:]) == size else F.interpolate(x, size=size, mode="area")


def _bilinear(x: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
