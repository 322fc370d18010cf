"""Residual-in-residual dense blocks and the context encoder built of them (reference sections 1.2 and 2.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualDenseBlock(nn.Module):
    """Five 3×3 convolutions, each seeing all previous features; residual scaled by 0.2. (B, C, H, W) → same shape."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(channels + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(channels + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(channels + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(channels + 4 * growth, channels, 3, padding=1)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            _small_kaiming(conv)

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            t = F.leaky_relu(conv(features), 0.2, inplace=True)  # (B, growth, H, W)
            features = torch.cat([features, t], 1)
        return torch.add(x, self.conv5(features), alpha=0.2)


class RRDB(nn.Module):
    """Three dense blocks inside one more residual scaled by 0.2. (B, C, H, W) → same shape.

    `prefix` names the three blocks: "rdb" in the context encoder's checkpoints, "RDB" in the fusion networks'.
    """

    def __init__(self, channels: int, growth: int, prefix: str = "rdb") -> None:
        super().__init__()
        for i in (1, 2, 3):
            self.add_module(f"{prefix}{i}", ResidualDenseBlock(channels, growth))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.children():
            y = block(y)
        return torch.add(x, y, alpha=0.2)


class RRDBNet(nn.Module):
    """The context encoder: features of the low-resolution image on its own grid.

    Input (B, num_in, h, w), the normalised RGB in R, G, B order (reflectance mapped to [-1, 1]). The tail after the
    features makes an RGB at ×4; the published system uses it in training only. Source: reference section 1.2.
    """

    def __init__(
        self, num_in: int = 3, num_out: int = 3, channels: int = 64, blocks: int = 23, growth: int = 32
    ) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(num_in, channels, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(channels, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_up1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_up2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_hr = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, num_out, 3, padding=1)

    def context(self, x: Tensor) -> Tensor:
        """Features before any upsampling: (B, num_in, h, w) → (B, channels, h, w); all that inference needs."""
        f0 = self.conv_first(x)
        return f0 + self.conv_body(self.body(f0.to(self._dtype)).to(f0.dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, num_in, h, w) → the context (B, channels, h, w) and the RGB at ×4 (B, num_out, 4h, 4w)."""
        ctx = self.context(x)
        return ctx, self.tail(ctx)

    def tail(self, ctx: Tensor) -> Tensor:
        """The network's own RGB from its features: (B, channels, h, w) → (B, num_out, 4h, 4w), normalised."""
        y = ctx
        for conv in (self.conv_up1, self.conv_up2):
            y = F.leaky_relu(conv(F.interpolate(y, scale_factor=2, mode="nearest")), 0.2, inplace=True)
        y = F.leaky_relu(self.conv_hr(y), 0.2, inplace=True)  # (B, channels, 4h, 4w)
        out: Tensor = self.conv_last(y)
        return out

    def lower(self, dtype: torch.dtype) -> None:
        """Run the residual blocks in a lower precision. The first features and the tail stay float32: the tail makes
        absolute values, and in bfloat16 its mean error would be 5 DN."""
        self.body.to(dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return next((parameter.dtype for parameter in self.body.parameters()), torch.float32)


def _small_kaiming(conv: nn.Conv2d) -> None:
    """Kaiming-normal weights times 0.1, zero bias: deep stacks of residual blocks start near the identity.

    On the meta device nothing is drawn: there torch would import its compiler for that, in a second.
    """
    if conv.weight.is_meta:
        return
    with torch.no_grad():
        nn.init.kaiming_normal_(conv.weight).mul_(0.1)
        if conv.bias is not None:
            conv.bias.zero_()
