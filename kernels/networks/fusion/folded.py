"""Fusion network for CPUs: works on the 10 m grid, with each pixel's 4×4 pixels of guide as channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.kernels.images import local_moments
from difffusr.kernels.networks.convolutions import ConvActivation
from difffusr.kernels.networks.fusion.frame import ConvBlock, FusionNetwork, Groups, upscale_factor

#: Standard deviation of an image's noise, about 0.002 reflectance, in standardised units (of about 0.15).
NOISE: Final = 0.0133

#: About 0.02 DN in standardised units; keeps gradients finite.
OUTPUT_FLOOR: Final = 1e-5


class FoldedBranch(nn.Module):
    """One group's network: predicts the detail that its bands lack, from guide, own bands and the finer groups' bands.

    Each input enters as its local mean and its deviation from that, in units of the local contrast; the guide also as
    the part that the group's sensor does not see, folded 4×4 into channels. The output, folded too, is in units of the
    local contrast of band and guide above the noise, and is added to the bicubic enlargement: where both are flat the
    result stays flat. No part uses statistics of the whole chip: the same neighbourhood gives the same output in every
    chip.
    """

    def __init__(self, bands: int, others: int, ratio: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.ratio = ratio
        folded = 3 * SCALE**2
        self.first = ConvActivation(2 * folded + 3 + 2 * (bands + others), channels)
        self.body = nn.Sequential(*(ConvBlock(channels) for _ in range(blocks)))
        self.last = nn.Conv2d(channels, bands * SCALE**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, guide: Tensor, own: Tensor, *others: Tensor) -> Tensor:
        """`guide` (B, 3, H, W), `own` (B, C, H / ratio, W / ratio), `others` (B, C', h', w') → (B, C, H, W)."""
        size = list(guide.shape[-2:])
        grid = [n // SCALE for n in size]
        level, variance = local_moments(F.avg_pool2d(guide, SCALE))
        variance_of_guide = variance.mean(1, keepdim=True)  # one for red, green, blue
        contrast = (variance_of_guide + NOISE**2).sqrt()
        seen = _bicubic(F.avg_pool2d(guide, self.ratio), size)
        inputs = [level]
        for x, zero in ((guide, _bicubic(level, size)), (guide - seen, 0.0)):
            inputs.append(F.pixel_unshuffle((x - zero) / _bilinear(contrast, size), SCALE))
        for x in (own, *others):
            mean, variance = local_moments(x)
            inputs += [_bicubic(y, grid) for y in (mean, (x - mean) / (variance + NOISE**2).sqrt())]
        seen = torch.cat(inputs, 1).contiguous(memory_format=torch.channels_last)
        x = self.first(seen.to(self.first.weight.dtype))
        detail = F.pixel_shuffle(self.last(self.body(x)), SCALE)
        from_own = _bilinear((local_moments(own)[1] - NOISE**2).clamp_min(0), grid)
        from_guide = (variance_of_guide - (3 * NOISE) ** 2).clamp_min(0)  # faint waves in blue are not in the infrared
        unit = (from_own + from_guide + OUTPUT_FLOOR**2).sqrt()  # (B, C, H / 4, W / 4)
        return _bicubic(own, size) + _bilinear(unit, size) * detail


class FusionFolded(FusionNetwork):
    """The fusion network of the small models: three `FoldedBranch`es, `channels` wide, of `blocks` residual blocks.

    As in the first published generation, a group also sees the bands of the finer groups: near infrared at 10 m is a
    good predictor of red edge at 20 m and water vapour at 60 m.
    """

    sources: ClassVar[Mapping[int, tuple[int, ...]]] = {10: (10,), 20: (20, 10), 60: (60, 10, 20)}
    lowered: ClassVar[tuple[str, ...]] = ("first", "body", "last")

    def __init__(self, channels: int, blocks: int, groups: Groups = GROUPS) -> None:
        super().__init__(groups)
        for gsd, sources in self.sources.items():
            others = sum(len(groups[other]) for other in sources[1:])
            branch = FoldedBranch(len(groups[gsd]), others, upscale_factor(gsd), channels, blocks)
            self.add_module(f"rrdb_block_{gsd}_fusion", branch)

    def fuse_group(self, gsd: int, guide: Tensor, *ms: Tensor) -> Tensor:
        """As `FusionNetwork.fuse_group`; the first of `ms` is the group itself, on its native grid."""
        own, *others = ms
        factor = guide.shape[-1] // upscale_factor(gsd)
        if own.shape[-1] != factor:  # given on the 10 m grid
            own = F.interpolate(own, size=[n // upscale_factor(gsd) for n in guide.shape[-2:]], mode="area")
        out: Tensor = self.branch(gsd)(guide, own, *others)
        return out


def _bicubic(x: Tensor, size: list[int]) -> Tensor:
    return x if list(x.shape[-2:]) == size else F.interpolate(x, size=size, mode="bicubic", align_corners=False)


def _bilinear(x: Tensor, size: list[int]) -> Tensor:
    """For values that must stay positive."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
