"""The command `difffusr continent`: one cube in one CRS from all UTM zones of a cube."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from difffusr.pipeline.commands.common import AsJson, Verbose, check_folder, json_place, table_of, write_file
from difffusr.pipeline.commands.cube import CubePath
from difffusr.pipeline.commands.extras import check_store
from difffusr.pipeline.commands.run import show_result, show_stopped
from difffusr.pipeline.commands.terminal import StageBars, console, set_up_logging
from difffusr.pipeline.ground.errors import ConfigError

if TYPE_CHECKING:
    from difffusr.pipeline.config import RunConfig


def continent(
    cube: CubePath,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="URL of the cube to write.", show_default=False)],
    crs: Annotated[str, typer.Option("--crs", help="Its CRS: EPSG:3035, WKT, a PROJ string.", show_default=False)],
    resolution: Annotated[
        float | None, typer.Option(help="Side of a pixel in the CRS's units (m, degrees); about 2.5 m by default.")
    ] = None,
    area: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Polygons (GeoJSON, GeoPackage, …); the whole cube by default.")
    ] = None,
    bbox: Annotated[str | None, typer.Option(metavar="W,S,E,N", help="A box in degrees instead of --area.")] = None,
    period: Annotated[
        list[str] | None, typer.Option(help="A period such as 2024-07; repeat for more. By default all.")
    ] = None,
    shard_px: Annotated[int, typer.Option(help="Side of a shard in pixels.", min=1)] = 2048,
    chunk_px: Annotated[int, typer.Option(help="Side of a chunk in pixels.", min=1)] = 256,
    source_staging: Annotated[
        str | None, typer.Option(metavar="URL", help="Staging folder of CUBE, where it is not beside it.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it would take and cost, from a few shards; write nothing.")
    ] = False,
    cpu_hour: Annotated[float, typer.Option(help="Price of a core for an hour, for --estimate.", min=0)] = 0.0,
    cores: Annotated[int | None, typer.Option(help="Cores of the cluster, for --estimate.", min=1)] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster's address; by default Ray starts here.")] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="Also write this as a YAML file for run, status, verify and rollback."
        ),
    ] = None,
    json_path: AsJson = None,
    verbose: Verbose = False,
) -> None:
    """Bring all UTM zones of a cube into one CRS: one array for a country or a continent.

    Every pixel is warped once, zones go smoothly over into each other, and the result is a cube like any other:
    overviews, history, rollback. Start it again after an interruption: it continues. Start it again after the zones'
    cube was published: only shards whose zones have changed are made anew.
    """
    set_up_logging(verbose, life=True)
    if keep is not None:
        check_folder(keep, "--config")
    asked = _asked(cube, target, crs, resolution, area, bbox, (shard_px, chunk_px), source_staging, address)
    for key, name in (("source", "cube"), ("store", "url")):
        check_store(asked[key][name])
    settings = [_settings({**asked, "period": label}) for label in period or _periods_of(asked)]
    if estimate:
        with json_place(json_path) as write:
            write({"periods": [_estimated(one, cpu_hour, cores) for one in settings]})
        return
    if keep is not None:
        import yaml

        write_file(keep, yaml.safe_dump(_kept(asked, settings[-1], keep), sort_keys=False), "--config")
    with json_place(json_path) as write:
        documents: list[dict[str, Any]] = []
        try:
            code = _made(settings, documents, _again(keep))
        finally:
            write({"periods": documents})
    raise typer.Exit(code)


def _estimated(settings: RunConfig, cpu_hour: float, cores: int | None) -> dict[str, Any]:
    """Show what a period would take."""
    import os

    import numpy as np

    from difffusr.pipeline.assemble.continent import plan_continent
    from difffusr.pipeline.run import with_source
    from difffusr.pipeline.run.cost import estimate_zones

    costs = settings.costs.model_copy(
        update={"prices": settings.costs.prices.model_copy(update={"cpu_hour": cpu_hour})}
    )
    asked = with_source(settings.model_copy(update={"costs": costs}))
    with console.status("making a few shards …"):
        plan = plan_continent(asked)
        made = estimate_zones(asked, plan, cores or os.cpu_count() or 1, np.ones(len(plan.shards), bool))
    console.print(table_of(f"{asked.name} · {asked.period.label}", made.rows()))
    return {"period": asked.period.label, **made.to_dict()}


def _made(settings: Sequence[RunConfig], documents: list[dict[str, Any]], again: str) -> int:
    """Make one period after the other; returns the worst exit code."""
    from difffusr.pipeline.run import Stopped, execute

    code = 0
    for one in settings:
        try:
            with StageBars() as progress:
                result = execute(one, progress)
        except Stopped as stopped:
            show_stopped(again, str(stopped))
            break
        documents.append({"period": one.period.label, "state": result.state, **result.counts()})
        show_result(one, result, again)
        code = max(code, result.exit_code)
        if result.stopped:
            break
    return code


def _asked(
    cube: str,
    target: str,
    crs: str,
    resolution: float | None,
    area: Path | None,
    bbox: str | None,
    sizes: tuple[int, int],
    source_staging: str | None,
    address: str | None,
) -> dict[str, Any]:
    """The configuration that the options stand for, without its period."""
    from difffusr.pipeline.config import EVERYWHERE, load_config

    options: dict[str, Any] = {}
    if cube.endswith((".yaml", ".yml")):
        made_by = load_config(Path(cube))
        cube, options = made_by.store.url, dict(made_by.store.storage_options)
        source_staging = source_staging or made_by.store.staging
    if area is not None and bbox is not None:
        raise ConfigError("--area and --bbox: give one of them")
    if bbox is not None:
        where: dict[str, Any] = {"bbox": _corners(bbox)}
    elif area is not None:
        where = {"geojson" if area.suffix.lower() in (".geojson", ".json") else "file": str(area)}
    else:
        where = {"bbox": list(EVERYWHERE)}
    grid = {"crs": crs, **({} if resolution is None else {"resolution": resolution})}
    return {
        "name": _name_of(target),
        "area": where,
        "source": {"cube": cube, **({} if source_staging is None else {"staging": source_staging})},
        "grid": {**grid, "shard_px": sizes[0], "chunk_px": sizes[1]},
        "store": {"url": target, **({"storage_options": options} if options else {})},
        **({} if address is None else {"compute": {"address": address}}),
    }


def _kept(asked: dict[str, Any], settings: RunConfig, file: Path) -> dict[str, Any]:
    """What a file has to say that lies in a folder of its own: its relative paths are relative to that."""
    document = {**asked, "period": settings.period.label}
    if file.resolve().parent == Path.cwd().resolve():
        return document
    whole = settings.model_dump(mode="json", include={"area", "source", "store"})
    for section, key in (
        ("area", "geojson"),
        ("area", "file"),
        ("source", "cube"),
        ("source", "staging"),
        ("store", "url"),
    ):
        if key in asked[section]:
            document[section] = {**document[section], key: whole[section][key]}
    return document


def _settings(document: dict[str, Any]) -> RunConfig:
    from difffusr.pipeline.config import configured

    return configured(document)


def _corners(text: str) -> list[float]:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--bbox: found {text}, expected west,south,east,north in degrees, such as 6.0,49.5,6.2,49.7"
        ) from None
    return [west, south, east, north]


def _name_of(target: str) -> str:
    """A run's name for a cube: the last part of its URL, in letters that names may have."""
    last = target.rstrip("/").rpartition("/")[2].removesuffix(".zarr").removesuffix(".icechunk")
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in last)
    return kept.lstrip("._-")[:100] or "continent"


def _periods_of(asked: dict[str, Any]) -> list[str]:
    """All periods of the zones' cube, the earliest first."""
    from difffusr.pipeline.cube import period_labels
    from difffusr.pipeline.storage import Storage

    labels = period_labels(Storage(asked["source"]["cube"], asked["store"].get("storage_options", {})))
    return sorted(labels, key=lambda label: labels[label])


def _again(keep: Path | None) -> str:
    return "the same command" if keep is None else f"difffusr run {keep}"
