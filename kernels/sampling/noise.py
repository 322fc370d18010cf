"""Noise that belongs to the ground: every 2.5 m pixel of a zone has its own, the same in every chip."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF

_ROUND_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)

_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int], rounds: int = 10) -> list[Tensor]:
    """Four 32-bit words for each 128-bit counter under a 64-bit key.

    Philox 4×32 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

    Args:
        counter: four int64 tensors of broadcastable shape holding values in [0, 2³²).
        key: two integers in [0, 2³²).

    Returns:
        four int64 tensors with values in [0, 2³²).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        # A 32 × 32 bit product fits 64 bits: int64 wraps, and masking after the shift drops the sign extension.
        p0, p1 = c0 * _ROUND_MULTIPLIERS[0], c2 * _ROUND_MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _MASK, (k1 + _KEY_INCREMENTS[1]) & _MASK
    return [c0, c1, c2, c3]


def ground_noise(
    seed: int,
    zone: int,
    row: int,
    col: int,
    height: int,
    width: int,
    *,
    stream: int = 0,
    device: torch.device | str = "cpu",
    kernel: bool = False,
) -> Tensor:
    """Standard normal noise of a window of the ground, the same for every window that contains a pixel.

    Args:
        seed: seed of the run, in [0, 2⁶³).
        zone: EPSG code of the UTM zone.
        row, col: absolute 2.5 m pixel of the window's top left corner, counted from the lattice origin (rows grow
            southwards, so they are negative north of the equator).
        height, width: window size in 2.5 m pixels.
        stream: independent repetition (a second sample of the same ground).
        kernel: compute it on a GPU as one Triton kernel.

    Returns:
        (3, height, width) float32. Computed in float64 and rounded once, so that last-digit differences between two
        devices' logarithms disappear.
    """
    if kernel:
        from difffusr.kernels.sampling.noise_triton import ground_noise_kernel  # only GPU machines have Triton

        return ground_noise_kernel(seed, zone, row, col, height, width, stream, device)
    rows = (torch.arange(row, row + height, dtype=torch.int64, device=device) & _MASK)[:, None]
    cols = (torch.arange(col, col + width, dtype=torch.int64, device=device) & _MASK)[None, :]
    # Filled on the device: a number that is copied there makes the host wait.
    third, fourth = (torch.full((), word & _MASK, dtype=torch.int64, device=device) for word in (zone, stream))
    words = philox4x32((rows, cols, third, fourth), (seed & _MASK, (seed >> 32) & _MASK))
    u = [(w.to(torch.float64) + 0.5) * 2.0**-32 for w in words]  # in (0, 1): the logarithm is finite
    # Box and Muller (1958): two uniforms give two normals; three channels need one pair and a half.
    radius_a, radius_b = (-2.0 * u[0].log()).sqrt_(), (-2.0 * u[2].log()).sqrt_()
    angle_a, angle_b = u[1] * (2.0 * math.pi), u[3] * (2.0 * math.pi)
    return torch.stack([radius_a * angle_a.cos(), radius_a * angle_a.sin(), radius_b * angle_b.cos()]).to(torch.float32)
