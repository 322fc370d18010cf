"""The command `difffusr demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from difffusr.pipeline.commands.common import Verbose
from difffusr.pipeline.commands.run import result_table
from difffusr.pipeline.commands.terminal import StageBars, console, say, set_up_logging
from difffusr.pipeline.ground.errors import ConfigError


def demo(
    folder: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the world, the cube and the pictures.", metavar="FOLDER")
    ] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Seed of the generated world.", min=0)] = 7,
    two_orbits: Annotated[
        bool,
        typer.Option(
            "--two-orbits",
            help="Instead, a world seen on five dates from two orbits, as it is and balanced, in FOLDER/two-orbits.",
        ),
    ] = False,
    two_zones: Annotated[
        bool,
        typer.Option(
            "--two-zones",
            help="Instead, a world across a border of UTM zones, in both and in one CRS, in FOLDER/two-zones.",
        ),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Generate a small world, run the whole pipeline on it, and compare the result with the world's truth.

    Two overlapping tiles, two dates, one cloud; fields, roads, buildings, water. Takes some minutes on two cores.
    """
    set_up_logging(verbose, life=True)
    if two_orbits and two_zones:
        raise ConfigError("--two-orbits and --two-zones: give one of them")
    if two_orbits:
        _show_balancing(folder / "two-orbits", seed)
    if two_zones:
        _show_zones(folder / "two-zones", seed)
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


def _show_balancing(folder: Path, seed: int) -> None:
    from rich.table import Table

    from difffusr.kernels.bands import BANDS
    from difffusr.pipeline.commands.two_orbits import run_two_orbits
    from difffusr.pipeline.plan import SHOWN_SHIFTS

    with StageBars() as progress:
        outcome = run_two_orbits(folder, seed, progress)
    table = Table(title="what balance gains", title_justify="left")
    table.add_column("")
    for balance in outcome.mosaics:
        table.add_column(balance, justify="right")
    for label, figures, digits in (("difference to the truth", "off", 4), ("ratio across borders", "ratio", 2)):
        for band in SHOWN_SHIFTS:
            values = (getattr(mosaic, figures)[BANDS.index(band)] for mosaic in outcome.mosaics.values())
            table.add_row(f"{label}, {band}", *(f"{value:.{digits}f}" for value in values), end_section=band == "B08")
    console.print(table)
    before, after = outcome.apart
    say(f"scenes differ by {before:.4f} as seen from above, by {after:.4f} after gain and offset")
    for balance in outcome.mosaics:
        say(f"{balance}: `difffusr verify {folder / balance}.yaml`")
    raise typer.Exit(max(mosaic.result.exit_code for mosaic in outcome.mosaics.values()))


def _show_zones(folder: Path, seed: int) -> None:
    from rich.table import Table

    from difffusr.kernels.bands import BANDS
    from difffusr.pipeline.commands.two_zones import DERIVED, run_two_zones
    from difffusr.pipeline.plan import SHOWN_SHIFTS

    with StageBars() as progress:
        outcome = run_two_zones(folder, seed, progress)
    table = Table(title="the cube of one CRS against the truth", title_justify="left")
    for heading in ("", "mean difference", "ratio of means"):
        table.add_column(heading, justify="right" if heading else "left")
    for band, off, mean in zip(BANDS, outcome.off, outcome.mean, strict=False):
        if band in SHOWN_SHIFTS:
            table.add_row(band, f"{off:.4f}", f"{mean:.5f}")
    console.print(table)
    say(f"zones:   {outcome.zones.store.url}")
    say(f'one CRS: xarray.open_zarr("{folder / DERIVED}.zarr", group="3035/0")')
    raise typer.Exit(max(result.exit_code for result in outcome.results))
