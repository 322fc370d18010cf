"""What lies between convolutions, each operation in two forms: in PyTorch, and as one Triton kernel.

Images are (B, H, W, C), contiguous or some channels of such a tensor, in float32 or bfloat16; sums and coefficients are
float32. An operation writes tensors that it is given, so that a part of a larger one can be its result. On GPUs it is
the kernel, elsewhere the PyTorch form; the tests compare both in Triton's interpreter. Each is an operator of its own
in PyTorch's dispatcher: whatever counts operators sees what it reads and writes (`tests/bench/counted_speed.py`).

A tensor that a group norm reads comes with its moments: sums of values and of squares by channel (B, parts, 2, C),
which whoever writes the tensor adds up in passing, of the values as they are stored.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Features(NamedTuple):
    """An image (B, H, W, C) and its moments."""

    x: Tensor
    moments: Tensor


def combine(
    sources: list[Tensor],
    bias: Tensor | None = None,
    residuals: list[Tensor] | None = None,
    *,
    slope: float = 1.0,
    scale: float = 1.0,
    out: Tensor | None = None,
    also: Tensor | None = None,
) -> Tensor:
    """Sum of images plus a bias, through a leaky ReLU, scaled, plus residuals.

    Args:
        sources: one to three images (B, H, W, C) of one shape.
        bias: (C,).
        residuals: r1 and r2 of scale · (scale · act(Σ sources + bias) + r1) + r2; one or none of them.
        slope: the activation's, of negative values; 1 for none, 0 for a ReLU.
        out: where the result goes, a new tensor by default; may be one of the sources or residuals.
        also: where it goes a second time.
    """
    out = sources[0].new_empty(sources[0].shape) if out is None else out
    _combine(out, also, None, sources, bias, residuals or [], slope, scale, False)
    return out


def with_moments(
    source: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, unfold: tuple[int, int] | None = None
) -> Features:
    """An image plus a bias (C,) plus a residual, with its moments.

    With `unfold` (H, W) the source is (B, h + 1, w + 1, 4C), the result (B, H, W, C), H = 2h or 2h − 1, W likewise:
    pixel (2i + a, 2j + b) is block 2a + b of the channels of the source's pixel (i + a, j + b).
    """
    B, h, w, C = source.shape
    shape = (B, h, w, C) if unfold is None else (B, *unfold, C // 4)
    out = source.new_empty(shape)
    moments = _new_moments(out, _triton().moment_parts(*shape[1:3]) if _has_triton(out) else 1)
    _combine(out, None, moments, [source], bias, [] if residual is None else [residual], 1.0, 1.0, unfold is not None)
    return Features(out, moments)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    given: Tensor | None = None,
    *,
    before: Tensor | None = None,
    residuals: list[Tensor] | None = None,
    slope_before: float = 1.0,
    slope: float = 1.0,
    scale: float = 1.0,
    out: Tensor | None = None,
    also: Tensor | None = None,
    seen: Tensor | None = None,
) -> Tensor:
    """A 3×3 convolution with few channels, and all that stands around it.

    y = act(x + before), or x itself; act(conv(y) + given + bias), scaled, plus residuals.

    Args:
        x: (B, H, W, K); outside the image y is zero.
        weight: (9, K, N), tap by tap.
        bias: (N,).
        given: (B, H, W, N).
        before: (K,), the bias of x.
        slope_before, slope: of both leaky ReLUs for negative values, 1 for none.
        residuals, scale, out, also: as for `combine`.
        seen: where y goes; only with `before`.
    """
    out = x.new_empty((*x.shape[:3], weight.shape[-1])) if out is None else out
    _convolve(out, also, seen, x, before, weight, given, bias, residuals or [], slope_before, slope, scale)
    return out


def depthwise(
    h: Tensor, shift: Tensor, kernels: Tensor, conv: Tensor, taps: Tensor, residuals: list[Tensor], slope: float = 0.1
) -> Features:
    """The second half of a residual block, after its second convolution: leaky ReLU of a depthwise one, and all sums.

    The first convolution's bias is added here and not before: where it would reach the second one, `taps` add what the
    second one would have made of it, which at the image's border is less.

    Args:
        h: (B, H, W, C), the first convolution's output without its bias.
        shift: (B or 1, C), its bias.
        kernels: (B, 9, C), each sample's depthwise 3×3 kernels.
        conv: (B, H, W, C), the second convolution of `h`, without its bias; it is overwritten.
        taps: (B or 1, 9, C): what each tap of the second convolution makes of `shift`. The middle one, which always
            lies inside, holds the biases too.
        residuals: up to two images (B, H, W, C).
        slope: the leaky ReLU's.

    Returns:
        conv + taps + leaky_relu(depthwise(h + shift)) + residuals, in the memory of `conv`.
    """
    moments = _new_moments(conv, _triton().depthwise_parts(*conv.shape[1:3]) if _has_triton(conv) else 1)
    _depthwise(conv, moments, h, shift, kernels, taps, residuals, slope)
    return Features(conv, moments)


def normalised(
    parts: list[Features],
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    swish: bool,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Group norm of one image, or of two side by side in channels, and a swish: (B, H, W, C1 + C2) in `dtype`."""
    first = parts[0].x
    B, H, W, _ = first.shape
    C = sum(part.x.shape[-1] for part in parts)
    coefficients = first.new_empty((B, 2, C), dtype=torch.float32)
    _affine(coefficients, [part.moments for part in parts], weight, bias, groups, H * W, eps)
    out = first.new_empty((B, H, W, C), dtype=dtype or first.dtype)
    _normalise(out, [part.x for part in parts], coefficients, swish)
    return out


@torch.library.custom_op("difffusr::combine", mutates_args=("out", "also", "moments"))
def _combine(
    out: Tensor,
    also: Tensor | None,
    moments: Tensor | None,
    sources: list[Tensor],
    bias: Tensor | None,
    residuals: list[Tensor],
    slope: float,
    scale: float,
    unfold: bool,
) -> None:
    form = _triton().combine if _has_triton(out) else combine_plain
    form(out, also, moments, sources, bias, residuals, slope, scale, unfold)


@torch.library.custom_op("difffusr::convolve", mutates_args=("out", "also", "seen"))
def _convolve(
    out: Tensor,
    also: Tensor | None,
    seen: Tensor | None,
    x: Tensor,
    before: Tensor | None,
    weight: Tensor,
    given: Tensor | None,
    bias: Tensor,
    residuals: list[Tensor],
    slope_before: float,
    slope: float,
    scale: float,
) -> None:
    form = _triton().convolve if _has_triton(out) else convolve_plain
    form(out, also, seen, x, before, weight, given, bias, residuals, slope_before, slope, scale)


@torch.library.custom_op("difffusr::depthwise", mutates_args=("out", "moments"))
def _depthwise(
    out: Tensor,
    moments: Tensor,
    h: Tensor,
    shift: Tensor,
    kernels: Tensor,
    taps: Tensor,
    residuals: list[Tensor],
    slope: float,
) -> None:
    form = _triton().depthwise if _has_triton(out) else depthwise_plain
    form(out, moments, h, shift, kernels, taps, residuals, slope)


@torch.library.custom_op("difffusr::affine", mutates_args=("out",))
def _affine(
    out: Tensor, moments: list[Tensor], weight: Tensor, bias: Tensor, groups: int, count: int, eps: float
) -> None:
    form = _triton().affine if _has_triton(out) else affine_plain
    form(out, moments, weight, bias, groups, count, eps)


@torch.library.custom_op("difffusr::normalise", mutates_args=("out",))
def _normalise(out: Tensor, parts: list[Tensor], coefficients: Tensor, swish: bool) -> None:
    form = _triton().normalise if _has_triton(out) else normalise_plain
    form(out, parts, coefficients, swish)


for _operator in (_combine, _convolve, _depthwise, _affine, _normalise):
    _operator.register_fake(lambda *_: None)  # all of them only write what they are given


def combine_plain(
    out: Tensor,
    also: Tensor | None,
    moments: Tensor | None,
    sources: list[Tensor],
    bias: Tensor | None,
    residuals: list[Tensor],
    slope: float,
    scale: float,
    unfold: bool,
) -> None:
    """`combine` and `with_moments` in PyTorch."""
    v = sum((x.float() for x in sources[1:]), sources[0].float())
    if unfold:
        blocks = v.unflatten(-1, (2, 2, -1))
        v = out.new_empty((len(v), 2 * v.shape[1], 2 * v.shape[2], out.shape[-1]), dtype=torch.float32)
        for a in (0, 1):
            for b in (0, 1):
                v[:, a : -2 + a : 2, b : -2 + b : 2] = blocks[
                    :, a : blocks.shape[1] - 1 + a, b : blocks.shape[2] - 1 + b, a, b
                ]
        v = v[:, : out.shape[1], : out.shape[2]]
    if bias is not None:
        v = v + bias.float()
    v = F.leaky_relu(v, slope)
    for residual in residuals:
        v = v * scale + residual.float()
    out.copy_(v)
    if also is not None:
        also.copy_(out)
    if moments is not None:
        _write_moments(moments, out)


def convolve_plain(
    out: Tensor,
    also: Tensor | None,
    seen: Tensor | None,
    x: Tensor,
    before: Tensor | None,
    weight: Tensor,
    given: Tensor | None,
    bias: Tensor,
    residuals: list[Tensor],
    slope_before: float,
    slope: float,
    scale: float,
) -> None:
    """`convolve` in PyTorch."""
    y = x
    if before is not None:
        y = F.leaky_relu(x.float() + before.float(), slope_before).to(out.dtype)
    if seen is not None:
        seen.copy_(y)
    kernel = weight.float().unflatten(0, (3, 3)).permute(3, 2, 0, 1)
    v = F.conv2d(y.float().movedim(-1, 1), kernel, padding=1).movedim(1, -1) + bias.float()
    if given is not None:
        v = v + given.float()
    v = F.leaky_relu(v, slope)
    for residual in residuals:
        v = v * scale + residual.float()
    out.copy_(v)
    if also is not None:
        also.copy_(out)


def depthwise_plain(
    out: Tensor,
    moments: Tensor,
    h: Tensor,
    shift: Tensor,
    kernels: Tensor,
    taps: Tensor,
    residuals: list[Tensor],
    slope: float,
) -> None:
    """`depthwise` in PyTorch."""
    B, H, W, C = h.shape
    shifted = (h.float() + shift[:, None, None]).movedim(-1, 1).reshape(1, B * C, H, W)
    weights = kernels.float().mT.reshape(B * C, 1, 3, 3)
    v = F.leaky_relu(F.conv2d(shifted, weights, padding=1, groups=B * C), slope).view(B, C, H, W).movedim(1, -1)
    # the taps that lie inside, at each pixel: a convolution of ones
    weights = taps.mT.reshape(-1, 1, 3, 3)
    inside = F.conv2d(torch.ones_like(v[:1, ..., :1]).movedim(-1, 1), weights, padding=1)
    v = v + out.float() + inside.view(-1, C, H, W).movedim(1, -1)
    out.copy_(sum((x.float() for x in residuals), v))
    _write_moments(moments, out)


def affine_plain(
    out: Tensor, moments: list[Tensor], weight: Tensor, bias: Tensor, groups: int, count: int, eps: float
) -> None:
    """The coefficients a, b (B, 2, C) with which a·x + b is the group norm of x, from moments, in PyTorch."""
    sums = torch.cat([part.sum(1) for part in moments], -1)  # (B, 2, C)
    size = sums.shape[-1] // groups
    mean, square = (sums.unflatten(-1, (groups, size)).sum(-1) / (count * size)).unbind(1)  # (B, groups)
    scale = ((square - mean * mean).clamp_min(0) + eps).rsqrt()
    out[:, 0] = scale.repeat_interleave(size, 1) * weight.float()
    out[:, 1] = bias.float() - mean.repeat_interleave(size, 1) * out[:, 0]


def normalise_plain(out: Tensor, parts: list[Tensor], coefficients: Tensor, swish: bool) -> None:
    """a·x + b with coefficients (B, 2, C), and a swish, of images side by side in channels, in PyTorch."""
    a, b = coefficients[:, :, None, None].unbind(1)
    v = torch.cat([part.float() for part in parts], -1) * a + b
    out.copy_(F.silu(v) if swish else v)


def _new_moments(x: Tensor, parts: int) -> Tensor:
    return x.new_empty((len(x), parts, 2, x.shape[-1]), dtype=torch.float32)


def _write_moments(moments: Tensor, x: Tensor) -> None:
    values = x.float().flatten(1, 2)
    moments.zero_()
    moments[:, 0] = torch.stack([values.sum(1), values.square().sum(1)], 1)


def _has_triton(x: Tensor) -> bool:
    """Whether the operation is a Triton kernel here; on the meta device as on a GPU."""
    if x.device.type == "cuda":
        return True
    return _installed() and (x.device.type == "meta" or _triton().interpreted())


@lru_cache(maxsize=1)
def _installed() -> bool:
    return find_spec("triton") is not None


def _triton() -> Any:
    """The kernels; only where they run is Triton imported."""
    from difffusr.kernels.networks.fused import triton_forms

    return triton_forms
