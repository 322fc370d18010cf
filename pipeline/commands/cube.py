"""What `history`, `rollback`, `export`, `stac`, `view` and `report` say."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import Area, staging_beside
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.area import geometry_of
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.publish.door import history, rollback
from difffusr.pipeline.readers.export import USUAL, export_cogs, exports_of
from difffusr.pipeline.readers.report.collect import collect
from difffusr.pipeline.readers.report.page import to_page
from difffusr.pipeline.readers.stac import write_records
from difffusr.pipeline.storage.lease import Lease
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.storage.places import cube_staging_of, storage_of

console = Console()


#: Columns that the history takes.
_WIDTH = 120


def show_history(staging: Storage) -> None:
    """Every publication of a cube, the newest first.

    Args:
        staging: the cube's staging folder.

    Raises:
        StoreError: the history cannot be read.
    """
    seen = history(staging)
    if not seen:
        console.print("nothing was published yet")
        return
    title = "publications, the newest first; readers see ●"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "no.", "when (UTC)", "what", "period", "shards"):
        table.add_column(heading, justify="right" if heading in ("no.", "shards") else "left", no_wrap=True)
    table.add_column("where", no_wrap=True)
    for record in seen:
        what = {"period": "new period", "revision": "revision"}.get(record.kind, f"rollback to {record.restores}")
        where = "deleted" if record.gone else record.where
        when = record.when[:16].replace("T", " ")
        mark, written = "[green]●[/]" if record.current else "", f"{record.shards_written:,}"
        table.add_row(mark, str(record.number), when, what, record.period, written, where)
    # Nobody can read a snapshot's id in pieces: a narrow terminal wraps the lines as they are.
    Console(width=max(console.width, _WIDTH), soft_wrap=True).print(table)


def show_rollback(storage: Storage, staging: Storage, to: int | None) -> None:
    """Go back, and say to what.

    Raises:
        DifffusrError: there is nothing to go back to, or a run is at work.
    """
    lease = Lease.acquire(staging, "rollback", console.print)
    try:
        now = rollback(storage, staging, to)
    finally:
        lease.release()
    console.print(
        f"readers see publication {now.restores} again ({now.where}); `difffusr history` tells the rest",
        soft_wrap=True,
        markup=False,
    )


def cube_at(name: str) -> Storage:
    """Where a cube is: its URL, or that of a run's configuration.

    Raises:
        ConfigError: the configuration is not valid.
    """
    return storage_of(load_config(Path(name))) if name.endswith((".yaml", ".yml")) else Storage(name)


def show_export(
    cube: str,
    folder: str,
    *,
    area: str | None,
    box_degrees: str | None,
    periods: Sequence[str],
    variables: Sequence[str],
    overwrite: bool,
    scratch: Path | None,
) -> None:
    """Write COGs of a part of a cube, and say where.

    Args:
        cube: as `cube_at`.
        area: a file with polygons.
        box_degrees: west,south,east,north.
        periods: labels; all if there are none.
        variables: the usual ones if there are none.

    Raises:
        DifffusrError: as `export_cogs`; the area is not valid.
    """
    if scratch is not None and not scratch.is_dir():
        raise ConfigError(f"--scratch: {scratch} is no folder; choose one with room for the largest file")
    where = _chosen_area(area, box_degrees)
    opened = Cube(cube_at(cube))
    exports = exports_of(opened, where, periods, variables or USUAL)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("exporting", total=len(exports))
        written = export_cogs(
            opened,
            exports,
            Storage(folder),
            overwrite=overwrite,
            scratch=scratch,
            on_file=lambda export: progress.advance(task),
        )
    for url, export in zip(written, exports, strict=True):
        size = f"{export.window.width:,} × {export.window.height:,} px"
        console.print(f"{url}  {size}", soft_wrap=True, highlight=False, markup=False)


def show_records(cube: str, folder: str, name: str | None) -> None:
    """Write a cube's STAC documents, and say where.

    Args:
        cube: as `cube_at`.
        name: the collection's id, if another than the cube's name.

    Raises:
        DifffusrError: as `write_records`.
    """
    written = write_records(Cube(cube_at(cube)), Storage(folder), name)
    places = dict(zip((url.rsplit("/", 1)[-1] for url in written), written, strict=True))
    others = [places.pop(file) for file in ("collection.json", "items.parquet")]
    model = places.pop("model.json", None)
    items = f"{len(places):,} item{'s' if len(places) > 1 else ''}"
    told = [(others[0], f"collection of {items}"), (others[1], "the same items as stac-geoparquet")]
    for place, what in told + ([(model, "the model that made it")] if model else []):
        console.print(f"{place}  {what}", soft_wrap=True, highlight=False, markup=False)


def show_map(cube: str, *, host: str, port: int, browser: bool, maplibre: Path | None) -> None:
    """Serve the map of a cube, say where, and end when told to.

    Args:
        cube: as `cube_at`.
        browser: open it there.
        maplibre: see `pipeline.readers.view.maplibre.maplibre_files`.

    Raises:
        ConfigError: what the map needs is not installed.
        DifffusrError: as `pipeline.readers.view.serve.serve_map`.
    """
    try:
        from platformdirs import user_cache_path

        from difffusr.pipeline.readers.view.serve import serve_map
    except ModuleNotFoundError as error:
        raise ConfigError(f"view: needs the package {error.name}; pip install 'difffusr[view]'") from None

    def ready(url: str) -> None:
        console.print(f"{url}  (Ctrl-C ends it)", soft_wrap=True, highlight=False, markup=False)

    serve_map(
        cube_at(cube),
        host=host,
        port=port,
        maplibre=maplibre,
        cache=user_cache_path("difffusr"),
        on_ready=ready,
        browse=webbrowser.open if browser else None,
    )


def show_report(cube: str, path: Path, *, periods: Sequence[str], with_scenes: bool) -> None:
    """Write a page about a cube, and say where.

    Args:
        cube: as `cube_at`.
        path: of the page, replaced if it exists.
        periods: labels; the latest ones if there are none.
        with_scenes: whether the source scenes may be read.

    Raises:
        DifffusrError: as `collect`; the page cannot be written.
    """
    if not path.parent.is_dir():
        raise StoreError(f"{path}: cannot be written (no such folder); choose another --output")
    config = load_config(Path(cube)) if cube.endswith((".yaml", ".yml")) else None
    storage = Storage(cube) if config is None else storage_of(config)
    opened = Cube(storage)
    staging = Storage(staging_beside(cube)) if config is None else cube_staging_of(config)
    with console.status("looking at the cube …"):
        page = to_page(collect(opened, staging, config, periods, with_scenes=with_scenes)).encode()
    try:
        path.write_bytes(page)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}); choose another --output") from None
    console.print(f"{path}  {len(page) / 1e6:.2f} MB", soft_wrap=True, highlight=False, markup=False)


def _chosen_area(file: str | None, degrees: str | None) -> BaseGeometry | None:
    if file is not None and degrees is not None:
        raise ConfigError("--area and --bbox: give one of them")
    if degrees is not None:
        try:
            west, south, east, north = (float(part) for part in degrees.split(","))
            chosen = Area(bbox=(west, south, east, north))
        except ValueError:
            raise ConfigError(
                f"--bbox: found {degrees}, expected west,south,east,north in degrees, such as 6.0,49.5,6.2,49.7"
            ) from None
    elif file is not None:
        chosen = Area(geojson=file) if file.lower().endswith((".geojson", ".json")) else Area(file=file)
    else:
        return None
    geometry = geometry_of(chosen)
    assert not isinstance(geometry, list)
    return geometry
