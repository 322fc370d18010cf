"""Evaluates weights of either stage on any data: reads both, evaluates, and notes what was used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast, get_args

import torch

from difffusr.kernels.networks import Stage1
from difffusr.kernels.networks.fusion import fusion_from_weights
from difffusr.kernels.sampling import Sampling
from difffusr.kernels.weights import shipped, shipped_sampling
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.plan import read_weights, weights_errors
from difffusr.pipeline.weights.evaluation.data import Degradation, ImageOptions, find_images, find_scenes, image_pairs
from difffusr.pipeline.weights.evaluation.fusion import evaluate_fusion
from difffusr.pipeline.weights.evaluation.report import Evaluation
from difffusr.pipeline.weights.evaluation.super_resolution import Scorer, evaluate_super_resolution


@dataclass(frozen=True)
class SamplerChoice:
    """What replaces the weights' own sampling.

    Attributes:
        sampler: "reference" or "fast"; None for the weights' own.
        steps: sampler steps; None for the sampler's own.
        temperature: spread of the initial noise, 0 to 2; None for the weights' own.
    """

    sampler: str | None = None
    steps: int | None = None
    temperature: float | None = None


def judge_super_resolution(
    data: Path,
    weights: str,
    *,
    images: ImageOptions,
    degradation: Degradation,
    size: int,
    windows: int,
    sampler: SamplerChoice,
    samples: int,
    opensr: str | None,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """Compare stage 1 with nearest, bicubic and the context encoder alone.

    Args:
        data: a folder of images, or one image.
        weights: path or URL, or "small" for those that ship.
        images: how the files are read.
        degradation: how inputs are made.
        size: side of a window in 2.5 m pixels, a multiple of 8.
        windows: most windows of an image.
        samples: with different noise, for the calibration.
        opensr: the distance of OpenSR-test's scores; None for none of them.
        progress: called with windows done and in total.

    Raises:
        DifffusrError: weights, data or a choice cannot be used.
    """
    with weights_errors():
        given = read_weights(shipped("small", "stage1") if weights == "small" else weights)
        stage1 = Stage1.from_weights(given).eval()
    sampling = _sampling(stage1, sampler)
    scorer = _opensr(opensr) if opensr else None
    pairs = image_pairs(find_images(data, images), size, windows, degradation)
    facts = _facts(weights, given.sha256, data) | {
        "images": len({pair.place for pair in pairs}),
        "windows": len(pairs),
        "degradation": degradation,
        "sampler": f"{sampling.solver}, {sampling.steps} steps, temperature {sampling.temperature:g}"
        + (", last estimate" if sampling.denoised else ""),
    }
    return evaluate_super_resolution(stage1, pairs, sampling, facts, samples, scorer=scorer, progress=progress)


def judge_fusion(
    data: Sequence[Path], weights: str, only: Sequence[str], *, progress: Callable[[int, int], None]
) -> Evaluation:
    """Compare stage 2 with classical pansharpening, under Wald's protocol.

    Args:
        data: folders of 12-band scenes on native grids.
        weights: path or URL, or "small" for those that ship.
        only: globs of the names to use; all if there are none.
        progress: called with groups of bands done and in total.

    Raises:
        DifffusrError: weights or data cannot be used.
    """
    with weights_errors():
        given = read_weights(shipped("small", "fusion") if weights == "small" else weights)
        network = fusion_from_weights(given)
    scenes = find_scenes(data, only)
    facts = _facts(weights, given.sha256, *data) | {"scenes": len(scenes)}
    return evaluate_fusion(network, scenes, facts, progress=progress)


def _opensr(distance: str) -> Scorer:
    """The scores of the extra; imported only here."""
    from difffusr.pipeline.weights.evaluation.opensr import Distance, lpips_distance, opensr_scores, require

    if distance not in get_args(Distance):
        raise ConfigError(f"--opensr: {distance!r} is none of {', '.join(get_args(Distance))}")
    known = cast(Distance, distance)
    require()

    def scores(lr: torch.Tensor, sr: torch.Tensor, hr: torch.Tensor) -> dict[str, float]:
        more = {"lpips": lpips_distance(sr, hr)} if known == "lpips" else {}
        return opensr_scores(lr, sr, hr, distance=known) | more

    return scores


def _sampling(stage1: Stage1, choice: SamplerChoice) -> Sampling:
    sampler, steps, temperature = choice.sampler, choice.steps, choice.temperature
    if sampler not in (None, "reference", "fast"):
        raise ConfigError(f"--sampler: {sampler!r} is neither 'reference' nor 'fast' (draft is the context encoder)")
    if stage1.config.diffusion.residual:
        chosen = shipped_sampling(sampler=sampler)
    else:
        chosen = Sampling() if sampler is None else Sampling().by(sampler)
    if steps is not None and chosen.solver == "ddim" and 1000 % steps:
        raise ConfigError(f"--steps: {steps} is not a number from 2 that divides 1000")
    return replace(
        chosen,
        steps=chosen.steps if steps is None else steps,
        temperature=chosen.temperature if temperature is None else temperature,
    )


def _facts(weights: str, sha256: str, *data: Path) -> dict[str, Any]:
    return {
        "weights": Path(bare_href(weights)).name,
        "sha256": sha256,
        "data": ", ".join(path.name for path in data),
        "versions": f"difffusr {version('difffusr')}, torch {torch.__version__}",
    }
