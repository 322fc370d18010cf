"""A small cube whose scenes are there: files of which every pixel is another, in a catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mapped_cubes import EPSG, LAT, LON, WINDOW
from numpy.typing import NDArray
from pyproj import Transformer
from random_cubes import random_cube

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.scenes.synthetic.archive import write_catalog
from difffusr.pipeline.scenes.synthetic.sensor import RenderedScene
from difffusr.pipeline.storage.objects import Storage

#: The MGRS tile of the place.
TILE = "48QWC"

#: Metres a side of a scene, whole pixels of 60 m, with the place in the middle.
SIDE_M = 2040

#: Days of January's scenes and of February's.
DAYS = {1: ("2023-01-05", "2023-01-15"), 2: ("2023-02-05", "2023-02-15")}


def made_scene(day: str, offset: int = 0, hole: bool = True) -> RenderedScene:
    """A scene of noise; its upper left 300 m have no data, so that not all of the cube is in it."""
    rng = np.random.default_rng(int(day.replace("-", "")))
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{EPSG}", always_xy=True).transform(LON, LAT)
    left, top = (round((at + sign * SIDE_M / 2) / 60) * 60 for at, sign in ((x, -1), (y, 1)))
    bands: dict[str, NDArray[np.uint16]] = {}
    for band in BANDS:
        side = SIDE_M // GSD_M[band]
        bands[band] = (rng.integers(500, 5000, (side, side)) + offset).astype(np.uint16)
        if hole:
            bands[band][: 900 // GSD_M[band], : 900 // GSD_M[band]] = 0
    scl = np.full((SIDE_M // 20, SIDE_M // 20), 4, np.uint8)
    return RenderedScene(TILE, day, "A", offset, bands, scl, left, top, EPSG, None)


def scened_cube(folder: Path, offset: int = 1000) -> tuple[Storage, dict[str, RenderedScene]]:
    """The cube, its archive in `archive` beside it, and the scenes by id."""
    scenes = {scene.id: scene for days in DAYS.values() for day in days for scene in [made_scene(day, offset)]}
    catalog = write_catalog(list(scenes.values()), folder / "archive")
    place = Storage(str(folder / "cube.zarr"))
    random_cube(
        place, {EPSG: WINDOW}, scenes=lambda month: [facts_of(scenes, day) for day in DAYS[month]],
        provenance={"config": {"source": {"static_catalog": str(catalog)}}}, ledger=True,
    )  # fmt: skip
    return place, scenes


def facts_of(scenes: dict[str, RenderedScene], day: str) -> dict[str, Any]:
    """What the cube says of a scene, as runs write it."""
    scene = next(one for one in scenes.values() if one.date == day)
    return {"id": scene.id, "datetime": f"{day}T10:36:29+00:00", "tile": scene.tile, "baseline": "05.09"}


def config_of(catalog: str, url: str = "/nowhere/cube.zarr") -> RunConfig:
    """A run's configuration that searches a catalogue."""
    return RunConfig.model_validate(
        {
            "name": "test",
            "area": {"tiles": [TILE]},
            "period": "2023-01",
            "source": {"static_catalog": catalog},
            "store": {"url": url},
        }
    )
