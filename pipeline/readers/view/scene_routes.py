"""The part of the web application that shows the scenes that a cube was made of."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, HTTPException
from fastapi.responses import Response

from difffusr.pipeline.readers.view.inputs import Inputs
from difffusr.pipeline.readers.view.levels import MappedCube, NothingThereError
from difffusr.pipeline.readers.view.routes import check_degrees, check_known, check_tile, range_given
from difffusr.pipeline.readers.view.scene_tiles import SceneTiles
from difffusr.pipeline.readers.view.tiles import Tiles

#: Most scenes of a view that are listed.
_LISTED: Final = 12


def serve_scenes(app: FastAPI, cube: MappedCube, tiles: Tiles, scene_tiles: SceneTiles, inputs: Inputs) -> None:
    """Answer which scenes a view is made of, whether one of them can be shown, and with its tiles."""

    @app.get("/scenes/{period}")
    def in_view(period: str, west: float, south: float, east: float, north: float) -> list[dict[str, Any]]:
        check_known("period", period, cube.periods)
        shares = tiles.sources_in(period, check_degrees(west, south, east, north))
        return [{**_named(number), "share": share} for number, share in list(shares.items())[:_LISTED]]

    @app.get("/scenes/{period}/{number}.json")
    def describe(period: str, number: int) -> dict[str, Any]:
        check_known("period", period, cube.periods)
        first, last = scene_tiles.zooms(inputs.scene(period, number))
        return {**_named(number), "zooms": [first, last]}

    @app.get("/scenes/{period}/{number}/{layer}/{z}/{x}/{y}.png")
    def tile(
        period: str, number: int, layer: str, z: int, x: int, y: int,
        low: float | None = None, high: float | None = None,
    ) -> Response:  # fmt: skip
        check_known("period", period, cube.periods)
        shown = check_known("layer", layer, cube.layers)
        if shown.variable != "reflectance":
            raise HTTPException(404, f"a scene has no {shown.title.lower()}; take a combination, an index or a band")
        check_tile(z, x, y)
        darkest, brightest = range_given(shown, low, high)
        try:
            picture = scene_tiles.tile(inputs.scene(period, number), shown, z, x, y, darkest, brightest)
        except NothingThereError:
            return Response(status_code=204)
        return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    def _named(number: int) -> dict[str, Any]:
        """A scene as the page names it."""
        facts = cube.scenes.get(number, {})
        return {
            "number": number,
            "id": str(facts.get("id", f"number {number}")),
            "day": str(facts.get("datetime", ""))[:10],
            "tile": str(facts.get("tile", "")),
        }
