"""The diffusion network without concatenations, its norms, biases and depthwise convolutions in few passes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difffusr.kernels.networks.fused.dense import convolution
from difffusr.kernels.networks.fused.operations import Features, depthwise, normalised, with_moments
from difffusr.kernels.networks.unet import Attention, Block, DiffusionUNet, Downsample, ResBlock, Upsample


class FusedConditioning(NamedTuple):
    """What does not depend on the step: as `unet.Conditioning`, but for the weights of the noise level.

    `context` (B, H / fold, W / fold, inner), with what the bias of the first convolution adds. `kernels`: per residual
    block (B, 9, C).
    """

    context: Tensor
    kernels: tuple[Tensor, ...]


class FusedUNet:
    """A `DiffusionUNet`'s evaluations, from its parameters as they are now: in their dtype, on their device.

    The noise level's shift is not added to a block's features but where they are read: by the depthwise kernel, and
    through the second convolution as nine numbers a channel, which are linear in the level's embedding like the shift.
    An enlarged image is never made: the convolution that follows one runs on the small image, with the weights of
    each of the four pixels as channels of its own (4 / 9 of the operations), and the next pass unfolds them.
    """

    def __init__(self, unet: DiffusionUNet) -> None:
        self.unet = unet
        n = unet.inner_channels
        self.blocks = [block.res_block for block in unet.blocks()]
        self.widths = [block.block1.conv.out_channels for block in self.blocks]
        first = cast(nn.Conv2d, unet.downs[0])
        self.first_weight = first.weight[:, :n].contiguous(memory_format=torch.channels_last)
        self.enlarging = {
            module: _of_four_pixels(module.conv.weight) for module in unet.ups if isinstance(module, Upsample)
        }
        self.residual_weights = {block: _residual_weights(block, parts) for block, parts in _inputs(unet)}
        shifts = [_shift(block) for block in self.blocks]
        taps = [_taps(block, *shift) for block, shift in zip(self.blocks, shifts, strict=True)]
        # rows: the shifts of all blocks, then what the taps make of them
        self.level_weight, self.level_bias = (torch.cat(parts) for parts in zip(*shifts, *taps, strict=True))
        linears = [block.block2.da_conv.kernel for block in self.blocks]
        self.kernel_first = torch.cat([cast(nn.Linear, kernel[0]).weight for kernel in linears])
        self.kernel_second = {
            width: torch.stack(
                [_by_tap(kernel[2]) for kernel, own in zip(linears, self.widths, strict=True) if own == width]
            )
            for width in set(self.widths)
        }

    def prepare(self, ctx: Tensor, degradation: Tensor, size: tuple[int, int]) -> FusedConditioning:
        """As `DiffusionUNet.prepare`."""
        unet = self.unet
        context = unet.context_share(ctx, size)
        bias = unet.first_conv_x.get_parameter("bias").view(1, -1, 1, 1).expand(-1, -1, *context.shape[-2:])
        context = context + F.conv2d(bias, self.first_weight, padding=1)
        kappa = F.leaky_relu(F.linear(unet.compress(degradation), self.kernel_first), 0.1)
        kappas = kappa.unflatten(1, (len(self.blocks), -1)).unbind(1)  # each (B, kernel_dim)
        found: dict[int, Tensor] = {}
        for width, weights in self.kernel_second.items():
            where = [i for i, own in enumerate(self.widths) if own == width]
            made = torch.bmm(torch.stack([kappas[i] for i in where]), weights)  # (blocks, B, 9C)
            found |= dict(zip(where, made.unflatten(-1, (9, width)), strict=True))
        return FusedConditioning(context.movedim(1, -1).contiguous(), tuple(found[i] for i in range(len(self.blocks))))

    def denoise(self, x: Tensor, level: Tensor, conditioning: FusedConditioning) -> Tensor:
        """As `DiffusionUNet.denoise`."""
        unet = self.unet
        e = F.linear(unet.noise_level_mlp(level), self.level_weight, self.level_bias)  # (B or 1, 10ΣC)
        shifts, taps = e[:, : sum(self.widths)].split(self.widths, 1), e[:, sum(self.widths) :]
        ends = [9 * end for end in accumulate(self.widths)]
        steps = iter(
            [
                (shift, taps[:, end - 9 * width : end].unflatten(1, (9, width)), kernels)
                for shift, end, width, kernels in zip(shifts, ends, self.widths, conditioning.kernels, strict=True)
            ]
        )
        h = convolution(_folded(x, unet.fold, unet.first_conv_x.weight.dtype), unet.first_conv_x.weight)
        features = with_moments(convolution(h, self.first_weight), residual=conditioning.context)
        skips = [features]
        for module in unet.downs[1:]:
            if isinstance(module, Block):
                features = self._block(module, [features], *next(steps))
            else:
                conv = cast(Downsample, module).conv
                features = with_moments(convolution(features.x, conv.weight, stride=2), conv.bias)
            skips.append(features)
        for module in unet.mid:
            features = self._block(cast(Block, module), [features], *next(steps))
        for module in unet.ups:
            if isinstance(module, Block):
                features = self._block(module, [features, skips.pop()], *next(steps))
            else:  # to the size that it meets next: an odd side was rounded up on the way down
                H, W = skips[-1].x.shape[1:3]
                small = convolution(features.x, self.enlarging[cast(Upsample, module)])
                features = with_moments(small, cast(Upsample, module).conv.bias, unfold=(H, W))
        norm, last = cast(nn.GroupNorm, unet.final_conv.block[0]), unet.final_conv.conv
        h = _normalised([features], norm, swish=True, dtype=last.weight.dtype)
        return F.pixel_shuffle(last(h.movedim(-1, 1)), unet.fold)

    def _block(self, module: Block, parts: list[Features], shift: Tensor, taps: Tensor, kernels: Tensor) -> Features:
        block = module.res_block
        h = _normalised(parts, cast(nn.GroupNorm, block.block1.block[0]), swish=True)
        h = convolution(h, block.block1.conv.weight)
        out = convolution(h, block.block2.da_conv.conv.weight)
        weights = self.residual_weights[block]
        residuals = [F.linear(p.x, w) for p, w in zip(parts, weights, strict=True)] if weights else [parts[0].x]
        features = depthwise(h, shift, kernels, out, taps, residuals)
        return _attended(features, module.attn) if module.has_attention else features


def _attended(u: Features, attention: Attention) -> Features:
    """Self-attention over positions; residual."""
    B, H, W, C = u.x.shape
    x = _normalised([u], attention.norm, swish=False).view(B, 1, H * W, C)
    q, k, v = F.linear(x, attention.qkv.weight.flatten(1)).chunk(3, -1)
    y = F.scaled_dot_product_attention(q, k, v).reshape(B, H, W, C)
    return with_moments(F.linear(y, attention.out.weight.flatten(1)), attention.out.bias, residual=u.x)


def _normalised(parts: list[Features], norm: nn.GroupNorm, *, swish: bool, dtype: torch.dtype | None = None) -> Tensor:
    return normalised(parts, norm.num_groups, norm.weight, norm.bias, norm.eps, swish=swish, dtype=dtype)


def _folded(x: Tensor, fold: int, dtype: torch.dtype) -> Tensor:
    """Space to depth in one pass: (B, C, H, W) → (B, H / fold, W / fold, C·fold²), channels as of `pixel_unshuffle`."""
    tiles = x.unflatten(3, (-1, fold)).unflatten(2, (-1, fold)).permute(0, 2, 4, 1, 3, 5)
    out = x.new_empty(tiles.shape, dtype=dtype)
    return out.copy_(tiles).flatten(3)


def _of_four_pixels(weight: Tensor) -> Tensor:
    """Weights (C', C, 3, 3) on an image enlarged by 2, pixels repeated, as weights (4C', C, 2, 2) on the image itself.

    Along an axis the first pixel of a fold sees the pixel before and its own, which stands for two of the three taps,
    the second its own, for two, and the one after. Both are a convolution with two taps, one pixel apart; with a zero
    around the image its output is as `operations.with_moments` unfolds it: block 2a + b of channels for pixel (a, b).
    """
    top, middle, bottom = weight.float().unbind(2)
    rows = (torch.stack([top, middle + bottom], 2), torch.stack([top + middle, bottom], 2))
    pixels = []
    for row in rows:
        left, centre, right = row.unbind(3)
        pixels += [torch.stack([left, centre + right], 3), torch.stack([left + centre, right], 3)]
    return torch.cat(pixels).to(weight.dtype).contiguous(memory_format=torch.channels_last)


def _inputs(unet: DiffusionUNet) -> Iterator[tuple[ResBlock, list[int]]]:
    """Each residual block, in the order they run, and the channels of the one or two images that it takes."""
    c = unet.inner_channels
    skips = [c]
    for module in unet.downs[1:]:
        if isinstance(module, Block):
            yield module.res_block, [c]
            c = module.res_block.block1.conv.out_channels
        skips.append(c)
    for module in unet.mid:
        yield cast(Block, module).res_block, [c]
    for module in unet.ups:
        if isinstance(module, Block):
            yield module.res_block, [c, skips.pop()]
            c = module.res_block.block1.conv.out_channels


def _residual_weights(block: ResBlock, parts: list[int]) -> list[Tensor]:
    """The 1×1 convolution past a block as matrices (C', C), one for each image; none where the image itself passes."""
    if not isinstance(block.res_conv, nn.Conv2d):
        return []
    return [weight.contiguous() for weight in block.res_conv.weight.flatten(1).split(parts, 1)]


def _shift(block: ResBlock) -> tuple[Tensor, Tensor]:
    """The first convolution's bias, with the noise level's shift, as a linear layer: weight (C, n) and bias (C,)."""
    linear = block.noise_func.linear
    return linear.weight, linear.bias + block.block1.conv.get_parameter("bias").float()


def _taps(block: ResBlock, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """What each tap of the second convolution makes of the first one's bias: weight (9C, n) and bias (9C,).

    The middle tap, which lies inside everywhere, has the biases of what is added to it, too.
    """
    conv = block.block2.da_conv.conv
    by_tap = conv.weight.float().flatten(2).movedim(2, 0)  # (9, C, C)
    own = conv.get_parameter("bias").float()
    if isinstance(block.res_conv, nn.Conv2d):
        own = own + block.res_conv.get_parameter("bias").float()
    biases = by_tap @ bias  # (9, C)
    middle = torch.arange(9, device=own.device)[:, None] == 4
    return (by_tap @ weight).flatten(0, 1), (biases + middle * own).flatten()


def _by_tap(linear: nn.Module) -> Tensor:
    """The weights that make depthwise kernels, (9C, dim) channel by channel, as (dim, 9C) tap by tap."""
    weight = cast(nn.Linear, linear).weight
    return weight.unflatten(0, (-1, 9)).transpose(0, 1).flatten(0, 1).T.contiguous()
