"""Fusion network of the first generation: three towers of residual dense blocks (reference section 2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.networks.convolutions import ConvActivation
from difffusr.kernels.networks.fusion.frame import FusionNetwork, Groups
from difffusr.kernels.networks.rrdb import RRDB


class ChannelAttention(nn.Module):
    """Weight each channel by its mean and maximum. (B, C, H, W) → same shape."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean, peak = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)  # (B, C, 1, 1)
        score: Tensor = self.fc2(F.relu(self.fc1(mean))) + self.fc2(F.relu(self.fc1(peak)))
        return x * score.sigmoid()


class SpatialAttention(nn.Module):
    """Weight each pixel by the mean and maximum over its channels. (B, C, H, W) → same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # (B, 2, H, W)
        score: Tensor = self.conv1(seen)
        return x * score.sigmoid()


class RRDBBranch(nn.Module):
    """One group's network: a tower for the guide, one for the bands, one for both; it predicts absolute values.

    (guide (B, 3, H, W), bands (B, in_bands, H, W)) → (B, out_bands, H, W).
    """

    def __init__(self, in_bands: int, out_bands: int, channels: int, blocks: int, growth: int) -> None:
        super().__init__()

        def conv(inputs: int) -> ConvActivation:
            return ConvActivation(inputs, channels, 0.2)

        def tower() -> nn.Sequential:
            return nn.Sequential(*(RRDB(channels, growth, prefix="RDB") for _ in range(blocks)))

        self.rgb_conv_first, self.rgb_rrdb = conv(3), tower()
        self.rgb_channel_attention, self.spatial_attention_rgb = ChannelAttention(channels), SpatialAttention()
        self.ms_conv_first, self.ms_rrdb = conv(in_bands), tower()
        self.ms_channel_attention, self.spatial_attention_ms = ChannelAttention(channels), SpatialAttention()
        self.fusion_conv, self.fusion_rrdb = conv(2 * channels), tower()
        # "up" in name only: the published layers work at one resolution
        self.upconv1, self.upconv2, self.HRconv = conv(channels), conv(channels), conv(channels)
        self.conv_last = nn.Conv2d(channels, out_bands, 3, padding=1)

    def forward(self, guide: Tensor, ms: Tensor) -> Tensor:
        dtype = self.fusion_conv.weight.dtype
        rgb = self.rgb_rrdb(self.rgb_conv_first(guide.to(dtype)))
        rgb = F.dropout(rgb, 0.2, self.training)
        rgb = self.spatial_attention_rgb(self.rgb_channel_attention(rgb))
        bands = self.ms_rrdb(self.ms_conv_first(ms.to(dtype)))
        bands = self.spatial_attention_ms(self.ms_channel_attention(bands))
        y = self.fusion_rrdb(self.fusion_conv(torch.cat([bands, rgb], 1)))  # (B, channels, H, W)
        for layer in (self.upconv1, self.upconv2, self.HRconv):
            y = layer(y)
        out: Tensor = self.conv_last(y.to(self.conv_last.weight.dtype))
        return out


class FusionRRDB(FusionNetwork):
    """Fusion v1. Published size: channels 64, blocks 5, growth 32 (32 968 152 parameters).

    Coarser groups also see the finer ones. Dropout, in training only, draws from torch's global generator.
    """

    sources: ClassVar[Mapping[int, tuple[int, ...]]] = {10: (10,), 20: (10, 20), 60: (10, 20, 60)}
    lowered: ClassVar[tuple[str, ...]] = (
        "rgb_conv_first", "rgb_rrdb", "rgb_channel_attention", "spatial_attention_rgb", "ms_conv_first", "ms_rrdb",
        "ms_channel_attention", "spatial_attention_ms", "fusion_conv", "fusion_rrdb", "upconv1", "upconv2", "HRconv",
    )  # fmt: skip

    def __init__(self, channels: int = 64, blocks: int = 5, growth: int = 32, groups: Groups = GROUPS) -> None:
        super().__init__(groups)
        for gsd, seen in self.sources.items():
            in_bands = sum(len(groups[s]) for s in seen)
            branch = RRDBBranch(in_bands, len(groups[gsd]), channels, blocks, growth)
            self.add_module(f"rrdb_block_{gsd}_fusion", branch)
