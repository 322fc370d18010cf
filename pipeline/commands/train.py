"""The commands `difffusr train sr` and `difffusr train fusion`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from difffusr.pipeline.commands.common import Verbose
from difffusr.pipeline.commands.terminal import console, errors, say, set_up_logging

if TYPE_CHECKING:
    from difffusr.pipeline.weights.training import Training

train_app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Train the networks on your own imagery, described by a YAML file (pipeline/config/examples/train-*.yaml).\n\n"
        "Start an interrupted training again: it continues. Needs [bold]pip install 'difffusr\\[train]'[/]."
    ),
)

SettingsPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="YAML file that describes the training.", show_default=False)
]

DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Folder that relative data paths start from; replaces root.")
]

OutFolder = Annotated[Path | None, typer.Option("--out", help="Folder of the training; replaces out.")]

Steps = Annotated[int | None, typer.Option("--steps", help="Number of steps in total; replaces steps.", min=1)]


@train_app.command("sr")
def train_sr(
    config: SettingsPath,
    data: DataFolder = None,
    out: OutFolder = None,
    steps: Steps = None,
    verbose: Verbose = False,
) -> None:
    """Train the super-resolution of red, green and blue (stage 1) on imagery finer than Sentinel-2."""
    set_up_logging(verbose)
    from difffusr.pipeline.weights.training import SuperResolutionSettings, load_settings

    _train(load_settings(SuperResolutionSettings, config, _given(root=data, out=out, steps=steps)))


@train_app.command("fusion")
def train_fusion(
    config: SettingsPath,
    data: DataFolder = None,
    out: OutFolder = None,
    steps: Steps = None,
    verbose: Verbose = False,
) -> None:
    """Train the fusion of all 12 bands on Sentinel-2 itself, made coarser."""
    set_up_logging(verbose)
    from difffusr.pipeline.weights.training import FusionSettings, load_settings

    _train(load_settings(FusionSettings, config, _given(root=data, out=out, steps=steps)))


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _train(settings: Training) -> None:
    from difffusr.pipeline.weights.training import run_training

    with _StepBar() as progress:
        ended = run_training(settings, progress)
    if ended.weights is None:
        errors.print(f"stopped at step {ended.step}; run the same command to continue", highlight=False)
        raise typer.Exit(130)
    where = f"curves: {ended.out}/losses.png · samples: {ended.out}/samples · tensorboard --logdir {ended.out}"
    say(f"{ended.step:,} steps · weights: {ended.weights} · {where}")


class _StepBar:
    """The steps of a training as a progress bar with the losses next to it: a `training.launch.Watcher`."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("step"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("starting …", total=None)

    def __enter__(self) -> _StepBar:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def at(self, step: int, steps: int, losses: dict[str, float]) -> None:
        """See `training.launch.Watcher`."""
        shown = [f"{name} {value:.3f}" for name, value in losses.items() if name not in ("norm", "rate", "seconds")]
        said = " · ".join(shown if console.width >= 120 else shown[:1]) or "starting …"
        self._bar.update(self._task, completed=step, total=steps, description=said)
