"""A 3×3 convolution with its activation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ConvActivation(nn.Conv2d):
    """A 3×3 convolution and a leaky ReLU of slope `slope`, 0 for a ReLU: (B, before, H, W) → (B, after, H, W).

    One module, and under the name of the convolution, so that both can be computed together.
    """

    def __init__(self, before: int, after: int, slope: float = 0.0) -> None:
        super().__init__(before, after, 3, padding=1)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), self.slope, inplace=True)
