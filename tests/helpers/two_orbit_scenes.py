"""A small world seen from two orbits: its scenes as an archive has them, and what of two of them can be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from difffusr.kernels.bands import GSD_M
from difffusr.pipeline.scenes.granule import Granule, read_granule
from difffusr.pipeline.scenes.synthetic.two_orbits import TwoOrbits

#: Height and width in metres.
SMALL_M = (1200, 1800)


def scene_id(world: TwoOrbits, date: str, tile: str) -> str:
    """The scene of a tile on an ISO date."""
    return next(name for name in world.conditions if tile in name and date.replace("-", "") in name)


def home_of(world: TwoOrbits, scene: str) -> Path:
    """The folder with a scene's files."""
    return world.catalog.parent / "items" / scene


def item_of(world: TwoOrbits, scene: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home_of(world, scene) / f"{scene}.json").read_text())
    return found


def granule_of(world: TwoOrbits, scene: str) -> Granule:
    return read_granule((home_of(world, scene) / "granule_metadata.xml").read_bytes(), scene)


def bounds_of(world: TwoOrbits, scene: str) -> tuple[float, float, float, float]:
    """West, south, east, north in UTM metres."""
    with rasterio.open(home_of(world, scene) / "SCL.tif") as file:
        return tuple(file.bounds)


def reflectance(world: TwoOrbits, scene: str, band: str) -> NDArray[np.float64]:
    """(h, w) on the band's own grid, without the offset."""
    with rasterio.open(home_of(world, scene) / f"{band}.tif") as file:
        pixels: NDArray[np.float64] = file.read(1).astype(np.float64)
    applied = item_of(world, scene)["properties"]["earthsearch:boa_offset_applied"]
    return (pixels - (0 if applied else 1000)) / 10_000


def classes(world: TwoOrbits, scene: str) -> NDArray[np.uint8]:
    """(h, w) at 20 m."""
    with rasterio.open(home_of(world, scene) / "SCL.tif") as file:
        found: NDArray[np.uint8] = file.read(1)
    return found


def ground(world: TwoOrbits, scene: str, gsd_m: int) -> NDArray[np.bool_]:
    """(h, w) pixels of 10 or 20 m that are clear to the classification, and none of it beside cloud or shadow."""
    from scipy.ndimage import binary_dilation

    scl = classes(world, scene)
    clear = ~binary_dilation(np.isin(scl, (3, 8, 9, 10)), iterations=4)
    return clear.repeat(20 // gsd_m, 0).repeat(20 // gsd_m, 1)


def nadir_factor(world: TwoOrbits, scene: str, band: str) -> NDArray[np.float32]:
    """(h, w) what the granule's metadata say a band is to be multiplied by."""
    return granule_of(world, scene).field(band).on(bounds_of(world, scene), GSD_M[band])
