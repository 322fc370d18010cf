"""The commands `difffusr plan` and `difffusr calibrate`: what a run will do, why, where, and what it will cost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from difffusr.pipeline.commands.balanced import show_balance
from difffusr.pipeline.commands.common import (
    AsJson,
    ConfigPath,
    OfPeriod,
    Verbose,
    json_place,
    load,
    table_of,
    write_file,
)
from difffusr.pipeline.commands.terminal import console, say
from difffusr.pipeline.ground.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from rich.table import Table

    from difffusr.pipeline.config import RunConfig
    from difffusr.pipeline.plan import Plan, StoredPlan
    from difffusr.pipeline.run.cost import Calibration, Estimate, GpuRate
    from difffusr.pipeline.scenes import Found

#: Scenes that are listed; the plan's scenes.parquet has all.
_LISTED = 8


def plan(
    config: ConfigPath,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Also print time, bytes, km²/s and cost, from costs.calibration.")
    ] = False,
    actors: Annotated[
        int | None, typer.Option("--actors", min=1, help="Estimate for a cluster with this many actors.")
    ] = None,
    gpus: Annotated[float | None, typer.Option("--gpus", min=0, help="GPUs of that cluster.")] = None,
    cpus: Annotated[int | None, typer.Option("--cpus", min=1, help="Cores of that cluster.")] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Compare with the plan on disk, say what changes and why; write nothing.")
    ] = False,
    map_path: Annotated[
        Path | None, typer.Option("--map", help="Draw the chips by date: a PNG and an HTML page of the same name.")
    ] = None,
    json_path: AsJson = None,
    period: OfPeriod = None,
    verbose: Verbose = False,
) -> None:
    """Show what a run would do, and write the plan as GeoParquet into the staging folder.

    Computes nothing. Open plan/chips.parquet in QGIS or geopandas to see the chips.
    """
    settings = load(config, verbose, period)
    from difffusr.pipeline.storage import staging_of

    with json_place(json_path) as write:
        calibration = _calibration(settings) if estimate else None
        cluster = (actors, gpus, cpus)
        rates = _measured_rates(settings, cluster) if estimate and calibration is None else []
        before = _plan_on_disk(settings) if diff else None
        made = _planned(settings, write_it=not diff)
        told: dict[str, Any] = {"plan": {key: value for key, value in made.manifest.items() if key != "config"}}
        console.print(_plan_table(settings, made))
        balanced = show_balance(made, _LISTED)
        if balanced is not None:
            told["balance"] = balanced
        if before is not None:
            told["diff"] = _show_difference(before, made)
        if calibration is not None:
            told["estimate"] = _show_estimate(settings, made, calibration, *cluster)
        if rates:
            told["super_resolution"] = _show_by_gpu(settings, made, rates)
        if map_path is not None:
            _draw(settings, made, map_path)
        write(told)
        if before is None:
            say(f"plan written to {staging_of(settings).url}/plan")


def calibrate(
    config: ConfigPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the calibration.")] = Path(
        "calibration.json"
    ),
    batches: Annotated[
        str | None, typer.Option("--batches", help="Batch sizes to measure, such as 1,2,4; by default the config's.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Measure this machine: seconds a chip, bytes read and written, with the run's own models, source and store.

    [bold]plan --estimate[/] and [bold]budget[/] read the file that this writes.
    """
    settings = load(config, verbose)
    sizes = _batch_sizes(batches)
    from difffusr.pipeline.plan import decide
    from difffusr.pipeline.run.cost import calibrate, calibration_rows

    made = decide(settings)
    with console.status("calibrating …"):
        found = calibrate(settings, sizes, plan=made)
    write_file(output, found.to_json(), "--output")
    console.print(table_of("calibration", _escaped(calibration_rows(found))))
    say(f"written to {output}; name it in costs.calibration")


def _batch_sizes(text: str | None) -> tuple[int, ...]:
    """`1,2,4` as numbers; none for None. Raises ConfigError for anything else."""
    if text is None:
        return ()
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"--batches: found {text!r}, expected numbers from 1 such as 1,2,4")
    return sizes


def _calibration(config: RunConfig) -> Calibration | None:
    if config.costs.calibration is None:
        return None
    from difffusr.pipeline.run.cost import load_calibration

    return load_calibration(config.costs.calibration)


def _measured_rates(config: RunConfig, cluster: tuple[float | None, ...]) -> list[GpuRate]:
    """What was measured on kinds of GPUs for the configuration's networks. ConfigError where nothing was, or where more
    is asked for than it says."""
    from difffusr.pipeline.plan import sampling_of
    from difffusr.pipeline.run.cost import rates_for

    calibrate = "`difffusr calibrate` measures this machine and writes the file"
    if any(number is not None for number in cluster):
        raise ConfigError(f"--actors, --gpus, --cpus: costs.calibration is not set; {calibrate}")
    rates = rates_for(config)
    if not rates:
        sampling = sampling_of(config)
        asked = f"{config.model.preset} networks, {sampling.solver} with {sampling.steps} steps, {sampling.precision}"
        raise ConfigError(
            f"--estimate: costs.calibration is not set, and no kind of GPU was measured with {asked} and chips of "
            f"{config.grid.chip_px} px; {calibrate}"
        )
    return rates


def _plan_on_disk(config: RunConfig) -> StoredPlan:
    from difffusr.pipeline.plan import read_plan
    from difffusr.pipeline.storage import staging_of

    staging = staging_of(config)
    if not staging.exists("plan/manifest.json"):
        raise StoreError(f"{staging.url}: there is no plan to compare with; `difffusr plan` without --diff makes it")
    return read_plan(staging)


def _planned(config: RunConfig, write_it: bool) -> Plan:
    """The plan. What was left out of it is shown also where there is none."""
    from difffusr.pipeline.plan import decide, plan_run

    if write_it:
        return plan_run(config, on_found=_show_left_out)
    return decide(config, _show_left_out)


def _show_left_out(found: Found) -> None:
    """Show the items that were not understood, by reason."""
    reasons = found.left_out.to_json()
    rows = [(f"{one['items']:,}", f"{one['reason']}: {', '.join(one['named'])}") for one in reasons]
    if rows:
        console.print(table_of("left out by reason", _escaped(rows)))


def _show_difference(before: StoredPlan, made: Plan) -> dict[str, Any]:
    from difffusr.pipeline.plan import compare, difference_rows

    difference = compare(before, made)
    console.print(table_of("against the plan on disk", _escaped(difference_rows(difference))))
    return difference.to_dict()


def _show_estimate(
    config: RunConfig,
    made: Plan,
    calibration: Calibration,
    actors: int | None,
    gpus: float | None,
    cpus: int | None,
) -> dict[str, Any]:
    """Show what the chips that are not staged yet will cost on the configuration's cluster, or on the one asked for."""
    from difffusr.pipeline.run.cost import cluster_of, estimate, estimate_rows

    todo = estimate(made, config, calibration, cluster_of(config, actors, gpus, cpus), _staged(config, made))
    console.print(table_of("estimate", _escaped(estimate_rows(todo))))
    _warn_of_budget(config, todo)
    return todo.to_dict()


def _show_by_gpu(config: RunConfig, made: Plan, rates: list[GpuRate]) -> dict[str, Any]:
    """Show what the super-resolution of chips that are not staged yet takes on kinds of GPUs."""
    from difffusr.pipeline.run.cost import by_gpu, by_gpu_notes, by_gpu_tables

    found = by_gpu(made, config, rates, _staged(config, made))
    for title, rows in by_gpu_tables(found):
        table = table_of(escape(title), [])
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    console.print(escape(by_gpu_notes(found)), highlight=False)
    return found.to_dict()


def _staged(config: RunConfig, made: Plan) -> int:
    from difffusr.pipeline.chips import done_chips
    from difffusr.pipeline.storage import staging_of

    return len(done_chips(staging_of(config)) & set(made.chips.object_names()))


def _warn_of_budget(config: RunConfig, todo: Estimate) -> None:
    if config.budget is not None and todo.total > config.budget:
        currency = escape(config.costs.currency)
        console.print(f"[bold red]over the budget[/] of {config.budget:,.2f} {currency}: `run` will refuse to start")


def _draw(config: RunConfig, made: Plan, path: Path) -> None:
    """Write a picture, and a page of the same name."""
    from difffusr.pipeline.geo import area_geometry, grid_of
    from difffusr.pipeline.plan.pictures import draw_map, write_page

    given = area_geometry(config)
    area = None if isinstance(given, list) else given
    picture, page = path.with_suffix(".png"), path.with_suffix(".html")
    draw_map(made, grid_of(config), area, picture)
    write_page(made, grid_of(config), area, page)
    say(f"map: {picture} and {page}")


def _escaped(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(escape(label), escape(value)) for label, value in rows]


def _plan_table(config: RunConfig, made: Plan) -> Table:
    from difffusr.pipeline.geo import grid_of

    area = len(made.chips) * (grid_of(config).stride_px / 100) ** 2
    rows = [("scenes", f"{len(made.scenes):,}")]
    rows += [("", f"{scene.id}  {scene.cloud_cover:.0f} % cloud") for scene in made.scenes[:_LISTED]]
    if len(made.scenes) > _LISTED:
        rows.append(("", f"… and {len(made.scenes) - _LISTED:,} more"))
    rows += [
        ("zones", ", ".join(f"EPSG:{epsg}" for epsg in made.zones())),
        ("chips", f"{len(made.chips):,} (about {area:,.0f} km²)"),
        ("shards", f"{len(made.shards):,}"),
        ("covered", f"{made.manifest['covered_share']:.1%}, clear {made.manifest['clear_share']:.1%}"),
        ("borders", f"{made.manifest['borders']:,} sides of chips between dates ({config.scenes.policy})"),
    ]
    return table_of(f"{config.name} · {config.period.label}", rows)
