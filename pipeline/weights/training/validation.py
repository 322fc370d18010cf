"""Scores of the networks on places that no training saw: fixed pairs, and decibels against bicubic enlargement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from difffusr.kernels.bands import GROUPS, MTF_NYQUIST, RGB, SCALE, TARGET_GSD_M, band_indices
from difffusr.kernels.images import (
    GAMMA_RGB,
    Sensor,
    back_project,
    bicubic_downsample,
    blur,
    gaussian_kernels,
    power_law,
    sensor_for_group,
)
from difffusr.kernels.learning import bicubic, fuse
from difffusr.kernels.measures import psnr
from difffusr.kernels.model import SuperResolution
from difffusr.kernels.networks import Stage1
from difffusr.kernels.networks.fusion import FusionNetwork
from difffusr.pipeline.weights.training.degrading import sensor_axis
from difffusr.pipeline.weights.training.imagery import HRImage, Images, resample
from difffusr.pipeline.weights.training.scenes import NativeScene
from difffusr.pipeline.weights.training.wald import squares, view_of


@dataclass(frozen=True)
class Pair:
    """An HR patch (3, H, W) and its LR (3, H / 4, W / 4), reflectance."""

    name: str
    hr: Tensor = field(repr=False)
    lr: Tensor = field(repr=False)


def validation_pairs(images: Sequence[HRImage], per_image: int = 2, size_px: int = 192) -> dict[str, list[Pair]]:
    """Fixed patches of held-out images at 2.5 m, by degradation; only the noise is random.

    "sensor": harmonised imagery through Sentinel-2's own MTF with noise of 0.001; "blind": a round Gaussian of 1.2
    pixels and bicubic reduction; "display": the picture as it is, not harmonised, through the sensor.
    """
    rng = np.random.default_rng(0)
    margin = 2
    window = size_px + 2 * margin * SCALE
    made: dict[str, list[Pair]] = {"sensor": [], "blind": [], "display": []}
    for image in (resample(image, TARGET_GSD_M) for image in images):
        if min(image.valid.shape) < window:
            image = HRImage(image.name, image.gsd_m, *_reflected(image, window), image.display)
        for i in range(per_image):
            row, col = (int(rng.integers(n - window + 1)) for n in image.valid.shape)
            raw = torch.from_numpy(image.pixels[:, row : row + window, col : col + window].copy())
            hr = power_law(raw, GAMMA_RGB) if image.display else raw
            m = torch.stack([sensor_axis(window // SCALE, MTF_NYQUIST[band]) for band in RGB])
            noise = 0.001 * torch.from_numpy(rng.standard_normal((3, window // 4, window // 4), dtype=np.float32))
            kernel = gaussian_kernels(torch.tensor([1.2]), torch.tensor([1.2]), torch.zeros(1))
            degraded = {
                "sensor": (hr, m @ hr @ m.transpose(-1, -2) + noise),
                "blind": (hr, bicubic_downsample(blur(hr[None], kernel), SCALE)[0]),
                "display": (raw, m @ raw @ m.transpose(-1, -2)),
            }
            for kind, (fine, coarse) in degraded.items():
                fine = fine[:, margin * SCALE : -margin * SCALE, margin * SCALE : -margin * SCALE]
                coarse = coarse[:, margin:-margin, margin:-margin]
                made[kind].append(Pair(f"{image.name}#{i}", fine.contiguous(), coarse.contiguous()))
    return made


def _reflected(image: HRImage, size: int) -> tuple[Images, NDArray[np.bool_]]:
    """Pixels and validity continued by reflection to at least `size`."""
    more = [(0, max(0, size - n)) for n in image.valid.shape]
    return np.pad(image.pixels, [(0, 0), *more], "reflect"), np.pad(image.valid, more, "reflect")


@torch.no_grad()
def evaluate_stage1(stage1: Stage1, pairs: Sequence[Pair], seed: int = 0) -> dict[str, float]:
    """PSNR in decibels (range 1) of several ways to enlarge, the mean over pairs, and how often the product wins.

    "bicubic", "bicubic+bp", "tail" (the context encoder's own RGB), "sample", "sample+bp" (after back-projection),
    "wins": share of the pairs where "sample+bp" is above bicubic.
    """
    generator, device = torch.Generator().manual_seed(seed), next(stage1.parameters()).device
    at_once = 16 if device.type == "cuda" else 1
    scores: dict[str, list[float]] = {}
    for some in (pairs[i : i + at_once] for i in range(0, len(pairs), at_once)):
        lr = torch.stack([pair.lr for pair in some]).to(device)
        x_T = torch.stack([torch.randn(pair.hr.shape, generator=generator) for pair in some]).to(device)
        sample = stage1.sample(lr, x_T, skip=100, skip_last=True, denoised=True)
        results = {
            "bicubic": bicubic(lr),
            "bicubic+bp": project_rgb(bicubic(lr), lr),
            "tail": stage1.deterministic(lr),
            "sample": sample,
            "sample+bp": project_rgb(sample, lr),
        }
        for i, pair in enumerate(some):
            values = {name: float(psnr(x[i].cpu(), pair.hr)) for name, x in results.items()}
            values["wins"] = float(values["sample+bp"] > values["bicubic"])
            for name, value in values.items():
                scores.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in scores.items()}


def project_rgb(x: Tensor, lr: Tensor) -> Tensor:
    """Back-projection of RGB (B, 3, 4n, 4n) onto what was measured (B, 3, n, n), everywhere valid."""
    sensor = Sensor(*(part[:3] for part in sensor_for_group(10, lr.shape[-1]))).to(x.device)
    return back_project(x, lr, torch.ones_like(lr[:, :1]), sensor)


@torch.no_grad()
def evaluate_fusion(network: FusionNetwork, scenes: Sequence[NativeScene]) -> dict[int, dict[str, float]]:
    """PSNR in decibels (range 1) by group: "bicubic", "fused", "fused+bp" (after back-projection), mean over scenes."""
    device = next(network.parameters()).device
    scores: dict[int, dict[str, list[float]]] = {}
    for gsd in GROUPS:
        for sample in (square for scene in scenes for square in squares(view_of(scene, gsd))):
            guide, measured, truth = (x[None].to(device) for x in (sample.guide, sample.measured, sample.truth))
            fused = fuse(network, gsd, guide, measured, {g: x[None].to(device) for g, x in sample.others.items()})
            sensor = sensor_for_group(gsd, measured.shape[-1]).to(device)
            results = {
                "bicubic": F.interpolate(measured, size=truth.shape[-2:], mode="bicubic", align_corners=False),
                "fused": fused,
                "fused+bp": back_project(fused, measured, torch.ones_like(measured[:, :1]), sensor),
            }
            for name, x in results.items():
                scores.setdefault(gsd, {}).setdefault(name, []).append(float(psnr(x, truth)))
    return {gsd: {name: float(np.mean(v)) for name, v in of.items()} for gsd, of in scores.items()}


@torch.no_grad()
def evaluate_product(model: SuperResolution, scene: NativeScene, side_px: int = 48) -> dict[str, float]:
    """The whole product on a scene made four times coarser: PSNR in decibels (range 1), mean over its chips.

    40, 80 and 240 m stand in for the native 10, 20 and 60 m, so that the scene's own 10 m bands are the truth.
    `side_px`: side of a chip in pixels of the 10 m stand-in, a multiple of 6. Names: "rgb …" and "nir …", each
    "bicubic" and "product". Raises ValueError where the scene is smaller than a chip.
    """
    generator = torch.Generator().manual_seed(0)
    fine = {gsd: side_px * SCALE * 10 // gsd for gsd in GROUPS}
    native = {gsd: torch.stack([scene.bands[band] for band in names]) for gsd, names in GROUPS.items()}
    rows, cols = (n // fine[60] for n in native[60].shape[-2:])
    if not rows * cols:
        raise ValueError(f"{scene.name}: smaller than a chip of {fine[60]} pixels of 60 m")
    scores: dict[str, list[float]] = {}
    for row, col in ((r, c) for r in range(rows) for c in range(cols)):
        chip = {g: native[g][None, :, row * n : (row + 1) * n, col * n : (col + 1) * n] for g, n in fine.items()}
        bands = {g: _seen_from_afar(g, x) for g, x in chip.items()}
        valid = {g: torch.ones_like(x[:, :1], dtype=torch.bool) for g, x in bands.items()}
        noise = torch.randn((1, 3, fine[10], fine[10]), generator=generator)
        ways = {"bicubic": bicubic(bands[10]), "product": model(bands, valid, noise)[:, band_indices(GROUPS[10])]}
        for way, x in ways.items():
            for name, channels in (("rgb", slice(0, 3)), ("nir", slice(3, 4))):
                value = float(psnr(x[:, channels], chip[10][:, channels]))
                scores.setdefault(f"{name} {way}", []).append(value)
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _seen_from_afar(gsd: int, x: Tensor) -> Tensor:
    m = torch.stack([sensor_axis(x.shape[-1] // SCALE, MTF_NYQUIST[band]) for band in GROUPS[gsd]])
    return m @ x @ m.transpose(-1, -2)
