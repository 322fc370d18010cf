"""Fusion network of the second generation: detail injected through learned MTF filters (reference section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difffusr.kernels.bands import GROUPS, MTF_NYQUIST
from difffusr.kernels.measures import LUMA
from difffusr.kernels.networks.fusion.frame import FusionNetwork, Groups, upscale_factor
from difffusr.kernels.networks.rrdb import RRDB

#: As many bands of a group run through the shared networks together as keep the widest activation below this.
ACTIVATION_BUDGET_BYTES: Final = 256 * 2**20


class PanMixer(nn.Module):
    """A panchromatic image as a learned mean of red, green, blue. (B, 3, H, W) → (B, 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        luma = torch.tensor(LUMA)
        self.logits = nn.Parameter((luma / luma.sum()).log())

    def forward(self, rgb: Tensor) -> Tensor:
        weights = self.logits.softmax(0).view(1, 3, 1, 1)
        return (rgb * weights).sum(1, keepdim=True)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), (B, C, H, W) → same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv20 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv21 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv21(F.relu(self.conv20(x), inplace=True))
        return out


class MTFBranch(nn.Module):
    """One group's network: adds to each band the detail of the pan that the band's sensor does not see.

    (guide (B, 3, H, W), bands (B, C, H, W)) → (B, C, H, W). H and W above half the widest filter (9 pixels at 60 m) and
    not below `ratio`. Tensors inside are channels last: with few channels and many pixels three times as fast on CPUs.
    """

    mtf_ratios: Tensor

    def __init__(self, bands: int, ratio: int, channels: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.widest = max(2 * channels, channels + 4 * growth if blocks > 1 else 0)  # channels alive at once, per band
        self.pan_mixer = PanMixer()
        # the published network reads the list of MTF values from its start for every group
        filters = [mtf_filter(mtf, ratio) for mtf in list(MTF_NYQUIST.values())[:bands]]
        self.mtf_filters = nn.ModuleList(nn.Conv2d(1, 1, f.shape[-1], bias=False) for f in filters)
        with torch.no_grad():
            for conv, initial in zip(self.mtf_filters, filters, strict=True):
                conv.get_parameter("weight").copy_(initial)
        self.ratio = ratio
        self.register_buffer("mtf_ratios", torch.full((bands,), ratio, dtype=torch.int32))
        self.detail_net = nn.Sequential(
            nn.Conv2d(2, channels, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            *(RRDB(channels, growth, prefix="RDB") for _ in range(blocks // 2)),
            nn.Conv2d(channels, 1, 3, padding=1),
        )
        self.gain_estimator = nn.Sequential(
            nn.Conv2d(3, channels // 2, 3, padding=1), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(channels // 2, 1, 1)
        )
        self.refinement = nn.Sequential(
            nn.Conv2d(bands + 1, channels, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            *(ResidualBlock(channels) for _ in range(max(1, blocks // 2))),
            nn.Conv2d(channels, bands, 3, padding=1),
        )

    def forward(self, guide: Tensor, ms: Tensor) -> Tensor:
        pan = self.pan_mixer(guide)  # (B, 1, H, W)
        low = self.low_pass(pan)  # lp_i, (B, C, H, W)
        brightness = ms.mean(1, keepdim=True)  # (B, 1, H, W)
        detail, injected = [], []
        for i in range(0, ms.shape[1], step := self._bands_at_once(ms)):
            d, e = self._inject(pan, low[:, i : i + step], ms[:, i : i + step], brightness)
            detail.append(d)
            injected.append(e)
        e = torch.cat(injected, 1)  # (B, C, H, W)
        mean_detail = torch.cat(detail, 1).mean(1, keepdim=True)  # (B, 1, H, W)
        seen = torch.cat([e, mean_detail], 1).contiguous(memory_format=torch.channels_last)
        out: Tensor = e + self.refinement(seen.to(self._dtype))
        return out

    def low_pass(self, pan: Tensor) -> Tensor:
        """The pan as each band's sensor would see it, (B, 1, H, W) → (B, C, H, W): blurred, sampled, enlarged back."""
        height, width = pan.shape[-2:]
        size = max(conv.get_parameter("weight").shape[-1] for conv in self.mtf_filters)
        # padding the narrower filters with zeros makes one convolution for all bands
        weights = [conv.get_parameter("weight") for conv in self.mtf_filters]
        stacked = torch.cat([F.pad(w, [(size - w.shape[-1]) // 2] * 4) for w in weights])  # (C, 1, size, size)
        blurred = F.conv2d(F.pad(pan, [size // 2] * 4, mode="reflect"), stacked)  # (B, C, H, W)
        sampled = F.interpolate(blurred, size=[height // self.ratio, width // self.ratio], mode="area")
        return F.interpolate(sampled, size=[height, width], mode="bicubic", align_corners=False)

    def _inject(self, pan: Tensor, low: Tensor, ms: Tensor, brightness: Tensor) -> tuple[Tensor, Tensor]:
        """The detail of some bands, and the bands with it added: `low`, `ms` (B, c, H, W) → twice (B, c, H, W)."""

        def per_band(*planes: Tensor) -> Tensor:
            """(B, c, H, W) or (B, 1, H, W) each → channels of a batch of bands, (B·c, n, H, W), channels last."""
            stacked = torch.stack([p.to(self._dtype).expand_as(ms) for p in planes], -1)
            return stacked.flatten(0, 1).movedim(-1, 1)

        detail = pan - low
        detail = detail + self.detail_net(per_band(detail, ms)).reshape(ms.shape)
        gain = 1 + self.gain_estimator(per_band(pan, low, brightness)).reshape(ms.shape)
        return detail, ms + gain * detail

    @property
    def _dtype(self) -> torch.dtype:
        """The features' dtype; the sensor's filters and everything added to the bands are float32."""
        return self.refinement[0].get_parameter("weight").dtype

    def _bands_at_once(self, ms: Tensor) -> int:
        per_band = ms[:, 0].numel() * self.widest * ms.element_size()
        return max(1, min(ms.shape[1], ACTIVATION_BUDGET_BYTES // per_band))


class FusionMTF(FusionNetwork):
    """Fusion v2. Published size: channels 32, blocks 3, growth 16 (608 463 parameters).

    Each group sees its own bands only. `blocks` counts as the reference counts it: the detail network has
    `blocks // 2` residual dense blocks, the refinement `max(1, blocks // 2)` residual blocks.
    """

    sources: ClassVar[Mapping[int, tuple[int, ...]]] = {10: (10,), 20: (20,), 60: (60,)}
    lowered: ClassVar[tuple[str, ...]] = ("detail_net", "gain_estimator", "refinement")

    def __init__(self, channels: int = 32, blocks: int = 3, growth: int = 16, groups: Groups = GROUPS) -> None:
        super().__init__(groups)
        for gsd in self.sources:
            branch = MTFBranch(len(groups[gsd]), upscale_factor(gsd), channels, blocks, growth)
            self.add_module(f"rrdb_block_{gsd}_fusion", branch)


def mtf_filter(mtf: float, ratio: int) -> Tensor:
    """Gaussian filter of a sensor with a known MTF at its Nyquist frequency.

    `ratio`: pan pixels per pixel of the sensor. Returns float32 (1, 1, k, k) that sums to one, k odd.
    """
    sigma = -ratio * math.sqrt(2) * math.log(mtf) / (2 * math.pi**2)
    size = max(3, 2 * math.floor(4 * sigma + 0.5) + 1)
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    g = torch.exp(-0.5 * (offset / sigma) ** 2)
    g = g / g.sum()
    return torch.outer(g, g)[None, None].to(torch.float32)
