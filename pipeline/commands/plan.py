"""The commands `difffusr plan` and `difffusr calibrate`: what a run will do, why, where, and what it will cost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from difffusr.pipeline.chips.staging import done_chips
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.geo.area import area_geometry
from difffusr.pipeline.geo.grid import grid_of
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.plan.decision import decide, plan_run
from difffusr.pipeline.plan.files import read_plan
from difffusr.pipeline.plan.tables import Plan, StoredPlan
from difffusr.pipeline.storage.places import staging_of

if TYPE_CHECKING:
    from difffusr.pipeline.run.cost.calibration import Calibration
    from difffusr.pipeline.run.cost.figures import Cluster, Estimate


console = Console()


def show_plan(
    config: RunConfig,
    *,
    with_estimate: bool = False,
    cluster: Cluster | None = None,
    with_diff: bool = False,
    map_path: Path | None = None,
    json_path: Path | None = None,
) -> None:
    """Plan a run and show what was asked for; the plan is written below the staging folder.

    With `with_diff` the plan on disk is compared with the new one and stays as it is.

    Raises:
        DifffusrError: the run cannot be planned, or what was asked for cannot be said of it.
    """
    told: dict[str, Any] = {}
    calibration = _calibration(config) if with_estimate else None
    before = _plan_on_disk(config) if with_diff else None
    made = decide(config) if with_diff else plan_run(config)
    told["plan"] = {key: value for key, value in made.manifest.items() if key != "config"}
    console.print(_plan_table(config, made))
    if before is not None:
        from difffusr.pipeline.plan.diff import compare, difference_rows

        difference = compare(before, made)
        told["diff"] = difference.to_dict()
        console.print(_rows("against the plan on disk", difference_rows(difference)))
    if calibration is not None:
        from difffusr.pipeline.run.cost.estimates import cluster_of, estimate
        from difffusr.pipeline.run.cost.words import estimate_rows

        todo = estimate(made, config, calibration, cluster or cluster_of(config), _done(config, made))
        told["estimate"] = todo.to_dict()
        console.print(_rows("estimate", estimate_rows(todo)))
        _say_budget(config, todo)
    if map_path is not None:
        _draw(config, made, map_path)
    if json_path is not None:
        _write_json(json_path, told)
    if before is None:
        console.print(f"plan written to {escape(staging_of(config).url)}/plan", soft_wrap=True, highlight=False)


def show_calibration(config: RunConfig, output: Path, batches: tuple[int, ...]) -> None:
    """Measure this machine with a configuration's models, source and store, and write what was found.

    Raises:
        DifffusrError: something that the measurement needs cannot be used.
    """
    from difffusr.pipeline.run.cost.measure import calibrate
    from difffusr.pipeline.run.cost.words import calibration_rows

    made = decide(config)
    with console.status("calibrating …"):
        found = calibrate(config, batches, plan=made)
    try:
        output.write_text(found.to_json())
    except OSError as error:
        raise StoreError(f"{output}: cannot be written ({error.strerror or error}); choose another --output") from None
    console.print(_rows("calibration", calibration_rows(found)))
    console.print(f"written to {output}; name it in costs.calibration", soft_wrap=True, highlight=False, markup=False)


def batches_of(text: str | None) -> tuple[int, ...]:
    """`1,2,4` as numbers. Raises ConfigError for anything else."""
    if text is None:
        return ()
    try:
        batches = tuple(int(part) for part in text.split(","))
    except ValueError:
        batches = ()
    if not batches or min(batches) < 1:
        raise ConfigError(f"--batches: found {text!r}, expected numbers from 1 such as 1,2,4")
    return batches


def _calibration(config: RunConfig) -> Calibration:
    from difffusr.pipeline.run.cost.calibration import load_calibration

    if config.costs.calibration is None:
        raise ConfigError(
            "--estimate: costs.calibration is not set; `difffusr calibrate` measures this machine and writes the file"
        )
    return load_calibration(config.costs.calibration)


def _plan_on_disk(config: RunConfig) -> StoredPlan:
    staging = staging_of(config)
    if not staging.exists("plan/manifest.json"):
        raise StoreError(f"{staging.url}: there is no plan to compare with; `difffusr plan` without --diff makes it")
    return read_plan(staging)


def _done(config: RunConfig, made: Plan) -> int:
    """Chips of a plan that are staged already."""
    return len(done_chips(staging_of(config)) & set(made.chips.object_names()))


def _say_budget(config: RunConfig, todo: Estimate) -> None:
    if config.budget is not None and todo.total > config.budget:
        currency = escape(config.costs.currency)
        console.print(f"[bold red]over the budget[/] of {config.budget:,.2f} {currency}: `run` will refuse to start")


def _draw(config: RunConfig, made: Plan, path: Path) -> None:
    """A picture, and beside it a page of the same name."""
    from difffusr.pipeline.plan.pictures.page import write_page
    from difffusr.pipeline.plan.pictures.picture import draw_map

    given = area_geometry(config)
    area = None if isinstance(given, list) else given
    picture, page = path.with_suffix(".png"), path.with_suffix(".html")
    draw_map(made, grid_of(config), area, picture)
    write_page(made, grid_of(config), area, page)
    console.print(f"map: {picture} and {page}", soft_wrap=True, highlight=False, markup=False)


def _write_json(path: Path, told: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(told, indent=1, sort_keys=True))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}); choose another --json") from None


def _rows(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for label, value in rows:
        table.add_row(escape(label), escape(value))
    return table


def _plan_table(config: RunConfig, made: Plan) -> Table:
    grid = grid_of(config)
    table = Table(title=f"{config.name} · {config.period.label}", title_justify="left", show_header=False)
    table.add_row("scenes", f"{len(made.scenes):,}")
    for scene in made.scenes[:8]:
        table.add_row("", f"{scene.id}  {scene.cloud_cover:.0f} % cloud")
    if len(made.scenes) > 8:
        table.add_row("", f"… and {len(made.scenes) - 8:,} more")
    table.add_row("zones", ", ".join(f"EPSG:{epsg}" for epsg in made.zones()))
    area = len(made.chips) * (grid.stride_px / 100) ** 2
    table.add_row("chips", f"{len(made.chips):,} (about {area:,.0f} km²)")
    table.add_row("shards", f"{len(made.shards):,}")
    table.add_row("covered", f"{made.manifest['covered_share']:.1%}, clear {made.manifest['clear_share']:.1%}")
    table.add_row("borders", f"{made.manifest['borders']:,} sides of chips between dates ({config.scenes.policy})")
    return table


Estimating = Annotated[bool, typer.Option("--estimate", help="Also say time, bytes and cost, by costs.calibration.")]


Actors = Annotated[int | None, typer.Option("--actors", min=1, help="Estimate for a cluster of so many actors.")]


Gpus = Annotated[float | None, typer.Option("--gpus", min=0, help="GPUs of that cluster.")]


Cpus = Annotated[int | None, typer.Option("--cpus", min=1, help="Cores of that cluster.")]


Diff = Annotated[bool, typer.Option("--diff", help="Say what changes against the plan on disk, and why; keep that.")]


MapPath = Annotated[Path | None, typer.Option("--map", help="Draw chips by date: a PNG, and an HTML page beside it.")]


JsonPath = Annotated[Path | None, typer.Option("--json", help="Also write all of it as JSON to this file.")]


Output = Annotated[Path, typer.Option("--output", "-o", help="File for the calibration.")]


Batches = Annotated[str | None, typer.Option("--batches", help="Batches to measure, such as 1,2,4; else the config's.")]


def chosen_cluster(config: RunConfig, actors: int | None, gpus: float | None, cpus: int | None) -> Cluster:
    """The configuration's cluster with what the command line says otherwise."""
    from difffusr.pipeline.run.cost.estimates import cluster_of

    return cluster_of(config, actors, gpus, cpus)
