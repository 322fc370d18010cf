"""The command `difffusr demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from difffusr.pipeline.commands.common import Verbose
from difffusr.pipeline.commands.run import result_table
from difffusr.pipeline.commands.terminal import StageBars, console, say, set_up_logging


def demo(
    folder: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the world, the cube and the pictures.")
    ] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Seed of the generated world.", min=0)] = 7,
    verbose: Verbose = False,
) -> None:
    """Generate a small world, run the whole pipeline on it, and compare the result with the world's truth.

    Two overlapping tiles, two dates, one cloud; fields, roads, buildings, water. Takes some minutes on two cores.
    """
    set_up_logging(verbose, life=True)
    from rich.table import Table

    from difffusr.pipeline.commands.demonstration import run_demo

    with StageBars() as progress:
        outcome = run_demo(folder, seed, progress)
    console.print(result_table(outcome.config, outcome.result))
    table = Table(title="against the truth at 2.5 m", title_justify="left")
    for heading in ("", "PSNR RGB dB ↑", "PSNR 12 bands dB ↑", "SAM ° ↓", "ERGAS ↓"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, scores in outcome.scores.items():
        table.add_row(name, f"{scores.psnr_rgb:.2f}", f"{scores.psnr:.2f}", f"{scores.sam:.2f}", f"{scores.ergas:.2f}")
    console.print(table)
    say(f"picture: {outcome.picture}")
    say(f'cube:    xarray.open_zarr("{outcome.config.store.url}", group="{outcome.group}")')
    raise typer.Exit(outcome.result.exit_code)
