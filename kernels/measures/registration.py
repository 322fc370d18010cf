"""How far images of one ground are shifted against each other, to a fraction of a pixel, by phase correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

#: Frequencies above this are left out, in cycles a pixel: there, what is sampled otherwise differs by aliasing.
_HIGHEST_CYCLES: Final = 0.3

#: Steps in which the highest point of the correlation is looked for, pixels; a parabola through it finds the rest.
_STEP_PX: Final = 0.1

#: Least coherence of images that show one ground, and least coherence in units of what chance gives.
_LEAST_COHERENCE: Final = 0.5

_LEAST_CONTRAST: Final = 8.0


@dataclass(frozen=True)
class Shifts:
    """Of each of A images against each of B others, (A, B) float64.

    Attributes:
        down, right: how far the image lies below and to the right of the other, pixels; NaN where it is not known.
        coherence: mean cosine of the phases that are left at this shift: 1 for the same image, near 0 for unlike ones.
    """

    down: Tensor
    right: Tensor
    coherence: Tensor


def phase_shifts(x: Tensor, y: Tensor, reach_px: float = 3.0) -> Shifts:
    """Shifts of images that are bright and dark at the same places, by how much whatever.

    The cross-power spectrum under a Hann window is divided by its magnitude (Kuglin and Hines 1975); what is left are
    phases, which a shift turns by frequency. Its inverse transform up to 0.3 cycles a pixel is taken at every tenth of
    a pixel, and a parabola in both directions gives the place of the highest point.

    A shift is not known where images are flat or unlike (coherence below 0.5, or no more than chance gives in images
    this small), or where the highest point lies at the end of the reach.

    Args:
        x: (A, H, W), finite.
        y: (B, H, W).
        reach_px: greatest shift that is looked for, in rows and in columns.
    """
    height, width = x.shape[-2:]
    rows, cols = (torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width))
    used = (rows[:, None] ** 2 + cols**2).sqrt() <= _HIGHEST_CYCLES
    some_rows, some_cols = used.any(1), used.any(0)
    used = used[some_rows][:, some_cols]  # (h, w)
    first, second = (_spectra(z)[:, some_rows][:, :, some_cols] for z in (x, y))
    cross = first[:, None] * second.conj()  # (A, B, h, w)
    phases = torch.where(used, torch.sgn(cross), 0) / max(int(used.sum()), 1)
    places = torch.arange(-math.ceil(reach_px / _STEP_PX), math.ceil(reach_px / _STEP_PX) + 1) * _STEP_PX
    turn_rows, turn_cols = (
        torch.polar(torch.ones(len(places), len(f), dtype=torch.float64), 2 * math.pi * places.double()[:, None] * f)
        for f in (rows[some_rows], cols[some_cols])
    )
    surface = (turn_rows @ phases @ turn_cols.T).real  # (A, B, places, places)
    down, right, coherence = _highest(surface, len(places))
    chance = math.sqrt(1 / max(int(used.sum()), 1))
    known = coherence >= max(_LEAST_COHERENCE, _LEAST_CONTRAST * chance)
    inside = (down.abs() < reach_px - _STEP_PX / 2) & (right.abs() < reach_px - _STEP_PX / 2)
    unknown = torch.full_like(down, torch.nan)
    return Shifts(torch.where(known & inside, down, unknown), torch.where(known & inside, right, unknown), coherence)


def _spectra(x: Tensor) -> Tensor:
    """(N, H, W) → complex (N, H, W); 0 for an image that is flat but for rounding."""
    height, width = x.shape[-2:]
    image = x.double().cpu()
    mean = image.mean((-2, -1), keepdim=True)
    window = torch.outer(*(torch.hann_window(n, dtype=torch.float64) for n in (height, width)))
    varies = (image - mean).abs().amax((-2, -1), keepdim=True) > 1e-12 * mean.abs()
    return torch.fft.fft2(torch.where(varies, image - mean, 0.0) * window)


def _highest(surface: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Place (down, right) in pixels from the middle, and height of the highest point; (A, B) each."""
    flat = surface.flatten(-2)
    height, index = flat.max(-1)
    row, col = (index // side).clamp(1, side - 2), (index % side).clamp(1, side - 2)

    def at(i: Tensor, j: Tensor) -> Tensor:
        return flat.gather(-1, (i * side + j)[..., None])[..., 0]

    centre = at(row, col)
    down = row + _vertex(at(row - 1, col), centre, at(row + 1, col))
    right = col + _vertex(at(row, col - 1), centre, at(row, col + 1))
    middle = side // 2
    edge = (index // side != row) | (index % side != col)
    far = torch.full_like(down, math.inf)
    return (
        torch.where(edge, far, (down - middle) * _STEP_PX), torch.where(edge, far, (right - middle) * _STEP_PX), height
    )  # fmt: skip


def _vertex(before: Tensor, here: Tensor, after: Tensor) -> Tensor:
    """Where a parabola through three points one step apart is highest, in steps from the middle one."""
    bend = before - 2 * here + after
    return torch.where(bend < 0, 0.5 * (before - after) / torch.where(bend < 0, bend, 1.0), 0.0)
