"""Conversions between reflectance and the networks' inputs: stage-1 affine, per-band standardisation, 8-bit, DN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from difffusr.kernels.bands import BANDS, RGB

#: Digital numbers per unit of reflectance (Sentinel-2 Level-2A, after the radiometric offset).
DN_PER_REFLECTANCE: Final = 10_000.0


def to_stage1(reflectance: Tensor) -> Tensor:
    """Reflectance in [0, 1] → about [-1, 1], the range stage 1 works in; no clipping (reference section 1)."""
    return (reflectance - 0.5) / 0.5


def from_stage1(x: Tensor) -> Tensor:
    """Inverse of `to_stage1`: stage-1 output → reflectance, not clamped."""
    return x * 0.5 + 0.5


@dataclass(frozen=True)
class Standardisation:
    """Mean and standard deviation of each band: (x − μ) / s, and back.

    `bands` names the channels in order; `mean` and `std` are reflectance, one value a band.
    """

    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise ValueError(
                f"one mean and one std a band: got {len(self.mean)} means and {len(self.std)} stds for {self.bands}"
            )
        if min(self.std) <= 0:
            raise ValueError(f"standard deviations must be positive, got {self.std}")

    def select(self, bands: Sequence[str]) -> Standardisation:
        """The same statistics for some of the bands, in the order asked for."""
        where = [self.bands.index(band) for band in bands]
        return Standardisation(tuple(bands), tuple(self.mean[i] for i in where), tuple(self.std[i] for i in where))

    def apply(self, reflectance: Tensor) -> Tensor:
        """Reflectance (..., C, H, W), channels as `bands` → standardised, same shape; no clipping."""
        mean, std = self._columns(reflectance)
        return (reflectance - mean) / std

    def invert(self, x: Tensor) -> Tensor:
        """Standardised (..., C, H, W) → reflectance, same shape."""
        mean, std = self._columns(x)
        return x * std + mean

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return _column(self.mean, like.dtype, like.device), _column(self.std, like.dtype, like.device)  # (C, 1, 1)


@lru_cache(maxsize=64)  # one copy per device, so that no call waits for a transfer
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # training needs a normal tensor
        return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


#: Statistics the published fusion networks are used with (reference section 2), in `BANDS` order.
FUSION: Final = Standardisation(
    BANDS,
    mean=(0.0769, 0.0906, 0.1162, 0.1318, 0.1619, 0.2275, 0.2500, 0.2588, 0.2667, 0.2684, 0.2461, 0.1874),
    std=(0.1708, 0.1672, 0.1614, 0.1677, 0.1698, 0.1513, 0.1490, 0.1515, 0.1461, 0.2365, 0.1472, 0.1418),
)

#: The same for the super-resolved red, green, blue that guides the fusion.
FUSION_RGB: Final = FUSION.select(RGB)


def to_uint8(reflectance: Tensor) -> Tensor:
    """Reflectance → uint8, 255 a unit: clamped to 0..255, rounded half to even. Same shape."""
    return (reflectance * 255).clamp(0, 255).round().to(torch.uint8)  # torch rounds half to even


def dn_to_reflectance(dn: Tensor) -> Tensor:
    """DN (any integer type, offset already removed) → float32 reflectance, not clipped."""
    return dn.to(torch.float32) / DN_PER_REFLECTANCE


def dn_to_uint8_truncated(dn: Tensor) -> Tensor:
    """DN → uint8 as the reference prepares paired images: clipped to [0, 1], truncated (not rounded)."""
    return (dn_to_reflectance(dn).clamp(0, 1) * 255).to(torch.uint8)


def uint8_to_dn(x: Tensor) -> Tensor:
    """8-bit reflectance → DN as in the reference's 16-bit outputs: floor(x / 255 · 10000), uint16."""
    return (x.to(torch.float64) / 255 * DN_PER_REFLECTANCE).floor().to(torch.int32).to(torch.uint16)
