"""The diffusion network: predicts the clean image from a noisy one, its noise level, context and degradation.

Source: reference section 1.3. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conditioning(NamedTuple):
    """What the network computes once, before the first sampling step, and uses at each step.

    `context` (B, inner, H / fold, W / fold): the context's share of the first features. `kernels`: per residual block,
    in the order they run, the depthwise 3×3 kernels of each sample (B, C, 1, 3, 3). `level_weight` (ΣC, inner),
    `level_bias` (ΣC,): the linear layers that feed the noise level into the blocks, stacked, with the biases of the
    convolutions that it is added to.
    """

    context: Tensor
    kernels: tuple[Tensor, ...]
    level_weight: Tensor
    level_bias: Tensor


class DiffusionUNet(nn.Module):
    """UNet with degradation-aware convolutions, on the image folded by `fold` (space to depth).

    Level i of `channel_mults` works at 1/2^i of the folded grid with `inner_channels`·mult channels and `res_blocks`
    blocks (one more on the way up), with attention where 2^i is in `attn_strides`; the first of the two middle blocks
    has attention unless `mid_attention` is off (its cost grows with the fourth power of the chip's side).
    `ctx_channels` and `degradation_dim` are the widths of the two conditions; the latter is compressed to `kernel_dim`.
    With `even_phases` no pixel of a fold stands out, see `even_out`.

    Sampling calls `prepare` once a chip and `denoise` once a step; `forward` is both. Features have the dtype of the
    convolutions (see `lower`); the image, the level and the output are float32.
    """

    def __init__(
        self,
        in_channels: int = 3,
        inner_channels: int = 64,
        channel_mults: Sequence[int] = (1, 2, 2, 4, 8),
        res_blocks: int = 5,
        attn_strides: Sequence[int] = (16,),
        fold: int = 2,
        norm_groups: int = 32,
        ctx_channels: int = 64,
        degradation_dim: int = 256,
        kernel_dim: int = 64,
        mid_attention: bool = True,
        even_phases: bool = False,
    ) -> None:
        super().__init__()
        n = inner_channels
        folded = in_channels * fold**2
        self.fold, self.inner_channels, self.even_phases = fold, n, even_phases
        self.first_conv_x = nn.Conv2d(folded, n, 3, padding=1)
        self.first_conv_ctx = nn.Conv2d(ctx_channels, n, 3, padding=1)
        self.compress = nn.Sequential(nn.Linear(degradation_dim, kernel_dim, bias=False), nn.LeakyReLU(0.1))
        self.noise_level_mlp = _LevelEmbedding(n)

        def block(before: int, after: int, attention: bool) -> Block:
            return Block(before, after, n, kernel_dim, norm_groups, attention)

        widths = [n * mult for mult in channel_mults]
        attention = [2**level in attn_strides for level in range(len(widths))]
        downs: list[nn.Module] = [nn.Conv2d(2 * n, n, 3, padding=1)]
        skips, c = [n], n  # channels of every output on the way down, used again on the way up
        for level, width in enumerate(widths):
            for _ in range(res_blocks):
                downs.append(block(c, width, attention[level]))
                c = width
                skips.append(c)
            if level < len(widths) - 1:
                downs.append(Downsample(c))
                skips.append(c)
        ups: list[nn.Module] = []
        mid = [block(c, c, mid_attention), block(c, c, False)]
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(res_blocks + 1):
                ups.append(block(c + skips.pop(), width, attention[level]))
                c = width
            if level:
                ups.append(Upsample(c))
        self.downs, self.mid, self.ups = nn.ModuleList(downs), nn.ModuleList(mid), nn.ModuleList(ups)
        self.final_conv = _NormConv(c, folded, norm_groups)

    def reset_parameters(self) -> None:
        """The published start of training: orthogonal weights and zero biases in all convolutions and linear layers."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @torch.no_grad()
    def even_out(self) -> None:
        """Give all pixels of a fold the same bias and the same sum of weights on each feature; only `even_phases` does.

        Each of the fold² pixels that a position unfolds into has weights of its own. Where their sums differ, features
        that are constant make a pattern that repeats every `fold` pixels: a woven grid over the whole image. Training
        calls this after every step; what the features' changes draw inside a fold stays free.
        """
        if not self.even_phases:
            return
        conv = self.final_conv.conv
        weight, bias = conv.weight, conv.get_parameter("bias")
        phases = (-1, self.fold**2)
        taps = weight.shape[-2] * weight.shape[-1]
        sums = weight.sum((-2, -1)).unflatten(0, phases)  # (in_channels, fold², C)
        weight -= (sums - sums.mean(1, keepdim=True)).flatten(0, 1)[..., None, None] / taps
        bias.copy_(bias.unflatten(0, phases).mean(1).repeat_interleave(self.fold**2))

    def forward(self, x: Tensor, level: Tensor, ctx: Tensor, degradation: Tensor) -> Tensor:
        """Noisy images (B, C, H, W) → predicted clean images (B, C, H, W), values about [-1, 1], not clamped.

        `level` (B, 1) is ℓ = √ᾱ, or (1, 1) if it is the same for all; `ctx` (B, ctx_channels, h, w) the context on any
        grid; `degradation` (B, degradation_dim). H and W must be multiples of `fold`.
        """
        return self.denoise(x, level, self.prepare(ctx, degradation, (x.shape[-2], x.shape[-1])))

    def prepare(self, ctx: Tensor, degradation: Tensor, size: tuple[int, int]) -> Conditioning:
        """The part that does not depend on the step, from conditions as in `forward`; `size` is (H, W) of the image."""
        context = self.context_share(ctx, size)
        kappa = self.compress(degradation)  # (B, kernel_dim)
        blocks = [block.res_block for block in self.blocks()]
        return Conditioning(
            context,
            tuple(block.block2.da_conv.kernels(kappa).to(context.dtype) for block in blocks),
            torch.cat([block.noise_func.linear.weight for block in blocks]),
            torch.cat([block.noise_func.linear.bias + block.block1.conv.get_parameter("bias") for block in blocks]),
        )

    def context_share(self, ctx: Tensor, size: tuple[int, int]) -> Tensor:
        """The context's share of the first features, see `Conditioning`. Raises ValueError if sides do not fold."""
        if size[0] % self.fold or size[1] % self.fold:
            raise ValueError(f"the image's sides must be multiples of {self.fold}, got {size[0]}×{size[1]}")
        grid = (size[0] // self.fold, size[1] // self.fold)
        ctx = ctx.to(self.first_conv_ctx.weight.dtype)
        if ctx.shape[-2:] != grid:
            ctx = F.interpolate(ctx, grid, mode="bilinear", align_corners=False)
        # downs.0 is linear in the concatenation [x, ctx]: its ctx half is computed here, its x half at each step
        first = cast(nn.Conv2d, self.downs[0])
        return F.conv2d(self.first_conv_ctx(ctx), first.weight[:, self.inner_channels :], first.bias, padding=1)

    def denoise(self, x: Tensor, level: Tensor, conditioning: Conditioning) -> Tensor:
        """One evaluation; `x` and `level` as in `forward`. Returns the predicted clean images (B, C, H, W)."""
        e = F.linear(self.noise_level_mlp(level), conditioning.level_weight, conditioning.level_bias)  # (B or 1, ΣC)
        kernels = iter(conditioning.kernels)
        biases = iter(e.split([k.shape[1] for k in conditioning.kernels], 1))
        x = x.to(self.first_conv_x.weight.dtype)
        x = self.first_conv_x(F.pixel_unshuffle(x, self.fold))  # (B, n, H / fold, W / fold)
        first = cast(nn.Conv2d, self.downs[0])
        x = F.conv2d(x, first.weight[:, : self.inner_channels], padding=1) + conditioning.context
        skips = [x]
        for module in self.downs[1:]:
            x = module(x, next(biases), next(kernels)) if isinstance(module, Block) else module(x)
            skips.append(x)
        for module in self.mid:
            x = module(x, next(biases), next(kernels))
        for module in self.ups:
            if isinstance(module, Block):
                skip = skips.pop()
                x = x[..., : skip.shape[-2], : skip.shape[-1]]  # an odd side was rounded up on the way down
                x = module(torch.cat([x, skip], 1), next(biases), next(kernels))
            else:
                x = module(x)
        return F.pixel_shuffle(self.final_conv(x.to(self.final_conv.conv.weight.dtype)), self.fold)

    def lower(self, dtype: torch.dtype) -> None:
        """Run the features in a lower precision. The image, the noise level and the small layers between vector and
        kernel stay float32, so that the output keeps float32 digits."""
        for module in (self.first_conv_x, self.first_conv_ctx, self.downs, self.mid, self.ups):
            module.to(dtype)
        for block in self.blocks():
            block.res_block.noise_func.float()
            block.res_block.block2.da_conv.kernel.float()

    def blocks(self) -> Iterator[Block]:
        """Residual blocks in the order they run."""
        for modules in (self.downs, self.mid, self.ups):
            yield from (module for module in modules if isinstance(module, Block))


class Block(nn.Module):
    """A residual block, with attention on its output if asked. (B, before, H, W) → (B, after, H, W)."""

    def __init__(self, before: int, after: int, n: int, kernel_dim: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.res_block = ResBlock(before, after, n, kernel_dim, groups)
        if attention:
            self.attn = Attention(after, groups)
        self.has_attention = attention

    def forward(self, x: Tensor, bias: Tensor, kernels: Tensor) -> Tensor:
        x = self.res_block(x, bias, kernels)
        return self.attn(x) if self.has_attention else x


class ResBlock(nn.Module):
    """Convolution, noise level added, degradation-aware convolution; residual."""

    def __init__(self, before: int, after: int, n: int, kernel_dim: int, groups: int) -> None:
        super().__init__()
        self.noise_func = _LevelShift(n, after)
        self.block1 = _NormConv(before, after, groups)
        self.block2 = _SecondHalf(after, kernel_dim, groups)
        self.res_conv = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, bias: Tensor, kernels: Tensor) -> Tensor:
        """`bias` (B, C) or (1, C): the first convolution's, including the noise level's shift."""
        out = self.block2(self.block1(x, bias), kernels)
        out += self.res_conv(x)
        return out


class _NormConv(nn.Module):
    """Group norm, swish, 3×3 convolution."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.GroupNorm(groups, before),
            nn.SiLU(inplace=True),
            nn.Identity(),  # stands for a dropout of 0, to keep the published names
            nn.Conv2d(before, after, 3, padding=1),
        )

    @property
    def conv(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self.block[3])

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`bias` (B, C) or (1, C) replaces the convolution's own; one row for all samples is free."""
        norm, conv = cast(nn.GroupNorm, self.block[0]), self.conv
        h = F.silu(norm(x), inplace=True)
        if bias is None:
            return conv(h)
        bias = bias.to(h.dtype)
        if len(bias) == 1:
            return F.conv2d(h, conv.weight, bias[0], padding=1)
        return F.conv2d(h, conv.weight, padding=1) + bias[..., None, None]


class _SecondHalf(nn.Module):
    """The degradation-aware convolution, and a group norm that published weights have but the network never applies.

    Applying it would change the published results; dropping it would change the published names.
    """

    def __init__(self, channels: int, kernel_dim: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.GroupNorm(groups, channels))
        self.da_conv = _DegradationAwareConv(channels, kernel_dim)

    def forward(self, h: Tensor, kernels: Tensor) -> Tensor:
        return self.da_conv(h, kernels)


class _DegradationAwareConv(nn.Module):
    """A plain convolution plus a depthwise one whose kernels come from the degradation vector."""

    def __init__(self, channels: int, kernel_dim: int) -> None:
        super().__init__()
        self.kernel = nn.Sequential(
            nn.Linear(kernel_dim, kernel_dim, bias=False),
            nn.LeakyReLU(0.1),
            nn.Linear(kernel_dim, 9 * channels, bias=False),
        )
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def kernels(self, kappa: Tensor) -> Tensor:
        """(B, kernel_dim) → (B, C, 1, 3, 3)."""
        return self.kernel(kappa).view(len(kappa), -1, 1, 3, 3)

    def forward(self, h: Tensor, kernels: Tensor) -> Tensor:
        B, C, H, W = h.shape
        out: Tensor = self.conv(h)
        # samples become groups of one convolution
        y = F.conv2d(h.reshape(1, B * C, H, W), kernels.flatten(0, 1), padding=1, groups=B * C)
        out += F.leaky_relu(y.reshape(B, C, H, W), 0.1, inplace=True)
        return out


class Attention(nn.Module):
    """Single-head self-attention over positions; residual. (B, C, H, W) → same shape."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        B, C, H, W = u.shape
        qkv = self.qkv(self.norm(u)).flatten(2).transpose(1, 2).unsqueeze(1)  # (B, one head, H·W, 3C)
        q, k, v = qkv.chunk(3, -1)
        y = F.scaled_dot_product_attention(q, k, v)  # softmax(q kᵀ / √C) v, (B, 1, H·W, C)
        return self.out(y.transpose(2, 3).reshape(B, C, H, W)) + u


class _LevelShift(nn.Module):
    """The noise level's embedding (B, n) as a shift per channel (B, C); `DiffusionUNet.denoise` applies all at once."""

    def __init__(self, n: int, channels: int) -> None:
        super().__init__()
        self.noise_func = nn.Sequential(nn.Linear(n, channels))

    @property
    def linear(self) -> nn.Linear:
        return cast(nn.Linear, self.noise_func[0])


class _LevelEmbedding(nn.Sequential):
    """The noise level ℓ (B, 1), unscaled, as a vector (B, n): [sin(ℓω), cos(ℓω)], ω_j = 10^(−4j/(n/2)), then an MLP."""

    def __init__(self, n: int) -> None:
        # index 0 is the encoding, which has no parameters
        super().__init__(nn.Identity(), nn.Linear(n, 4 * n), nn.SiLU(), nn.Linear(4 * n, n))
        self.waves = n // 2

    def forward(self, level: Tensor) -> Tensor:
        j = torch.arange(self.waves, dtype=level.dtype, device=level.device)
        angle = level * torch.exp(j * (-4 * math.log(10) / self.waves))  # (B, n / 2)
        encoding = torch.cat([angle.sin(), angle.cos()], -1)  # (B, n), in the level's precision
        return super().forward(encoding.to(cast(nn.Linear, self[1]).weight.dtype))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
