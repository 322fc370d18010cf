"""Residual-in-residual dense blocks and the context encoder built of them (reference sections 1.2 and 2.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualDenseBlock(nn.Module):
    """Five 3×3 convolutions, each seeing all that came before; residual scaled by 0.2. (B, C, H, W) → same shape."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for i in range(5):
            out = channels if i == 4 else growth
            self.add_module(f"conv{i + 1}", nn.Conv2d(channels + i * growth, out, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for i in range(1, 5):
            t = F.leaky_relu(self.get_submodule(f"conv{i}")(features), 0.2)
            features = torch.cat([features, t], 1)
        return x + 0.2 * self.get_submodule("conv5")(features)


class RRDB(nn.Module):
    """Three dense blocks inside one more residual scaled by 0.2.

    `prefix` names the three blocks: "rdb" in the context encoder's checkpoints, "RDB" in the fusion networks'.
    """

    def __init__(self, channels: int, growth: int, prefix: str = "rdb") -> None:
        super().__init__()
        self.names = [f"{prefix}{i}" for i in (1, 2, 3)]
        for name in self.names:
            self.add_module(name, ResidualDenseBlock(channels, growth))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name in self.names:
            y = self.get_submodule(name)(y)
        return x + 0.2 * y
