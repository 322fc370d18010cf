"""Convolutions with activations, residual blocks and dense blocks: biases, activations and sums in one pass each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difffusr.kernels.networks.fused.operations import combine, convolve
from difffusr.kernels.networks.rrdb import RRDB, ResidualDenseBlock

#: Channels that a convolution of `operations.convolve` takes and makes at the most where the library's would do, too.
_FEW, _NOT_MANY = 16, 64


def convolution(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """A convolution without a bias, the library's: (B, H, W, C) → (B, H / stride, W / stride, C'), zero padding."""
    y = F.conv2d(x.movedim(-1, 1), weight, stride=stride, padding=weight.shape[-1] // 2)
    return y.movedim(1, -1).contiguous()  # it is already, but for images of one pixel


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) as a contiguous (B, H, W, C): a view where the tensor is channels last."""
    return x.movedim(1, -1).contiguous()


class Activated:
    """A convolution and a leaky ReLU on its output: (B, C, H, W) → (B, C', H, W).

    Where it takes fewer channels than a matrix unit, all is one kernel; else the convolution is the library's.
    """

    def __init__(self, conv: nn.Conv2d, slope: float) -> None:
        self.conv, self.slope = conv, slope
        self.weight = _by_tap(conv.weight) if conv.in_channels <= _FEW and conv.out_channels <= _NOT_MANY else None

    def __call__(self, x: Tensor) -> Tensor:
        return self.nhwc(channels_last(x)).movedim(-1, 1)

    def nhwc(self, x: Tensor, also: Tensor | None = None) -> Tensor:
        """(B, H, W, C) → (B, H, W, C'), which also goes to `also`."""
        bias = self.conv.get_parameter("bias")
        if self.weight is not None:
            return convolve(x, self.weight, bias, slope=self.slope, also=also)
        y = convolution(x, self.conv.weight)
        return combine([y], bias, slope=self.slope, out=y, also=also)


class Residual:
    """x + conv(relu(conv(x))): (B, C, H, W) → same shape."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
        self.first, self.second = first, second

    def __call__(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        y = convolution(x, self.first.weight)
        y = convolution(combine([y], self.first.bias, slope=0.0, out=y), self.second.weight)
        return combine([y], self.second.bias, [x], out=y).movedim(-1, 1)


class Dense:
    """A residual dense block without concatenation: (B, H, W, C) → same shape.

    A convolution of a concatenation is a sum of convolutions. The wide ones are the library's: of x, for the first two
    outputs; of x and these two, which lie side by side, for the rest. What an output of each pair adds to the other,
    and what the last two add to the block's result, are convolutions with few channels, computed in passing where
    biases, activations and sums are.
    """

    def __init__(self, block: ResidualDenseBlock) -> None:
        convs = [block.conv1, block.conv2, block.conv3, block.conv4, block.conv5]
        self.channels, self.growth = block.conv1.in_channels, block.conv1.out_channels
        self.biases = [conv.get_parameter("bias") for conv in convs]
        c, g = self.channels, self.growth
        self.of_x = _stacked(convs[:2], c)
        self.of_first_two = _stacked(convs[2:], c + 2 * g)
        self.between_first_two = _by_tap(convs[1].weight[:, c:])
        self.between_last_two = _by_tap(convs[3].weight[:, c + 2 * g :])
        self.of_last_two = _by_tap(convs[4].weight[:, c + 2 * g :])

    def __call__(self, dense: Tensor, x: Tensor, outer: Tensor | None, following: Tensor | None) -> Tensor:
        """Args:
        dense: (B, H, W, C + 2 growth): x, and room.
        x: (B, H, W, C).
        outer: (B, H, W, C); the result is then scaled by 0.2 again, and added to it.
        following: as `dense`, where the result goes, too: for the next block.
        """
        c, g = self.channels, self.growth
        b1, b2, b3, b4, b5 = self.biases
        p = convolution(x, self.of_x)
        convolve(
            p[..., :g], self.between_first_two, b2, p[..., g:], before=b1, slope_before=0.2, slope=0.2,
            seen=dense[..., c : c + g], out=dense[..., c + g :],
        )  # fmt: skip
        p = convolution(dense, self.of_first_two)
        last = x.new_empty((*x.shape[:3], 2 * g))
        convolve(
            p[..., :g], self.between_last_two, b4, p[..., g : 2 * g], before=b3, slope_before=0.2, slope=0.2,
            seen=last[..., :g], out=last[..., g:],
        )  # fmt: skip
        return convolve(
            last, self.of_last_two, b5, p[..., 2 * g :], residuals=[x] if outer is None else [x, outer], scale=0.2,
            out=torch.empty_like(x), also=None if following is None else following[..., :c],
        )  # fmt: skip


class Tower:
    """Residual-in-residual dense blocks one after another: (B, C, H, W) → same shape.

    With `first`, a convolution with its activation before them, which writes where the first block needs it.
    """

    def __init__(self, rrdbs: Sequence[RRDB], first: Activated | None = None) -> None:
        self.first = first
        self.blocks = [[Dense(cast(ResidualDenseBlock, block)) for block in rrdb.children()] for rrdb in rrdbs]

    def __call__(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        channels = self.blocks[0][0].channels
        room = x.new_empty((*x.shape[:3], channels + 2 * self.blocks[0][0].growth))
        if self.first is None:
            room[..., :channels] = x
        else:
            x = self.first.nhwc(x, also=room[..., :channels])
        for rrdb in self.blocks:
            outer = x
            for block in rrdb:
                following = None if block is self.blocks[-1][-1] else torch.empty_like(room)
                x = block(room, x, outer if block is rrdb[-1] else None, following)
                room = room if following is None else following
        return x.movedim(-1, 1)


def _stacked(convs: Sequence[nn.Conv2d], channels: int) -> Tensor:
    """The weights that some convolutions have for the first channels of what they see, as one convolution's."""
    weights = torch.cat([conv.weight[:, :channels] for conv in convs])
    return weights.contiguous(memory_format=torch.channels_last)


def _by_tap(weight: Tensor) -> Tensor:
    """(C', C, 3, 3) as (9, C, C')."""
    return weight.flatten(2).permute(2, 1, 0).contiguous()
