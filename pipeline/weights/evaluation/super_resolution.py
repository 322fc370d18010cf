"""Stage 1 compared with enlargement without it: fidelity, texture, consistency, and calibration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.bands import RGB, SCALE
from difffusr.kernels.images import Sensor, back_project, observe, sensor_for_group
from difffusr.kernels.measures import fine_colour, psnr, sam_degrees, sliced_wasserstein, spectrum_error_db, ssim
from difffusr.kernels.model import super_resolve_rgb
from difffusr.kernels.networks import Stage1
from difffusr.kernels.sampling import Sampling
from difffusr.pipeline.weights.evaluation.data import Pair
from difffusr.pipeline.weights.evaluation.grids import GRID, METRIC, Grids
from difffusr.pipeline.weights.evaluation.report import (
    Crops,
    Evaluation,
    Metric,
    Scores,
    heat_picture,
    mean_scores,
    rgb_picture,
    stretch_of,
)

#: Another way to score one image: (lr, sr, hr), each (3, …), → values by name. See `opensr`.
Scorer = Callable[[Tensor, Tensor, Tensor], Mapping[str, float]]

SAMPLE, CONTEXT = "diffusion sample", "context encoder"

#: The column that compares colours.
CHROMA: Final = "chroma"

#: What the truth is called where it stands beside them.
TRUTH: Final = "truth"

METRICS: Final = {
    "psnr": Metric("PSNR", "up", 2, "decibels, range 1 reflectance"),
    "ssim": Metric("SSIM", "up", 3, "structural similarity, 11 × 11 Gaussian window, range 1"),
    "sam": Metric("SAM", "down", 2, "degrees, spectral angle over red, green, blue"),
    "residual": Metric("residual", "down", 5, "consistency: mean |seen through Sentinel-2's MTF − input|, reflectance"),
    "swd": Metric("SWD", "down", 1, "sliced Wasserstein distance of Laplacian-pyramid patches × 1000 (Karras et al. "
                  "2018), each image in units of its own contrast by level: structure"),
    "swd_scaled": Metric("SWD-E", "down", 1, "the same in units of the truth's contrast: missing detail counts"),
    "spectrum": Metric("power", "down", 2, "decibels, mean |log error| of the radial power spectrum"),
    CHROMA: Metric("chroma", "", 2, "colour's share of the detail finer than 1/8 cycle a pixel, as power over that of "
                   "brightness, relative to the truth's; over all samples that of their pooled power"),
    GRID: METRIC,
}  # fmt: skip


@dataclass(frozen=True)
class _Way:
    """A way to enlarge: low-resolution RGB (1, 3, h, w) and the number of the pair → (1, 3, 4h, 4w)."""

    name: str
    enlarge: Callable[[Tensor, int], Tensor]


@torch.no_grad()
def evaluate_super_resolution(
    stage1: Stage1,
    pairs: Sequence[Pair],
    sampling: Sampling,
    facts: Mapping[str, Any],
    samples: int = 8,
    crops: int = 6,
    scorer: Scorer | None = None,
    only: Sequence[str] | None = None,
    timed: bool = True,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Evaluation:
    """Every way to enlarge on every pair.

    Args:
        samples: how many samples with different noise the calibration takes; below 2 there is none.
        crops: how many pairs are shown, spread over the data.
        scorer: further scores, such as those of OpenSR-test.
        only: names of the ways to judge; all of them by default. Crops need them all.
        timed: also measure the seconds of each way for a chip of 192 px.
        progress: called after each pair with pairs done and in total.
    """
    ways = [way for way in _ways(stage1, sampling) if only is None or way.name in only]
    each: dict[str, dict[str, dict[str, float]]] = {}
    spreads: list[Tensor] = []
    errors: list[Tensor] = []
    shown: list[Crops] = []
    grids = Grids(RGB)
    colours: dict[str, Tensor] = {}
    every = max(1, len(pairs) // max(crops, 1))
    for number, pair in enumerate(pairs):
        lr, results = pair.lr[None], {}
        for way in ways:
            results[way.name] = way.enlarge(lr, number)[0]
        each[pair.name] = {name: _scores(x, pair, scorer) | grids.add(name, x) for name, x in results.items()}
        grids.add(TRUTH, pair.hr)
        for name, x in {**results, TRUTH: pair.hr}.items():
            colours[name] = colours.get(name, 0) + fine_colour(x)
        spread = None
        if samples > 1:
            spread, error = _spread_and_error(stage1, pair, sampling, samples, number)
            spreads.append(spread.flatten())
            errors.append(error.flatten())
        if number % every == 0 and len(shown) < crops:
            shown.append(_crops(pair, results, spread))
        progress(number + 1, len(pairs))
    names = list(METRICS) + [k for k in next(iter(next(iter(each.values())).values())) if k not in METRICS]
    metrics = {name: METRICS.get(name) or Metric(name, _BETTER.get(name, ""), 4, "OpenSR-test") for name in names}
    judged = tuple(way.name for way in ways if way.name.startswith((SAMPLE, CONTEXT)))
    means = grids.pooled(mean_scores(each))
    means = {name: {**scores, CHROMA: _chroma(colours[name], colours[TRUTH])} for name, scores in means.items()}
    table = Scores("Super-resolution × 4 of red, green, blue", metrics, means, each, judged, _NOTE)
    extra: dict[str, Any] = {"seconds_192px": _seconds(ways)} if timed else {}
    extra["gridness"] = {table.title: grids.by_band()}
    if samples > 1:
        extra["calibration"] = calibration(torch.cat(spreads), torch.cat(errors), samples)
    return Evaluation("Evaluation of super-resolution", facts, (table,), tuple(shown), extra)


#: Which way the scores of OpenSR-test are better.
_BETTER: Final = dict.fromkeys(
    ("reflectance", "spectral", "spatial", "hallucination", "omission", "lpips"), "down"
) | dict.fromkeys(("synthesis", "improvement"), "up")

_NOTE: Final = (
    "+ bp: after back-projection on the input, as in a run. The context encoder's own image is deterministic; a "
    "sample trades pixel error for texture."
)


def _ways(stage1: Stage1, sampling: Sampling) -> list[_Way]:
    def enlarged(mode: str) -> Callable[[Tensor, int], Tensor]:
        return lambda lr, _: F.interpolate(
            lr, scale_factor=SCALE, mode=mode, align_corners=None if mode == "nearest" else False
        )

    def projected(way: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Tensor]:
        return lambda lr, number: project(way(lr, number), lr)

    plain = {
        "bicubic": enlarged("bicubic"),
        CONTEXT: lambda lr, _: stage1.deterministic(lr),
        SAMPLE: lambda lr, number: super_resolve_rgb(stage1, lr, initial_noise(lr, number, 0), sampling),
    }
    ways = [_Way("nearest", enlarged("nearest"))]
    for name, way in plain.items():
        ways += [_Way(name, way), _Way(f"{name} + bp", projected(way))]
    return ways


def project(x: Tensor, lr: Tensor) -> Tensor:
    """Back-projection of RGB (B, 3, 4n, 4n) onto what was measured (B, 3, n, n), everywhere valid."""
    return back_project(x, lr, torch.ones_like(lr[:, :1]), _sensor(lr.shape[-1]))


def initial_noise(lr: Tensor, number: int, seed: int) -> Tensor:
    """Standard normal noise for one pair: (B, 3, h, w) → (B, 3, 4h, 4w); independent of what else is evaluated."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + number)
    shape = (len(lr), 3, SCALE * lr.shape[-2], SCALE * lr.shape[-1])
    return torch.randn(shape, generator=generator)


def calibration(spread: Tensor, error: Tensor, samples: int, groups: int = 10) -> dict[str, Any]:
    """Does the error grow with the spread? Values (N,) over pixels and channels, reflectance.

    Pixels are sorted by spread into equal groups; of each the mean spread and the root mean squared error, and the rank
    correlation (Spearman) of spread and absolute error over all pixels (at most a million, evenly chosen).
    """
    order = spread.argsort()
    parts = [part for part in order.chunk(groups) if len(part)]
    some = torch.linspace(0, len(spread) - 1, min(len(spread), 1_000_000)).long()
    ranks = torch.stack([values[some].argsort().argsort().double() for values in (spread, error.abs())])
    return {
        "samples": samples,
        "std": [float(spread[part].mean()) for part in parts],
        "rmse": [float(error[part].square().mean().sqrt()) for part in parts],
        "rank_correlation": float(torch.corrcoef(ranks)[0, 1]),
    }


def _spread_and_error(
    stage1: Stage1, pair: Pair, sampling: Sampling, samples: int, number: int
) -> tuple[Tensor, Tensor]:
    """Standard deviation of K samples and error of their mean, (3, H, W) each."""
    lr = pair.lr[None]
    results = torch.cat(
        [
            project(super_resolve_rgb(stage1, lr, initial_noise(lr, number, seed), sampling), lr)
            for seed in range(samples)
        ]
    )
    return results.std(0), results.mean(0) - pair.hr


def _scores(x: Tensor, pair: Pair, scorer: Scorer | None) -> dict[str, float]:
    sensor = _sensor(pair.lr.shape[-1])
    found = {
        "psnr": psnr(x, pair.hr),
        "ssim": ssim(x, pair.hr),
        "sam": sam_degrees(x, pair.hr),
        "residual": (observe(x[None], sensor)[0] - pair.lr).abs().mean(),
        "swd": sliced_wasserstein(x, pair.hr).mean(),
        "swd_scaled": sliced_wasserstein(x, pair.hr, own_scale=False).mean(),
        "spectrum": spectrum_error_db(x, pair.hr),
    }
    more = scorer(pair.lr, x, pair.hr) if scorer else {}
    scores = {name: float(value) for name, value in found.items()} | {k: float(v) for k, v in more.items()}
    return scores | {CHROMA: _chroma(fine_colour(x), fine_colour(pair.hr))}


def _chroma(made: Tensor, truth: Tensor) -> float:
    """Colour over brightness of what was made, relative to the truth's; of `fine_colour` each."""
    least = 1e-12  # reflectance²: an image without detail has no colour either
    return float((made[1] / (made[0] + least)) / ((truth[1] + least) / (truth[0] + least)))


def _sensor(size: int) -> Sensor:
    """Red, green, blue of the 10 m group (its first three)."""
    return Sensor(*(part[:3] for part in sensor_for_group(10, size)))


def _seconds(ways: Sequence[_Way]) -> dict[str, float]:
    """Seconds of each way for one chip of 192 × 192 pixels of 10 m on this machine, the better of two."""
    lr = 0.1 + 0.02 * torch.rand((1, 3, 192, 192), generator=torch.Generator().manual_seed(0))
    found = {}
    for way in ways:
        times = []
        for _ in range(2):
            started = time.perf_counter()
            way.enlarge(lr, 0)
            times.append(time.perf_counter() - started)
        found[way.name] = min(times)
    return found


def _crops(pair: Pair, results: Mapping[str, Tensor], spread: Tensor | None, side: int = 160) -> Crops:
    """The middle of a pair, at most `side` fine pixels."""
    size = pair.hr.shape[-1]
    side = min(side, size)
    start = (size - side) // 2 // SCALE * SCALE
    cut = (slice(None), slice(start, start + side), slice(start, start + side))
    low, high = stretch_of(pair.hr[cut])
    chosen = {
        "input, 10 m": results["nearest"],
        "bicubic": results["bicubic"],
        CONTEXT: results[f"{CONTEXT} + bp"],
        SAMPLE: results[f"{SAMPLE} + bp"],
        "truth": pair.hr,
    }
    pictures = {name: rgb_picture(x[cut], low, high) for name, x in chosen.items()}
    if spread is not None:
        top = float(torch.quantile(spread[cut], 0.99))
        pictures[f"spread, 0 – {top:.3f}"] = heat_picture(spread[cut].mean(0), top)
    return Crops(pair.name, pictures)
