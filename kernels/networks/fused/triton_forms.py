"""The operations as Triton kernels; `operations` holds their meaning, and the same in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from difffusr.kernels.networks.fused.triton_kernels import _affine, _combine, _convolve, _depthwise, _normalise

#: Values that a program holds of one tensor.
_TILE = 2048

#: Pixels of a row and rows of the image that a program of `_depthwise` handles, at the most.
_STRIP_WIDTH, _STRIP_ROWS = 16, 16

#: Sums that a sample's moments are made of, about.
_PARTS = 96

#: Whether `_convolve` has code of its own for each tap in bfloat16. In a loop its loads would go ahead of its products,
#: and all kernels would take 9 seconds to compile instead of 14; which is faster then is to be seen (`make gpu`).
_UNROLLED = True


def moment_parts(height: int, width: int) -> int:
    """How many sums `combine` makes of a sample of so many pixels, per channel."""
    return triton.cdiv(height * width, _pixels_of_a_part(height * width))


def depthwise_parts(height: int, width: int) -> int:
    """How many sums `depthwise` makes of a sample of so many pixels, per channel."""
    rows, across = _strip(height, width)
    return triton.cdiv(height, rows) * triton.cdiv(width, across)


def combine(
    out: Tensor,
    also: Tensor | None,
    partials: Tensor | None,
    sources: Sequence[Tensor],
    bias: Tensor | None,
    residuals: Sequence[Tensor],
    slope: float,
    scale: float,
    unfold: bool,
) -> None:
    """See `operations.combine`."""
    B, H, W, C = out.shape
    pixels, BC = H * W, _channels(C)
    rows = _pixels_of_a_part(pixels) if partials is not None else _TILE // BC
    BR = min(_TILE // BC, rows)
    given = [sources[min(i, len(sources) - 1)] for i in range(3)]
    left = [residuals[i] if i < len(residuals) else out for i in range(2)]
    second, sums = out if also is None else also, out if partials is None else partials
    _combine[(triton.cdiv(pixels, rows), triton.cdiv(C, BC), B)](
        out, second, sums, *given, out if bias is None else bias, *left,
        *(x.stride(2) for x in (out, second, *given, *left)),
        W, given[0].shape[2], pixels, given[0].shape[1] * given[0].shape[2], rows, C, slope, scale,
        SOURCES=len(sources), RESIDUALS=len(residuals), ALSO=also is not None, BIAS=bias is not None,
        MOMENTS=partials is not None, UNFOLD=unfold, FAR=_far(out, second, *given, *left), BR=BR, BC=BC,
    )  # fmt: skip


def convolve(
    out: Tensor,
    also: Tensor | None,
    seen: Tensor | None,
    x: Tensor,
    before: Tensor | None,
    weight: Tensor,
    given: Tensor | None,
    bias: Tensor,
    residuals: Sequence[Tensor],
    slope_before: float,
    slope: float,
    scale: float,
) -> None:
    """See `operations.convolve`."""
    B, H, W, N = out.shape
    K = x.shape[-1]
    BK, BN = (max(16, triton.next_power_of_2(size)) for size in (K, N))
    BM = max(32, min(128, 2 * _TILE // max(BK, BN)))
    unrolled = _UNROLLED and x.dtype != torch.float32
    left = [residuals[i] if i < len(residuals) else out for i in range(2)]
    second, third, fourth = (out if tensor is None else tensor for tensor in (also, seen, given))
    _convolve[(triton.cdiv(H * W, BM), B)](
        out, second, third, x, bias if before is None else before, weight, fourth, bias, *left,
        *(tensor.stride(2) for tensor in (out, second, third, x, fourth, *left)),
        H, W, K, N, slope_before, slope, scale,
        RESIDUALS=len(residuals), ALSO=also is not None, BEFORE=before is not None, GIVEN=given is not None,
        WIDEN=interpreted(), FAR=_far(out, second, third, x, fourth, *left), UNROLLED=unrolled, BM=BM,
        BK=16 if x.dtype == torch.float32 else BK, BN=BN,
    )  # fmt: skip


def depthwise(
    out: Tensor,
    partials: Tensor,
    h: Tensor,
    shift: Tensor,
    kernels: Tensor,
    taps: Tensor,
    residuals: Sequence[Tensor],
    slope: float,
) -> None:
    """See `operations.depthwise`."""
    B, H, W, C = out.shape
    rows, BX = _strip(H, W)
    BC, across = min(32, triton.next_power_of_2(C)), triton.cdiv(W, BX)
    left = [residuals[i] if i < len(residuals) else out for i in range(2)]
    strides = (0 if len(x) == 1 else x.stride(0) for x in (shift, taps))
    _depthwise[(triton.cdiv(H, rows) * across, triton.cdiv(C, BC), B)](
        out, partials, h, shift, kernels, taps, *left, H, W, across, C, *strides, slope,
        RESIDUALS=len(residuals), FAR=_far(out), ROWS=rows, BX=BX, BC=BC,
    )  # fmt: skip


def affine(
    out: Tensor, partials: Sequence[Tensor], weight: Tensor, bias: Tensor, groups: int, count: int, eps: float
) -> None:
    """See `operations.affine`."""
    first, last = partials[0], partials[-1]
    C1, C2 = first.shape[-1], last.shape[-1] if len(partials) > 1 else 0
    size = (C1 + C2) // groups
    _affine[(groups, len(out))](
        out, first, last, weight, bias, first.shape[1], last.shape[1], C1, C2, count, eps,
        SOURCES=len(partials), PER_GROUP=size, BN=64, BC=triton.next_power_of_2(size),
    )  # fmt: skip


def normalise(out: Tensor, parts: Sequence[Tensor], coefficients: Tensor, swish: bool) -> None:
    """See `operations.normalise`."""
    B, H, W, C = out.shape
    C1, BC = parts[0].shape[-1], _channels(min(part.shape[-1] for part in parts))
    BR = _TILE // BC
    blocks1, blocks2 = triton.cdiv(C1, BC), triton.cdiv(C - C1, BC)
    _normalise[(triton.cdiv(H * W, BR), blocks1 + blocks2, B)](
        out, parts[0], parts[-1], coefficients, H * W, C1, C - C1, blocks1, SWISH=swish, FAR=_far(out), BR=BR, BC=BC
    )  # fmt: skip


def interpreted() -> bool:
    """Whether Triton runs kernels in Python, on the CPU's tensors; there products of bfloat16 need wider numbers."""
    return bool(triton.knobs.runtime.interpret) and not torch.cuda.is_available()


def _far(*images: Tensor) -> bool:
    """Whether a value of one sample may lie so far from the sample's first that 32 bits cannot say how far.

    Programs also compute places outside of the image, and mask them: half of what 32 bits can say is left to those.
    """
    return any((x.shape[1] * x.shape[2] + x.shape[2]) * x.stride(2) >= 1 << 30 for x in images)


def _channels(C: int) -> int:
    """Channels of a program: a line of 128 bytes in bfloat16."""
    return int(min(64, triton.next_power_of_2(C)))


def _pixels_of_a_part(pixels: int) -> int:
    """Pixels of which a program of `_combine` makes one sum."""
    return int(max(64, triton.next_power_of_2(triton.cdiv(pixels, _PARTS))))


def _strip(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a program of `_depthwise`; fewer rows of a small image, so that there are enough programs."""
    rows = _STRIP_ROWS if height > 100 else 8 if height > 50 else 4
    return rows, int(min(_STRIP_WIDTH, triton.next_power_of_2(width)))
