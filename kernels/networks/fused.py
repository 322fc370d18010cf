"""Operations around convolutions, each in two forms: the library's, and one that a compiler turns into one kernel.

`torch.compile` sees the second form. It reads and writes every pixel as few times as possible, in the memory order of
channels-last tensors; both forms compute the same up to rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def norm_swish(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Group norm, then swish: (B, C, H, W) → same shape and dtype; `weight` and `bias` (C,)."""
    if not torch.compiler.is_compiling():
        return F.silu(F.group_norm(x, groups, weight, bias, eps), inplace=True)
    return norm_swish_by_moments(x, groups, weight, bias, eps)


def norm_swish_by_moments(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """As `norm_swish`: one pass for the sums of values and squares by channel, one to apply them; sums in float32."""
    B, C = x.shape[:2]
    values = x.float()
    sums = torch.stack([values.sum((2, 3)), (values * values).sum((2, 3))])  # (2, B, C)
    size = C // groups * x.shape[2] * x.shape[3]
    mean, square = sums.view(2, B, groups, C // groups).sum(3) / size  # (B, groups)
    scale = ((square - mean * mean).clamp_min(0) + eps).rsqrt()
    a = scale.repeat_interleave(C // groups, 1) * weight.float()  # (B, C)
    b = bias.float() - mean.repeat_interleave(C // groups, 1) * a
    return F.silu(values * a[..., None, None] + b[..., None, None]).to(x.dtype)


def depthwise(x: Tensor, kernels: Tensor) -> Tensor:
    """Each channel of each sample correlated with its own 3×3 kernel, zero padding: (B, C, H, W) → same shape.

    `kernels` (B, C, 1, 3, 3).
    """
    if not torch.compiler.is_compiling():
        B, C, H, W = x.shape
        # samples become groups of one convolution
        y = F.conv2d(x.reshape(1, B * C, H, W), kernels.flatten(0, 1), padding=1, groups=B * C)
        return y.reshape(B, C, H, W)
    return depthwise_by_shifts(x, kernels)


def depthwise_by_shifts(x: Tensor, kernels: Tensor) -> Tensor:
    """As `depthwise`: the sum of nine shifted images, in float32."""
    H, W = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1)).float()
    weights = kernels.float().flatten(-2).squeeze(2)[..., None, None]  # (B, C, 9, 1, 1)
    shifts = (padded[..., i : i + H, j : j + W] for i in range(3) for j in range(3))
    total = torch.zeros((), device=x.device)
    for tap, shifted in enumerate(shifts):
        total = total + weights[:, :, tap] * shifted
    return total.to(x.dtype)
