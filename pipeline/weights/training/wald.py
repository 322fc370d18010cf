"""Wald's protocol: scenes made coarser by the fusion's own factor, so that their native bands are the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.bands import GROUPS, GSD_M, MTF_NYQUIST, RGB
from difffusr.kernels.images import sensor_matrix
from difffusr.kernels.networks.fusion import upscale_factor
from difffusr.pipeline.weights.training.scenes import NativeScene

#: Fewest coarse pixels a side that a scene is usable with.
LEAST_COARSE_PX: Final = 3

#: What a group is trained on: GSD of the truth in metres, the bands that are it, and how often it is drawn. 24 ×
#: coarser, few pixels are left of real 60 m bands, so neighbours in wavelength stand in for them as well.
STAND_INS: Final[dict[int, tuple[tuple[int, tuple[str, ...], float], ...]]] = {
    10: ((10, GROUPS[10], 1.0),),
    20: ((20, GROUPS[20], 1.0),),
    60: ((60, GROUPS[60], 3.0), (10, ("B02", "B08"), 1.0), (20, ("B02", "B8A"), 1.0)),
}


@dataclass(frozen=True)
class View:
    """A scene as the fusion of one group sees it, everything on the grid of the truth.

    `bands` maps native GSDs to float32 (C, H, W) reflectance: the group's own under `gsd` (or what stands in for it),
    and the finer groups'.
    """

    name: str
    gsd: int
    bands: Mapping[int, Tensor] = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in whole coarse pixels, in pixels of the truth."""
        f = upscale_factor(self.gsd)
        height, width = (min(x.shape[i] for x in self.bands.values()) // f * f for i in (-2, -1))
        return height, width

    @property
    def enough(self) -> bool:
        """Whether there are `LEAST_COARSE_PX` coarse pixels a side."""
        return min(self.size) >= LEAST_COARSE_PX * upscale_factor(self.gsd)


@dataclass(frozen=True)
class WaldSample:
    """One group of some ground, coarser by the fusion's own factor f = 4, 8 or 24.

    Attributes:
        guide: (3, H, W) red, green, blue on the truth's grid; stands for the super-resolved ones.
        measured: (C, H / f, W / f), the group's bands as its sensor would see them at f times the GSD.
        others: by native GSD, the finer groups' bands at f times their GSD, on their own grids.
        truth: (C, H, W).
    """

    name: str
    gsd: int
    guide: Tensor = field(repr=False)
    measured: Tensor = field(repr=False)
    others: Mapping[int, Tensor] = field(repr=False)
    truth: Tensor = field(repr=False)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Samples with equal ones can be stacked."""
        return tuple(self.guide.shape), tuple(self.measured.shape)


def view_of(scene: NativeScene, gsd: int, truth_gsd: int | None = None, names: tuple[str, ...] | None = None) -> View:
    """A scene for one group; by default its own bands at their native GSD are the truth."""
    truth_gsd, names = truth_gsd or gsd, names or GROUPS[gsd]
    finer = {g: torch.stack([_at(scene, band, truth_gsd) for band in GROUPS[g]]) for g in GROUPS if g < gsd}
    return View(scene.name, gsd, finer | {gsd: torch.stack([_at(scene, band, truth_gsd) for band in names])})


def squares(view: View) -> list[WaldSample]:
    """The view in squares as large as its shorter side allows; none if that is too little."""
    (height, width), side = view.size, min(view.size)
    if not view.enough:
        return []
    corners = [(r, c) for r in range(0, height - side + 1, side) for c in range(0, width - side + 1, side)]
    return [
        seen_from_afar(
            f"{view.name}@{r},{c}", view.gsd, {g: x[:, r : r + side, c : c + side] for g, x in view.bands.items()}
        )
        for r, c in corners
    ]


def seen_from_afar(name: str, gsd: int, bands: Mapping[int, Tensor]) -> WaldSample:
    """What is measured of bands (C, n, n) on the truth's grid; red, green and blue among them are the guide."""
    seen = {
        g: torch.stack(
            [_observed(band, upscale_factor(g), MTF_NYQUIST[key]) for band, key in zip(x, GROUPS[g], strict=True)]
        )
        for g, x in bands.items()
    }
    return WaldSample(name, gsd, guide_of(bands), seen[gsd], {g: x for g, x in seen.items() if g != gsd}, bands[gsd])


def guide_of(bands: Mapping[int, Tensor]) -> Tensor:
    """Red, green and blue of bands (…, C, H, W) by GSD: (…, 3, H, W)."""
    return bands[10][..., : len(RGB), :, :]  # they come first among the 10 m bands


def _at(scene: NativeScene, band: str, gsd: int) -> Tensor:
    """A band at some GSD: (H, W). Means over pixels where that is coarser than its own, bicubic where it is finer."""
    x, native = scene.bands[band][None, None], GSD_M[band]
    if native <= gsd:
        return F.avg_pool2d(x, gsd // native)[0, 0]
    return F.interpolate(x, scale_factor=native // gsd, mode="bicubic", align_corners=False)[0, 0]


def _observed(band: Tensor, factor: int, mtf: float) -> Tensor:
    """A band as its sensor would see it at `factor` times the GSD: (H, W) → (H / factor, W / factor)."""
    rows, cols = (sensor_axis(n // factor, factor, mtf) for n in band.shape)
    return rows @ band @ cols.T


@lru_cache(maxsize=512)
def sensor_axis(coarse: int, factor: int, mtf: float) -> Tensor:
    """(coarse, coarse·factor) float32 matrix from an axis of the truth to `factor` times its GSD."""
    return torch.from_numpy(sensor_matrix(coarse, factor, mtf)).float()
