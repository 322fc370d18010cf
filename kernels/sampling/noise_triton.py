"""The ground's noise as one GPU kernel: the same as `noise.ground_noise`, which takes many operations."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024

#: These differ by chip: the kernel is not compiled again for particular values.
_VARYING = ["seed", "zone", "row", "col", "stream"]


@triton.jit(do_not_specialize=_VARYING)
def _ground_noise(  # type: ignore[no-untyped-def]
    out, seed, zone, row, col, stream, width, count, TWO_PI: tl.constexpr, BLOCK: tl.constexpr
):
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < count
    # Counters are words of 32 bits: rows north of the equator are negative and wrap, as in the tensor form.
    c0 = (row + pixel // width).to(tl.uint32)
    c1 = (col + pixel % width).to(tl.uint32)
    c2, c3 = tl.zeros_like(c0) + zone.to(tl.uint32), tl.zeros_like(c0) + stream.to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, c0, c1, c2, c3)
    u0 = (w0.to(tl.float64) + 0.5) * 2.0**-32
    u1 = (w1.to(tl.float64) + 0.5) * 2.0**-32
    u2 = (w2.to(tl.float64) + 0.5) * 2.0**-32
    u3 = (w3.to(tl.float64) + 0.5) * 2.0**-32
    radius = tl.sqrt(-2.0 * tl.log(u0))
    tl.store(out + pixel, (radius * tl.cos(u1 * TWO_PI)).to(tl.float32), mask=inside)
    tl.store(out + count + pixel, (radius * tl.sin(u1 * TWO_PI)).to(tl.float32), mask=inside)
    radius = tl.sqrt(-2.0 * tl.log(u2))
    tl.store(out + 2 * count + pixel, (radius * tl.cos(u3 * TWO_PI)).to(tl.float32), mask=inside)


def ground_noise_kernel(
    seed: int, zone: int, row: int, col: int, height: int, width: int, stream: int, device: torch.device | str
) -> Tensor:
    """As `kernels.sampling.noise.ground_noise`: (3, height, width) float32."""
    out = torch.empty(3, height, width, dtype=torch.float32, device=device)
    count = height * width
    grid = (triton.cdiv(count, _BLOCK),)
    _ground_noise[grid](out, seed, zone, row, col, stream, width, count, TWO_PI=2.0 * math.pi, BLOCK=_BLOCK)
    return out
