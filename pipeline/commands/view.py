"""The command `view`: a map of a published cube, served or written as a page of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from difffusr.pipeline.commands.common import Verbose
from difffusr.pipeline.commands.cube import CubePath, config_of_cube, place_of_cube, storage_at
from difffusr.pipeline.commands.terminal import console, say, set_up_logging
from difffusr.pipeline.ground.errors import ConfigError

if TYPE_CHECKING:
    from difffusr.pipeline.storage import Storage


def view(
    cube: CubePath,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any free one.", min=0, max=65535)] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on. At any other address, everybody who reaches it sees the cube.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
    maplibre: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Folder or tarball of the npm package maplibre-gl, if npm is out of reach."),
    ] = None,
    basemap: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Tiles to draw below the cube, such as https://host/{z}/{x}/{y}.png."),
    ] = None,
    basemap_credit: Annotated[str | None, typer.Option(metavar="TEXT", help="Whose basemap it is.")] = None,
    static: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder or URL for a page that reads the cube by itself, from any web server; nothing is served.",
        ),
    ] = None,
    cube_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --static: where the page finds the cube, if not where it is now."),
    ] = None,
    openlayers: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --static: folder with the npm packages, if npm is out of reach."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Look at a published cube on a map in the browser. Needs [bold]pip install 'difffusr\\[view]'[/].

    2.5 m next to 10 m or to the input scenes, band combinations, indices, periods, quality, and the spectrum of any
    pixel. MapLibre GL JS is fetched once from the npm registry; the page itself loads nothing from other servers, but
    for a basemap.

    With --static, which needs no such packages, it becomes a page of 2 MB that reads the Zarr by itself, beside the
    cube or at another address, whose server has to allow it (CORS). OpenLayers is fetched once from the npm registry.
    """
    set_up_logging(verbose)
    if static is None and (cube_url is not None or openlayers is not None):
        raise ConfigError("--cube-url and --openlayers are for --static FOLDER; add it, or leave them out")
    if static is not None and (basemap is not None or basemap_credit is not None):
        raise ConfigError("--basemap and --basemap-credit are not for --static; leave them out")
    place = place_of_cube(cube)
    from platformdirs import user_cache_path

    cache = user_cache_path("difffusr")
    if static is not None:
        _write_page(place, storage_at(static), cube_url, openlayers, cache)
        return
    import webbrowser

    from difffusr.pipeline.config import staging_beside
    from difffusr.pipeline.readers.view import serve_map
    from difffusr.pipeline.storage import Storage, cube_staging_of

    config = config_of_cube(cube)

    serve_map(
        place,
        host=host,
        port=port,
        maplibre=maplibre,
        cache=cache,
        on_ready=lambda url: say(f"{url}  (Ctrl-C ends it)"),
        browse=None if no_browser else webbrowser.open,
        staging=Storage(staging_beside(cube)) if config is None else cube_staging_of(config),
        config=config,
        basemap=basemap,
        basemap_credit=basemap_credit,
    )


def _write_page(place: Storage, folder: Storage, cube_url: str | None, openlayers: Path | None, cache: Path) -> None:
    from difffusr.pipeline.cube import Cube
    from difffusr.pipeline.readers.static_map import write_static_map

    with console.status("writing the page …"):
        page, address = write_static_map(Cube(place), folder, cube_url=cube_url, openlayers=openlayers, cache=cache)
    say(f"{page}  reads the cube at {address}")
