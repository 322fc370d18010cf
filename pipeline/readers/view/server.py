"""The web application of a map: page, MapLibre's files, description of the cube, tiles, spectra, ranges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from difffusr.kernels.bands import BANDS, GSD_M, WAVELENGTH_NM
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.readers.view.basemap import Basemap
from difffusr.pipeline.readers.view.files import page_files
from difffusr.pipeline.readers.view.inputs import Inputs, OutOfReachError, SceneGoneError
from difffusr.pipeline.readers.view.kept import Kept
from difffusr.pipeline.readers.view.layers import Layer, describe_layer, label_colours
from difffusr.pipeline.readers.view.levels import MappedCube, NothingThereError, TooWideError, pixels_of_10_m
from difffusr.pipeline.readers.view.routes import check_degrees, check_known, check_tile, range_given
from difffusr.pipeline.readers.view.scene_routes import serve_scenes
from difffusr.pipeline.readers.view.scene_tiles import SceneTiles
from difffusr.pipeline.readers.view.spectrum import spectrum
from difffusr.pipeline.readers.view.tiles import TILE_PX, Style, Tiles

_TYPES: Final = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript",
    ".svg": "image/svg+xml", ".txt": "text/plain",
}  # fmt: skip

Averaged = Annotated[bool, Query(description="Averaged to 10 m.")]


def map_app(
    cube: MappedCube,
    maplibre: Mapping[str, Path],
    hosts: Sequence[str] = ("*",),
    *,
    inputs: Inputs | None = None,
    basemap: Basemap | None = None,
) -> FastAPI:
    """The application.

    Args:
        cube: to show.
        maplibre: MapLibre's files by name.
        hosts: host names it answers to; others are refused, so that no web site can read the cube by pointing its own
            name at this machine (DNS rebinding).
        inputs: finds the scenes that the cube was made of; without, they cannot be shown.
        basemap: to draw below the cube.
    """
    app = FastAPI(title="difffusr view", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    _answer_errors(app, _headers(basemap))
    _serve_files(app, page_files(), maplibre)
    kept = Kept()
    tiles = Tiles(cube, kept)
    why_not = "the scenes are out of reach" if inputs is None else inputs.why_not
    description = {
        **describe_cube(cube, tiles),
        "scenes": {"possible": why_not is None, "why": why_not},
        "basemap": None if basemap is None else {"url": basemap.url, "credit": basemap.credit},
    }
    _serve_cube(app, cube, tiles, kept, description)
    if inputs is not None:
        serve_scenes(app, cube, tiles, SceneTiles(kept), inputs)
    return app


def _headers(basemap: Basemap | None) -> dict[str, str]:
    """Of every answer. Only this server's own files may load, and a basemap's tiles. MapLibre decodes tiles through
    blobs and has its icons in its style sheet."""
    also = "" if basemap is None else f" {basemap.origin}"
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:{also}; "
            f"connect-src 'self'{also}; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        # Servers of tiles may want to know which page they are for: they are told this machine's name and port.
        "Referrer-Policy": "no-referrer" if basemap is None else "strict-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def _serve_files(app: FastAPI, page: Mapping[str, Path], maplibre: Mapping[str, Path]) -> None:
    def file(files: Mapping[str, Path], name: str) -> FileResponse:
        if name not in files:
            raise HTTPException(404, f"there is no {name}")
        return FileResponse(
            files[name], media_type=_TYPES.get(files[name].suffix), headers={"Cache-Control": "no-cache"}
        )

    @app.get("/")
    def index() -> FileResponse:
        return file(page, "index.html")

    @app.get("/page/{name}")
    def page_file(name: str) -> FileResponse:
        return file(page, name)

    @app.get("/maplibre/{name}")
    def maplibre_file(name: str) -> FileResponse:
        return file(maplibre, name)


def _serve_cube(app: FastAPI, cube: MappedCube, tiles: Tiles, kept: Kept, description: Mapping[str, Any]) -> None:
    def style_of(layer: str, period: str, averaged: bool) -> Style:
        check_known("period", period, cube.periods)
        return Style(check_known("layer", layer, cube.layers), period, averaged)

    @app.get("/cube.json")
    def describe() -> JSONResponse:
        return JSONResponse(description, headers={"Cache-Control": "no-store"})

    @app.get("/tiles/{layer}/{period}/{z}/{x}/{y}.png")
    def tile(
        layer: str, period: str, z: int, x: int, y: int,
        low: float | None = None, high: float | None = None, averaged: Averaged = False,
    ) -> Response:  # fmt: skip
        style = style_of(layer, period, averaged)
        check_tile(z, x, y)
        darkest, brightest = range_given(style.layer, low, high)
        try:
            picture = tiles.tile(style, z, x, y, darkest, brightest)
        except NothingThereError:
            return Response(status_code=204)
        return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @app.get("/range/{layer}/{period}")
    def range_of(
        layer: str, period: str, west: float, south: float, east: float, north: float, averaged: Averaged = False
    ) -> dict[str, float]:
        degrees = check_degrees(west, south, east, north)
        low, high = tiles.range_of(style_of(layer, period, averaged), degrees)
        return {"low": low, "high": high}

    @app.get("/spectrum")
    def at(
        lon: Annotated[float, Query(ge=-540, le=540)], lat: Annotated[float, Query(ge=-90, le=90)]
    ) -> dict[str, Any]:
        with kept.turn():
            return spectrum(cube, lon, lat)


def describe_cube(cube: MappedCube, tiles: Tiles) -> dict[str, Any]:
    """What the page needs to know about the cube before it draws."""
    first, last = tiles.zooms
    finest = min(zone.levels[0].gsd_m for zone in cube.zones.values())
    return {
        "name": cube.url.rstrip("/").rsplit("/", 1)[-1],
        "credit": cube.credit,
        "version": _version(cube),
        "tile_px": TILE_PX,
        "zooms": [first, last],
        "sides": [f"{finest:.3g} m", f"{finest * pixels_of_10_m(finest):.3g} m"],
        "zones": [
            {
                "epsg": zone.epsg,
                "name": zone.name,
                "utm": zone.is_utm,
                "extent": list(zone.extent),
                "gsd_m": [level.gsd_m for level in zone.levels],
            }
            for zone in cube.zones.values()
        ],
        "periods": [
            {"label": label, "start": start.isoformat(), "end": end.isoformat()}
            for label, (start, end) in cube.periods.items()
        ],
        "bands": [{"name": band, "nm": WAVELENGTH_NM[band], "gsd_m": GSD_M[band]} for band in BANDS],
        "layers": [_describe_layer(layer, cube) for layer in cube.layers.values()],
    }


def _describe_layer(layer: Layer, cube: MappedCube) -> dict[str, Any]:
    labels = label_colours(layer, cube.flags, cube.scenes) if layer.kind == "labels" else None
    return {**describe_layer(layer, labels), "scene": layer.variable == "reflectance"}


def _version(cube: MappedCube) -> str:
    """Differs between cubes and between states of a cube, so that cached tiles of one are not used for another."""
    states = [
        [zone.epsg, level.gsd_m, level.data.attrs.get("difffusr:lineage"), level.data.attrs.get("difffusr:periods")]
        for zone in cube.zones.values()
        for level in zone.levels
    ]
    return hashlib.sha256(json.dumps([cube.url, states], default=str).encode()).hexdigest()[:12]


def _answer_errors(app: FastAPI, headers_of_all: Mapping[str, str]) -> None:
    """Errors as one line of text, and the same headers on every answer."""

    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(headers_of_all)
        return response

    @app.exception_handler(NothingThereError)
    @app.exception_handler(TooWideError)
    async def nothing(_: Request, error: LookupError) -> Response:
        return PlainTextResponse(f"{error.args[0]}\n", 404)

    @app.exception_handler(SceneGoneError)
    async def gone(_: Request, error: SceneGoneError) -> Response:
        return PlainTextResponse(f"{error.args[0]}\n", 410)

    @app.exception_handler(StoreError)
    @app.exception_handler(OutOfReachError)
    async def unreadable(_: Request, error: Exception) -> Response:
        return PlainTextResponse(f"{error.args[0]}\n", 502)

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: StarletteHTTPException) -> Response:
        return PlainTextResponse(f"{error.detail}\n", error.status_code)

    @app.exception_handler(RequestValidationError)
    async def misunderstood(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return PlainTextResponse(f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}\n", 422)
