"""Stage 2 compared with classical pansharpening, under Wald's protocol on real scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.bands import GROUPS, MTF_NYQUIST, RGB
from difffusr.kernels.images import back_project, sensor_for_group
from difffusr.kernels.learning import fuse
from difffusr.kernels.measures import METHODS, ergas, psnr, q2n, sam_degrees, ssim, uqi
from difffusr.kernels.networks.fusion import FusionNetwork, classical_estimates, upscale_factor
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.weights.evaluation.grids import GRID, METRIC, Grids
from difffusr.pipeline.weights.evaluation.report import (
    Crops,
    Evaluation,
    Metric,
    Scores,
    mean_scores,
    rgb_picture,
    stretch_of,
)
from difffusr.pipeline.weights.training import NativeScene, WaldSample, squares, view_of

FUSED: Final = "fusion network"

CONSISTENT: Final = f"{FUSED} + bp"

#: What the network of the generation "corrected" corrects; not a published method, so no baseline of the margins.
ESTIMATE: Final = "regression on finer bands + bp"

#: How the product compares with the best baselines: their names, relative ERGAS, difference of SAM in degrees.
Margin = dict[str, Any]

WITH_NIR: Final = ", also B08"

#: Baselines that the near infrared at 10 m is given as well, enlarged, for the network sees it too.
_WITH_NIR: Final = ("MTF-GLP-HS", "MTF-GLP-CBD-HS")

METRICS: Final = {
    "ergas": Metric("ERGAS", "down", 3, "100 / ratio · root mean squared relative RMSE of the bands (Wald 2000)"),
    "sam": Metric("SAM", "down", 3, "degrees, spectral angle over the bands of the group"),
    "psnr": Metric("PSNR", "up", 2, "decibels, range 1 reflectance"),
    "ssim": Metric("SSIM", "up", 4, "11 × 11 Gaussian window, range 1"),
    "uqi": Metric("UQI", "up", 4, "universal image quality index, 8 × 8 windows"),
    "q2n": Metric("Q2n", "up", 4, "hypercomplex quality index of all bands, 32 × 32 blocks"),
    GRID: METRIC,
}


@torch.no_grad()
def evaluate_fusion(
    network: FusionNetwork,
    scenes: Sequence[NativeScene],
    facts: Mapping[str, Any],
    crops: int = 4,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Evaluation:
    """Every method on every scene, one table a group of bands.

    Each group is made coarser by the fusion's own factor (4, 8, 24), so that its native bands are the truth and the
    guide is the real red, green, blue at their GSD. Raises ConfigError where no scene is large enough for any group.
    """
    tables: list[Scores] = []
    shown: list[Crops] = []
    gridness: dict[str, Any] = {}
    for i, gsd in enumerate(GROUPS):
        each: dict[str, dict[str, dict[str, float]]] = {}
        samples = [sample for scene in scenes for sample in squares(view_of(scene, gsd))]
        grids = Grids(GROUPS[gsd])
        for sample in samples:
            results = _results(network, sample)
            each[sample.name] = {name: _scores(x, sample) | grids.add(name, x) for name, x in results.items()}
            grids.add("truth", sample.truth)
            if len(shown) < crops * (i + 1) and sample.truth.shape[-1] >= 48:
                shown.append(_crops(sample, results))
        if each:
            tables.append(_table(gsd, each, grids))
            gridness[tables[-1].title] = grids.by_band()
        progress(i + 1, len(GROUPS))
    if not tables:
        raise ConfigError("data: no scene spans 3 × 3 pixels of 40 m; larger scenes are needed")
    extra = {"against_the_best": _margins(tables), "gridness": gridness}
    return Evaluation("Evaluation of fusion", facts, tuple(tables), tuple(shown), extra)


def _results(network: FusionNetwork, sample: WaldSample) -> dict[str, Tensor]:
    mtf = [MTF_NYQUIST[band] for band in GROUPS[sample.gsd]]
    ms, rgb = sample.measured[None], sample.guide[None]
    results = {name: method(ms, rgb, mtf)[0] for name, method in METHODS.items()}
    if sample.gsd > 10:
        nir = sample.others[10][None, GROUPS[10].index("B08") :][:, :1]
        nir = F.interpolate(nir, size=rgb.shape[-2:], mode="bicubic", align_corners=False)
        for name in _WITH_NIR:
            results[f"{name}{WITH_NIR}"] = METHODS[name](ms, torch.cat([rgb, nir], 1), mtf)[0]
    fused = fuse(network, sample.gsd, rgb, ms, {gsd: x[None] for gsd, x in sample.others.items()})[0]
    sensor = sensor_for_group(sample.gsd, ms.shape[-1])
    native = {sample.gsd: ms} | {gsd: x[None] for gsd, x in sample.others.items()}
    estimate = classical_estimates(rgb, native, sample.gsd)[sample.gsd]
    results[ESTIMATE] = back_project(estimate, ms, torch.ones_like(ms[:, :1]), sensor)[0]
    results[FUSED] = fused
    results[CONSISTENT] = back_project(fused[None], ms, torch.ones_like(ms[:, :1]), sensor)[0]
    return results


def _scores(x: Tensor, sample: WaldSample) -> dict[str, float]:
    y = sample.truth
    found = {
        "ergas": ergas(x, y, ratio=upscale_factor(sample.gsd)),
        "sam": sam_degrees(x, y),
        "psnr": psnr(x, y),
        "ssim": ssim(x, y),
        "uqi": uqi(x, y),
        "q2n": q2n(x, y),
    }
    return {name: float(value) for name, value in found.items()}


def _table(gsd: int, each: Mapping[str, Mapping[str, Mapping[str, float]]], grids: Grids) -> Scores:
    note = (
        f"Truth: {', '.join(GROUPS[gsd])} at {gsd} m. Input: the same {upscale_factor(gsd)} × coarser, with the "
        f"sensor's MTF. Guide: {', '.join(RGB)} at {gsd} m."
    )
    ours = (ESTIMATE, FUSED, CONSISTENT)
    return Scores(f"{gsd} m bands", METRICS, grids.pooled(mean_scores(each)), each, ours, note)


def _margins(tables: Sequence[Scores]) -> dict[str, dict[str, Margin]]:
    """By table, the product against the best baseline: of those guided by red, green, blue, and of all."""
    found: dict[str, dict[str, Margin]] = {}
    for table in tables:
        every = [name for name in table.mean if name not in table.ours]
        guided = [name for name in every if not name.endswith(WITH_NIR)]
        found[table.title] = {"guided by RGB": _margin(table, guided)}
        if guided != every:
            found[table.title]["also given B08"] = _margin(table, every)
    return found


def _margin(table: Scores, baselines: Sequence[str]) -> Margin:
    best, best_sam = (table.best(metric, baselines) for metric in ("ergas", "sam"))
    assert best is not None
    assert best_sam is not None
    ours = table.mean[CONSISTENT]
    return {
        "best_ergas": best,
        "ergas_relative": ours["ergas"] / table.mean[best]["ergas"] - 1,
        "best_sam": best_sam,
        "sam_difference": ours["sam"] - table.mean[best_sam]["sam"],
    }


#: Bands shown as red, green, blue by group.
_SHOWN: Final = {10: ("B08", "B04", "B03"), 20: ("B11", "B8A", "B05"), 60: ("B09", "B09", "B01")}


def _crops(sample: WaldSample, results: Mapping[str, Tensor], side: int = 160) -> Crops:
    channels = [GROUPS[sample.gsd].index(band) for band in _SHOWN[sample.gsd]]
    side = min(side, sample.truth.shape[-1])
    cut = (channels, slice(0, side), slice(0, side))
    low, high = stretch_of(sample.truth[cut])
    nearest = F.interpolate(sample.measured[None], size=sample.truth.shape[-2:], mode="nearest")[0]
    chosen = {
        "input": nearest,
        "bicubic": results["bicubic"],
        "MTF-GLP-HS": results["MTF-GLP-HS"],
        FUSED: results[CONSISTENT],
        "truth": sample.truth,
    }
    bands = " ".join(_SHOWN[sample.gsd])
    return Crops(
        f"{sample.name}, {bands} at {sample.gsd} m",
        {name: rgb_picture(x[cut], low, high) for name, x in chosen.items()},
    )
