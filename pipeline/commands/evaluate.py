"""The commands `difffusr evaluate sr` and `difffusr evaluate fusion`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from difffusr.kernels.networks.fusion.build import fusion_from_weights
from difffusr.kernels.networks.stage1 import Stage1
from difffusr.kernels.sampling.settings import Sampling
from difffusr.kernels.weights.shipped import shipped, shipped_sampling
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.plan.networks import read_weights, weights_errors
from difffusr.pipeline.weights.evaluation.data import ImageOptions, find_images, find_scenes, image_pairs
from difffusr.pipeline.weights.evaluation.fusion import evaluate_fusion
from difffusr.pipeline.weights.evaluation.report import Evaluation, to_terminal, write
from difffusr.pipeline.weights.evaluation.super_resolution import Scorer, evaluate_super_resolution

evaluate = typer.Typer(
    no_args_is_help=True,
    help="How good any weights are, on your own data: a table, JSON, and a page of crops.",
)


console = Console()


Weights = Annotated[str, typer.Option(help="Path or URL of weights; [bold]small[/] are those that ship.")]


Out = Annotated[Path, typer.Option(help="Folder for evaluation.json and index.html.")]


HeldOut = Annotated[
    list[str],
    typer.Option("--only", help="Glob of names to judge on, again for more; all if not given."),
]


@evaluate.command("sr")
def evaluate_sr(
    data: Annotated[Path, typer.Argument(help="Folder of GeoTIFF, PNG or JPEG images finer than 10 m, or one image.")],
    weights: Weights = "small",
    out: Out = Path("evaluation-sr"),
    gsd: Annotated[float | None, typer.Option(help="Metres a pixel, where the images do not say it.")] = None,
    rgb: Annotated[str, typer.Option(help="Bands that are red, green, blue, counted from 1.")] = "1,2,3",
    full_scale: Annotated[float | None, typer.Option(help="Value that means a reflectance of 1.")] = None,
    only: HeldOut = [],  # noqa: B006 (typer makes a new one)
    degradation: Annotated[str, typer.Option(help="How inputs are made: sensor or gaussian.")] = "sensor",
    size: Annotated[int, typer.Option(min=64, help="Side of a window in 2.5 m pixels, a multiple of 8.")] = 256,
    windows: Annotated[int, typer.Option(min=1, help="Windows of each image at most.")] = 4,
    sampler: Annotated[str | None, typer.Option(help="reference or fast; that of the weights if not given.")] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Sampler steps; those of the sampler if not given.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="Spread of the initial noise.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Samples with different noise, for the calibration.")] = 8,
    opensr: Annotated[
        str | None,
        typer.Option(
            help="Also OpenSR-test's scores (an extra), by distance: nd, lpips or clip; lpips adds LPIPS itself."
        ),
    ] = None,
) -> None:
    """Judge stage 1 against nearest, bicubic and the context encoder alone.

    Images are brought to 2.5 m, darkened to Sentinel-2's radiometry where they are 8-bit pictures, made four times
    coarser as Sentinel-2's sensor would, super-resolved, and compared with themselves.
    """
    if degradation not in ("sensor", "gaussian"):
        raise ConfigError(f"--degradation: {degradation!r} is neither 'sensor' nor 'gaussian'")
    if size % 8:
        raise ConfigError(f"--size: {size} is not a multiple of 8")
    kind: Literal["sensor", "gaussian"] = "sensor" if degradation == "sensor" else "gaussian"
    with weights_errors():
        given = read_weights(shipped("small", "stage1") if weights == "small" else weights)
        stage1 = Stage1.from_weights(given).eval()
    sampling = _sampling(stage1, sampler, steps, temperature)
    scorer = _opensr(opensr) if opensr else None
    files = find_images(data, ImageOptions(gsd, _three(rgb), full_scale, tuple(only)))
    pairs = image_pairs(files, size, windows, kind)
    facts = _facts(weights, given.sha256, data) | {
        "images": len({pair.place for pair in pairs}),
        "windows": len(pairs),
        "degradation": degradation,
        "sampler": f"{sampling.solver}, {sampling.steps} steps, temperature {sampling.temperature:g}"
        + (", last estimate" if sampling.denoised else ""),
    }
    with _progress("windows") as progress:
        found = evaluate_super_resolution(stage1, pairs, sampling, facts, samples, scorer=scorer, progress=progress)
    _show(found, out)


@evaluate.command("fusion")
def evaluate_fusion_command(
    data: Annotated[list[Path], typer.Argument(help="Folders of 12-band scenes on native grids.")],
    weights: Weights = "small",
    out: Out = Path("evaluation-fusion"),
    only: HeldOut = [],  # noqa: B006
) -> None:
    """Judge stage 2 against classical pansharpening, under Wald's protocol.

    Scenes are folders with one GeoTIFF a band (B01.tif … B12.tif) or the stacks im10.tif, im20.tif, im60.tif. They are
    made coarser by 4, 8 and 24, so that the native bands are the truth.
    """
    with weights_errors():
        given = read_weights(shipped("small", "fusion") if weights == "small" else weights)
        network = fusion_from_weights(given)
    scenes = find_scenes(data, only)
    facts = _facts(weights, given.sha256, *data) | {"scenes": len(scenes)}
    with _progress("groups of bands") as progress:
        found = evaluate_fusion(network, scenes, facts, progress=progress)
    _show(found, out)


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


def _sampling(stage1: Stage1, sampler: str | None, steps: int | None, temperature: float | None) -> Sampling:
    own = shipped_sampling() if stage1.config.diffusion.residual else Sampling()
    if sampler not in (None, "reference", "fast"):
        raise ConfigError(f"--sampler: {sampler!r} is neither 'reference' nor 'fast' (draft is the context encoder)")
    chosen = own if sampler is None else own.by(sampler)
    if steps is not None and chosen.solver == "ddim" and 1000 % steps:
        raise ConfigError(f"--steps: {steps} is not a number from 2 that divides 1000")
    return replace(
        chosen,
        steps=chosen.steps if steps is None else steps,
        temperature=chosen.temperature if temperature is None else temperature,
    )


def _three(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--rgb: {text!r} is not three bands counted from 1, such as 1,2,3")
    red, green, blue = (int(part) for part in parts)
    return red, green, blue


def _facts(weights: str, sha256: str, *data: Path) -> dict[str, Any]:
    return {
        "weights": Path(bare_href(weights)).name,
        "sha256": sha256,
        "data": ", ".join(path.name for path in data),
        "versions": f"difffusr {version('difffusr')}, torch {torch.__version__}",
    }


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _show(found: Evaluation, out: Path) -> None:
    for table in found.tables:
        console.print(to_terminal(table))
    if "calibration" in found.extra:
        figures = found.extra["calibration"]
        console.print(
            f"calibration over {figures['samples']} samples: where they spread least the error is "
            f"{figures['rmse'][0]:.4f}, where most {figures['rmse'][-1]:.4f} (rank correlation "
            f"{figures['rank_correlation']:.2f})"
        )
    for title, margins in found.extra.get("against_the_best", {}).items():
        for rivals, margin in margins.items():
            console.print(
                f"{title}, best baseline {rivals}: ERGAS {margin['ergas_relative']:+.1%} ({margin['best_ergas']}), "
                f"SAM {margin['sam_difference']:+.3f}° ({margin['best_sam']})",
                soft_wrap=True,
                highlight=False,
            )
    as_json, page = write(found, out)
    console.print(f"written to {page} and {as_json.name}", soft_wrap=True, highlight=False)
