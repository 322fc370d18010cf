"""The commands `difffusr evaluate sr` and `difffusr evaluate fusion`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from difffusr.pipeline.commands.terminal import console, errors
from difffusr.pipeline.ground.errors import ConfigError

if TYPE_CHECKING:
    from difffusr.pipeline.weights.evaluation import Evaluation

evaluate_app = typer.Typer(
    no_args_is_help=True,
    help="Measure how good weights are on your own data: a table, JSON, and a page of crops.",
)

Weights = Annotated[str, typer.Option(help="Path or URL of weights; [bold]small[/] are those that ship.")]

Out = Annotated[Path, typer.Option(help="Folder for evaluation.json and index.html.")]

HeldOut = Annotated[
    list[str], typer.Option("--only", help="Glob of names to evaluate on; repeat for more. By default all.")
]


@evaluate_app.command("sr")
def evaluate_sr(
    data: Annotated[Path, typer.Argument(help="Folder of GeoTIFF, PNG or JPEG images finer than 10 m, or one image.")],
    weights: Weights = "small",
    out: Out = Path("evaluation-sr"),
    gsd: Annotated[float | None, typer.Option(help="Metres a pixel, for images that do not state it.")] = None,
    rgb: Annotated[str, typer.Option(help="Bands that are red, green, blue, counted from 1.")] = "1,2,3",
    full_scale: Annotated[float | None, typer.Option(help="Value that means a reflectance of 1.")] = None,
    only: HeldOut = [],  # noqa: B006 (typer makes a new one)
    degradation: Annotated[str, typer.Option(help="How inputs are made: sensor or gaussian.")] = "sensor",
    size: Annotated[int, typer.Option(min=64, help="Side of a window in 2.5 m pixels, a multiple of 8.")] = 256,
    windows: Annotated[int, typer.Option(min=1, help="Most windows of an image.")] = 4,
    sampler: Annotated[str | None, typer.Option(help="reference or fast; by default the weights' own.")] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Sampler steps; by default the sampler's own.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="Spread of the initial noise.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Samples with different noise, for the calibration.")] = 8,
    opensr: Annotated[
        str | None,
        typer.Option(
            help="Also OpenSR-test's scores (an extra), by distance: nd, lpips or clip; lpips adds LPIPS itself."
        ),
    ] = None,
) -> None:
    """Compare stage 1 with nearest, bicubic and the context encoder alone.

    Images are brought to 2.5 m, darkened to Sentinel-2's radiometry if they are 8-bit pictures, made four times coarser
    as Sentinel-2's sensor would, super-resolved, and compared with the originals.
    """
    if degradation not in ("sensor", "gaussian"):
        raise ConfigError(f"--degradation: {degradation!r} is neither 'sensor' nor 'gaussian'")
    if size % 8:
        raise ConfigError(f"--size: {size} is not a multiple of 8")
    from difffusr.pipeline.weights.evaluation import ImageOptions, SamplerChoice, judge_super_resolution

    with _progress("windows") as progress:
        found = judge_super_resolution(
            data,
            weights,
            images=ImageOptions(gsd, _three(rgb), full_scale, tuple(only)),
            degradation="sensor" if degradation == "sensor" else "gaussian",
            size=size,
            windows=windows,
            sampler=SamplerChoice(sampler, steps, temperature),
            samples=samples,
            opensr=opensr,
            progress=progress,
        )
    _show(found, out)


@evaluate_app.command("fusion")
def evaluate_fusion(
    data: Annotated[list[Path], typer.Argument(help="Folders of 12-band scenes on native grids.")],
    weights: Weights = "small",
    out: Out = Path("evaluation-fusion"),
    only: HeldOut = [],  # noqa: B006
) -> None:
    """Compare stage 2 with classical pansharpening, under Wald's protocol.

    Scenes are folders with one GeoTIFF a band (B01.tif … B12.tif) or the stacks im10.tif, im20.tif, im60.tif. They are
    made coarser by 4, 8 and 24, so that the native bands are the truth.
    """
    from difffusr.pipeline.weights.evaluation import judge_fusion

    with _progress("groups of bands") as progress:
        found = judge_fusion(data, weights, only, progress=progress)
    _show(found, out)


def _three(text: str) -> tuple[int, int, int]:
    """`1,2,3` as numbers. Raises ConfigError for anything else."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--rgb: {text!r} is not three bands counted from 1, such as 1,2,3")
    red, green, blue = (int(part) for part in parts)
    return red, green, blue


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _show(found: Evaluation, out: Path) -> None:
    from difffusr.pipeline.weights.evaluation import to_terminal, write

    for table in found.tables:
        for part in to_terminal(table, console.width):
            console.print(part)
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
