"""The commands that write what others read: `export`, Cloud Optimized GeoTIFFs, and `stac`, a catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from difffusr.pipeline.commands.common import Verbose
from difffusr.pipeline.commands.cube import CubePath, place_of_cube, storage_at
from difffusr.pipeline.commands.terminal import console, errors, say, set_up_logging
from difffusr.pipeline.ground.errors import EXIT_INCOMPLETE, ConfigError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from difffusr.pipeline.cube import Cube
    from difffusr.pipeline.readers import Done, Export, How
    from difffusr.pipeline.storage import Storage


def export(
    cube: CubePath,
    cog: Annotated[
        str, typer.Option("--cog", metavar="FOLDER", help="Folder or URL for the files.", show_default=False)
    ],
    area: Annotated[
        str | None, typer.Option(metavar="FILE", help="Polygons (GeoJSON, GeoPackage, …); by default the whole cube.")
    ] = None,
    bbox: Annotated[str | None, typer.Option(metavar="W,S,E,N", help="A box in degrees instead of --area.")] = None,
    period: Annotated[
        list[str] | None, typer.Option(help="A period such as 2024-07; repeat for more. By default all.")
    ] = None,
    variable: Annotated[
        list[str] | None, typer.Option(help="A variable; repeat for more. By default reflectance and quality.")
    ] = None,
    crs: Annotated[
        str | None,
        typer.Option(
            "--crs", help="One mosaic of all zones in this CRS: EPSG:3035, WKT, a PROJ string.", rich_help_panel=None
        ),
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(help="With --crs: side of a pixel in its units; about 2.5 m by default.")
    ] = None,
    tile_km: Annotated[
        float | None,
        typer.Option(help="Tiles of so many kilometres on a grid of the CRS, and a VRT over them.", min=0.01),
    ] = None,
    stac: Annotated[
        bool | None,
        typer.Option(
            "--stac/--no-stac",
            help="Also write STAC items; always with --crs and --tile-km, which go on where they stopped.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    scratch: Annotated[Path | None, typer.Option(help="A folder with room for a draft of the largest file.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Tiles made at a time, on Ray; 1 does without. By default one a core.", min=1)
    ] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster's address; by default Ray starts here.")] = None,
    verbose: Verbose = False,
) -> None:
    """Write Cloud Optimized GeoTIFFs of an area, one for each zone, period and variable.

    Each covers the area's bounding box in its zone, with band names, wavelengths, scale and overviews, and opens in
    true colour; quality has its colours. With --crs zones become one mosaic. With --tile-km files are tiles that have
    the same name and pixels whatever the area; tiles that are whole and of the cube's present state are kept.
    """
    set_up_logging(verbose)
    if scratch is not None and not scratch.is_dir():
        raise ConfigError(f"--scratch: {scratch} is not a folder; choose one with room for the largest file")
    if stac is False and (crs is not None or tile_km is not None):
        raise ConfigError("--no-stac: --crs and --tile-km know by the items what is whole; leave it out")
    place, folder = place_of_cube(cube), storage_at(cog)
    from difffusr.pipeline.cube import Cube
    from difffusr.pipeline.readers import USUAL, How, exports_of

    where = chosen_area(area, bbox)
    opened = Cube(place)
    exports = exports_of(
        opened, where, period or (), variable or USUAL, crs=crs, resolution=resolution, tile_km=tile_km
    )
    if stac or crs is not None or tile_km is not None:
        _export_items(opened, exports, folder, How(overwrite, scratch, workers, address))
    else:
        _export_plain(opened, exports, folder, overwrite, scratch)


def _export_plain(
    cube: Cube, exports: Sequence[Export], folder: Storage, overwrite: bool, scratch: Path | None
) -> None:
    from difffusr.pipeline.readers import export_cogs

    with _Bar(len(exports)) as advance:
        written = export_cogs(cube, exports, folder, overwrite=overwrite, scratch=scratch, on_file=lambda _: advance())
    for url, made in zip(written, exports, strict=True):
        say(f"{url}  {made.window.width:,} × {made.window.height:,} px")


def _export_items(cube: Cube, exports: Sequence[Export], folder: Storage, how: How) -> None:
    """Raises typer.Exit if some could not be made."""
    from difffusr.pipeline.readers import export_items, name_of

    with _Bar(len({export.item for export in exports})) as advance:
        done = export_items(cube, exports, folder, f"{name_of(cube)}-cogs", how, lambda _: advance())
    sizes = {export.name: export.window for export in exports}
    for name in done.made:
        say(f"{folder.url}/{name}  {sizes[name].width:,} × {sizes[name].height:,} px")
    if done.kept:
        say(f"{len(done.kept):,} files kept: they are whole and of the cube's present state")
    for name in done.beside:
        say(f"{folder.url}/{name}")
    _show_failures(done)


def _show_failures(done: Done) -> None:
    for name, why in done.failures.items():
        errors.print(f"[bold red]error:[/] {_escaped(f'{name}: {why}')}", soft_wrap=True, highlight=False)
    if done.failures:
        count = len(done.failures)
        said = f"{count:,} {'tile' if count == 1 else 'tiles'} could not be made; run it again once that is mended"
        errors.print(said, soft_wrap=True, highlight=False)
        raise typer.Exit(EXIT_INCOMPLETE)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


class _Bar:
    """A progress bar that goes away."""

    def __init__(self, total: int) -> None:
        from rich.progress import Progress

        self._progress, self._total = Progress(console=console, transient=True), total

    def __enter__(self) -> Callable[[], None]:
        self._progress.start()
        task = self._progress.add_task("exporting", total=self._total)
        return lambda: self._progress.advance(task)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def stac(
    cube: CubePath,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Folder or URL for the documents.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option("--id", help="The collection's id; by default the last part of the cube's URL.")
    ] = None,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Write the cube's whole address also where documents lie beside it.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Describe a published cube as STAC: a collection, an item for each zone and period, and a stac-geoparquet.

    An item's footprint is where the cube has data; a small picture lies beside it. In a folder beside the cube, or
    below its folder, addresses are relative: both can be moved together. Run it again after each publication: documents
    are replaced.
    """
    set_up_logging(verbose)
    place, documents = place_of_cube(cube), storage_at(folder)
    from difffusr.pipeline.cube import Cube
    from difffusr.pipeline.readers import write_records

    written = write_records(Cube(place), documents, name, absolute=absolute)
    urls = {url.rsplit("/", 1)[-1]: url for url in written if not url.endswith(".png")}
    others = [urls.pop(file) for file in ("collection.json", "items.parquet")]
    model = urls.pop("model.json", None)
    items = f"{len(urls):,} item{'s' if len(urls) > 1 else ''}"
    told = [(others[0], f"collection of {items}"), (others[1], "the same items as stac-geoparquet")]
    for url, what in told + ([(model, "the model that made it")] if model else []):
        say(f"{url}  {what}")


def chosen_area(file: str | None, degrees: str | None) -> BaseGeometry | None:
    """The polygons of a file, or the box of west,south,east,north in degrees; None for neither."""
    from difffusr.pipeline.config import AreaSection
    from difffusr.pipeline.geo import geometry_of

    if file is not None and degrees is not None:
        raise ConfigError("--area and --bbox: give one of them")
    if degrees is not None:
        try:
            west, south, east, north = (float(part) for part in degrees.split(","))
            chosen = AreaSection(bbox=(west, south, east, north))
        except ValueError:
            raise ConfigError(
                f"--bbox: found {degrees}, expected west,south,east,north in degrees, such as 6.0,49.5,6.2,49.7"
            ) from None
    elif file is not None:
        is_geojson = file.lower().endswith((".geojson", ".json"))
        chosen = AreaSection(geojson=file) if is_geojson else AreaSection(file=file)
    else:
        return None
    geometry = geometry_of(chosen)
    assert not isinstance(geometry, list)
    return geometry
