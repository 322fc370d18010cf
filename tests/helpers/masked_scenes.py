"""Small scenes of all bands whose clouds a test draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from small_rasters import scene_of

from difffusr.kernels.bands import GSD_M
from difffusr.pipeline.geo.grid import PixelWindow, origin_m
from difffusr.pipeline.scenes.item import Asset, Scene

#: The scenes' upper left corner in EPSG:32648, on the 60 m lattice, and their side.
LEFT, TOP, SIDE_M = 600_000, 1_200_000, 3600


def window(east_m: int = 0, south_m: int = 0, side_m: int = SIDE_M) -> PixelWindow:
    """A square by its place in the scenes, in metres from their corner."""
    row = round((origin_m(32648) - TOP + south_m) / 2.5)
    return PixelWindow(row, round((LEFT + east_m) / 2.5), round(side_m / 2.5), round(side_m / 2.5))


def clouded(
    folder: Path,
    scl: NDArray[Any] | None = None,
    cld: NDArray[Any] | None = None,
    bands: Mapping[str, NDArray[Any]] | None = None,
    *,
    cld_m: int = 20,
) -> Scene:
    """A scene whose classification and cloud probability are these, (h, w) at 20 m and `cld_m`; bands that are not
    given have DN 3000."""
    folder.mkdir(exist_ok=True)
    given = dict(bands or {})
    assets = {
        name: _written(folder / f"{name}.tif", given.get(name, np.full((SIDE_M // gsd,) * 2, 3000)), gsd, "uint16")
        for name, gsd in GSD_M.items()
    }
    return replace(
        scene_of("", folder.name),
        assets=assets,
        scl=None if scl is None else _written(folder / "SCL.tif", scl, 20, "uint8"),
        cloud=None if cld is None else _written(folder / "CLD.tif", cld, cld_m, "uint8"),
    )


def _written(path: Path, pixels: NDArray[Any], gsd: int, dtype: str) -> Asset:
    transform = rasterio.Affine(gsd, 0, LEFT, 0, -gsd, TOP)
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=1, dtype=dtype,
        crs="EPSG:32648", transform=transform,
    ) as file:  # fmt: skip
        file.write(pixels.astype(dtype), 1)
    return Asset(str(path), gsd, 0, 0, pixels.shape, tuple(transform)[:6], "GTiff")
