"""Asking the map of a cube: tiles as arrays, and where their pixels lie in the cube."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer
from random_cubes import window_around
from starlette.testclient import TestClient

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.server import map_app
from difffusr.pipeline.storage.objects import Storage

EPSG = 32648
LON, LAT = 105.02, 16.04
WINDOW = window_around(EPSG, LON, LAT)
SQUARE = window_around(EPSG, LON, LAT, (2, 2))
#: On both sides of 102° E, where two zones meet: each reaches over the border.
BORDER = {32647: window_around(32647, 101.999, LAT, (2, 4)), 32648: window_around(32648, 102.001, LAT, (2, 4))}


def client_of(storage: Storage, files: dict[str, Path] | None = None) -> TestClient:
    """Whoever asks the map of a cube."""
    return TestClient(map_app(map_cube(Cube(storage)), files or {}))


def tile_over(lon: float, lat: float, zoom: int) -> tuple[int, int, int]:
    """Zoom, column and row of the XYZ tile over a place."""
    y = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2
    return zoom, int((lon + 180) / 360 * 2**zoom), int(y * 2**zoom)


def drawn(
    client: TestClient, layer: str, zxy: tuple[int, int, int], period: str = "2023-02", **query: Any
) -> NDArray[Any]:
    """(512, 512, 4) of a tile."""
    answer = client.get(f"/tiles/{layer}/{period}/{'/'.join(map(str, zxy))}.png", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.array(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def places(
    zxy: tuple[int, int, int], size: int = 1, epsg: int = EPSG, window: Any = WINDOW
) -> tuple[NDArray[Any], ...]:
    """Of every pixel of a tile the cube's row and column in pixels of 2.5 m times `size`, and whether it lies well
    inside of that pixel: where it lies near a border, either neighbour may be drawn."""
    zoom, col, row = zxy
    side = 40_075_016.685578488 / 2**zoom
    x = -20_037_508.342789244 + col * side + (np.arange(512) + 0.5) * side / 512
    y = 20_037_508.342789244 - row * side - (np.arange(512) + 0.5) * side / 512
    east, north = Transformer.from_crs("EPSG:3857", f"EPSG:{epsg}", always_xy=True).transform(*np.meshgrid(x, y))
    left, _, _, top = window.bounds_m(epsg)
    r, c = (top - north) / (2.5 * size), (east - left) / (2.5 * size)
    inside = (abs(r % 1 - 0.5) < 0.3) & (abs(c % 1 - 0.5) < 0.3)
    reaches = (r >= 0) & (c >= 0) & (r < window.height / size) & (c < window.width / size)
    return (
        np.clip(r, 0, window.height // size - 1).astype(int),
        np.clip(c, 0, window.width // size - 1).astype(int),
        inside & reaches,
    )
