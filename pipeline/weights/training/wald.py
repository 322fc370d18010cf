"""Wald's protocol: scenes made coarser by the fusion's own factor, so that their native bands are the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from difffusr.kernels.bands import GROUPS, GSD_M, MTF_NYQUIST, RGB, WAVELENGTH_NM
from difffusr.kernels.images import sensor_matrix
from difffusr.kernels.networks.fusion import upscale_factor
from difffusr.pipeline.weights.training.patches import random_turn
from difffusr.pipeline.weights.training.scenes import NativeScene

#: Fewest coarse pixels a side that a scene is usable with.
LEAST_COARSE_PX: Final = 3

#: In wide variation: how far an MTF at Nyquist is off at most, how far a group lies beside the guide at most (pixels of
#: the truth, along either axis), and the probability that a band of a finer group is lost.
MTF_ERROR: Final = 0.05

SHIFT_PX: Final = 0.3

LOST: Final = 0.05

#: Probability that a band, other than the guide, is mixed with another one, and that a band is bent.
MIXED: Final = 0.3

BENT: Final = 0.5

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


def random_square(view: View, size_px: int, rng: np.random.Generator, *, wide: bool = False) -> WaldSample:
    """A square of a view, turned, of a random brightness; sometimes with a softened guide, as super-resolved ones are.

    `size_px`: side in pixels of the truth, or what the view holds of it, in whole coarse pixels. `wide`: also as other
    instruments, levels and landscapes would show it (`_varied`), through other MTFs than the band's own.
    """
    f = upscale_factor(view.gsd)
    height, width = view.size
    side = max(f, min(size_px, height, width) // f * f)
    row, col = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    turn, gain = random_turn(rng), float(np.exp(rng.uniform(-0.4, 0.4)))
    cut = {g: _turned(x[:, row : row + side, col : col + side], turn) * gain for g, x in view.bands.items()}
    sample = (
        seen_from_afar(view.name, view.gsd, _varied(cut, rng), rng)
        if wide
        else seen_from_afar(view.name, view.gsd, cut)
    )
    if rng.random() >= 0.25:
        return sample
    guide = sample.guide
    soft = F.interpolate(F.avg_pool2d(guide[None], 2), size=guide.shape[-2:], mode="bicubic", align_corners=False)[0]
    softened = guide + rng.uniform(0, 0.8) * (soft - guide)
    return WaldSample(sample.name, sample.gsd, softened, sample.measured, sample.others, sample.truth)


def seen_from_afar(
    name: str, gsd: int, bands: Mapping[int, Tensor], rng: np.random.Generator | None = None
) -> WaldSample:
    """What is measured of bands (C, n, n) on the truth's grid; red, green and blue among them are the guide.

    With `rng`, each band's MTF at Nyquist is off by up to `MTF_ERROR`.
    """

    def mtf(band: str) -> float:
        off = 0.0 if rng is None else float(rng.uniform(-MTF_ERROR, MTF_ERROR))
        return round(MTF_NYQUIST[band] + off, 2)  # few values, so that the matrices are kept

    seen = {
        g: torch.stack([_observed(band, upscale_factor(g), mtf(key)) for band, key in zip(x, GROUPS[g], strict=True)])
        for g, x in bands.items()
    }
    guide = bands[10][[GROUPS[10].index(band) for band in RGB]]
    return WaldSample(name, gsd, guide, seen[gsd], {g: x for g, x in seen.items() if g != gsd}, bands[gsd])


def _varied(bands: Mapping[int, Tensor], rng: np.random.Generator) -> dict[int, Tensor]:
    """The same ground as another instrument, level or landscape would show it.

    Bands related as in no scene (`_related_anew`); half the time with haze as at the top of the atmosphere, in blue
    more than in the infrared; each band with a gain of its own; each group beside the others by up to `SHIFT_PX` of its
    pixels along either axis; and now and then a band of a finer group without any contrast, so that none is relied
    upon.
    """
    bands = _related_anew(bands, rng)
    haze = float(rng.uniform(0, 0.12)) * float(rng.random() < 0.5)
    coarsest, varied = max(bands), {}
    for g, x in bands.items():
        names = GROUPS[g]
        gain = torch.from_numpy(np.exp(rng.uniform(-0.3, 0.3, len(names))).astype(np.float32))[:, None, None]
        veil = torch.tensor([haze * (0.45 / (WAVELENGTH_NM[band] / 1000)) ** 4 for band in names])[:, None, None]
        x = x * gain * (1 - veil) + veil
        if g > 10 or coarsest == 10:
            x = _shifted(x, rng.uniform(-SHIFT_PX, SHIFT_PX, 2), g)
        lost = torch.from_numpy(rng.random(len(names)) < LOST * (g < coarsest)) & torch.tensor(
            [b not in RGB for b in names]
        )
        varied[g] = torch.where(lost[:, None, None], x.mean((1, 2), keepdim=True), x)
    return varied


def _related_anew(bands: Mapping[int, Tensor], rng: np.random.Generator) -> dict[int, Tensor]:
    """Bands on one grid, some of them partly another band with their own mean and spread, also upside down, and some a
    power of themselves: over snow the visible is bright where the infrared is dark, as over nothing else.
    """
    every = [band for x in bands.values() for band in x]

    def related(name: str, x: Tensor) -> Tensor:
        mean = x.mean().clamp_min(1e-4)
        if name not in RGB and rng.random() < MIXED:
            other = every[int(rng.integers(len(every)))]
            share, sign = float(rng.uniform(0, 1)), float(rng.choice([-1, 1, 1]))
            like = x.mean() + sign * x.std() / (other.std() + 1e-4) * (other - other.mean())
            x = (x + share * (like - x)).clamp_min(0.1 * float(mean))
            mean = x.mean()
        if rng.random() < BENT:
            x = mean * (x.clamp_min(1e-4) / mean) ** float(np.exp(rng.uniform(-0.6, 0.6)))
        return x

    return {g: torch.stack([related(*pair) for pair in zip(GROUPS[g], x, strict=True)]) for g, x in bands.items()}


def _shifted(x: Tensor, shift_px: NDArray[np.float64], gsd: int) -> Tensor:
    """All bands but red, green, blue moved by a part of a pixel, bicubic, edges repeated; (C, H, W) → same."""
    height, width = x.shape[-2:]
    rows, columns = (
        torch.arange(n, dtype=torch.float32) + 0.5 + float(s) for n, s in zip((height, width), shift_px, strict=True)
    )
    grid = torch.stack(torch.broadcast_tensors(columns[None] * 2 / width - 1, rows[:, None] * 2 / height - 1), -1)[None]
    moved = F.grid_sample(x[None], grid, mode="bicubic", padding_mode="border", align_corners=False)[0]
    lowest, highest = (f((1, 2), keepdim=True) for f in (x.amin, x.amax))
    moved = torch.minimum(torch.maximum(moved, lowest), highest)  # bicubic overshoots beside edges
    colours = torch.tensor([band in RGB for band in GROUPS[gsd]])[:, None, None]
    return torch.where(colours, x, moved)


def _turned(x: Tensor, turn: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(turn(x.numpy()))


def _at(scene: NativeScene, band: str, gsd: int) -> Tensor:
    """A band at some GSD: (H, W). Means over pixels where that is coarser than its own, bicubic where it is finer."""
    x, native = scene.bands[band][None, None], GSD_M[band]
    if native <= gsd:
        return F.avg_pool2d(x, gsd // native)[0, 0]
    return F.interpolate(x, scale_factor=native // gsd, mode="bicubic", align_corners=False)[0, 0]


def _observed(band: Tensor, factor: int, mtf: float) -> Tensor:
    """A band as its sensor would see it at `factor` times the GSD: (H, W) → (H / factor, W / factor)."""
    rows, cols = (_axis(n // factor, factor, mtf) for n in band.shape)
    return rows @ band @ cols.T


@lru_cache(maxsize=512)
def _axis(coarse: int, factor: int, mtf: float) -> Tensor:
    return torch.from_numpy(sensor_matrix(coarse, factor, mtf)).float()
