"""High-resolution images as reflectance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Images = NDArray[np.float32]


@dataclass(frozen=True)
class HRImage:
    """One image at one GSD: `pixels` float32 (3, H, W) in [0, 1], `valid` bool (H, W), see `settings.ImageSource`."""

    name: str
    gsd_m: float
    pixels: Images = field(repr=False)
    valid: NDArray[np.bool_] = field(repr=False)
    display: bool
    resample: str = "pyramid"


def image_of(
    raw: NDArray[Any],
    name: str,
    gsd_m: float,
    full_scale: float,
    *,
    display: bool,
    nodata_at_ends: bool,
    resample: str,
) -> HRImage:
    """An image from what a file holds: (3, H, W), any type of number, where `full_scale` is a reflectance of 1."""
    valid = np.ones(raw.shape[1:], dtype=bool)
    if nodata_at_ends:
        valid = (raw.min(0) < 254) & (raw.max(0) > 0)
    pixels = np.clip(raw / np.float32(full_scale), 0, 1).astype(np.float32, copy=False)
    return HRImage(name, gsd_m, pixels, valid, display, resample)


def resample(image: HRImage, gsd_m: float) -> HRImage:
    """The image at a coarser GSD, antialiased; unchanged if the ratio is below 1.3."""
    ratio = gsd_m / image.gsd_m
    if ratio < 1.3:
        return image
    h, w = (round(n / ratio) for n in image.valid.shape)
    pixels = _antialiased(torch.from_numpy(image.pixels)[None], (h, w))[0].clamp(0, 1)
    valid = _antialiased(torch.from_numpy(image.valid)[None, None].float(), (h, w))[0, 0] > 0.999
    return HRImage(image.name, gsd_m, pixels.numpy(), valid.numpy(), image.display, image.resample)


def _antialiased(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)
