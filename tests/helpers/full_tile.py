"""A scene of a whole tile with files of their real size: real clouds of 120 m, enlarged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from planned_areas import SEEN, config
from rasterio.shutil import copy as copy_raster

from difffusr.pipeline.scenes.item import Asset, Scene
from difffusr.pipeline.scenes.search import find_scenes


def full_tile(folder: Path) -> Scene:
    """33TWM of 18 August 2023, 40 % cloud: B02, B03, B04, B08, SCL as they were at 120 m; B11 and B12 are parts of B08,
    the cloud probability is made of the classes. COGs with overviews, as Earth Search has them."""
    small = next(one for one in find_scenes(config(folder), bands=SEEN) if "33TWM_20230818" in one.id)
    assert small.scl is not None
    pixels = {name: _read(asset) for name, asset in {**small.assets, "SCL": small.scl}.items()}
    pixels |= {"B11": pixels["B08"] // 2, "B12": pixels["B08"] // 3}
    percent = np.array([0, 0, 5, 10, 2, 8, 3, 20, 55, 90, 30, 15], np.uint8)
    pixels["CLD"] = percent.take(pixels["SCL"], mode="clip")
    gsd = {**dict.fromkeys(SEEN, 10), **dict.fromkeys(("B11", "B12", "SCL", "CLD"), 20)}
    made = {name: _written(folder / f"{name}.tif", band, small, gsd[name]) for name, band in pixels.items()}
    bands = {name: asset for name, asset in made.items() if name.startswith("B")}
    return replace(small, assets=bands, scl=made["SCL"], cloud=made["CLD"])


def _read(asset: Asset) -> NDArray[np.unsignedinteger]:
    with rasterio.open(asset.href) as file:
        found: NDArray[np.unsignedinteger] = file.read(1)
    return found


def _written(path: Path, pixels: NDArray[np.unsignedinteger], scene: Scene, gsd: int) -> Asset:
    assert scene.scl is not None
    assert scene.scl.transform is not None
    _, _, left, _, _, top = scene.scl.transform
    transform = rasterio.Affine(gsd, 0, left, 0, -gsd, top)
    fine = pixels.repeat(120 // gsd, axis=0).repeat(120 // gsd, axis=1)
    plain = path.with_suffix(".plain.tif")
    with rasterio.open(
        plain, "w", driver="GTiff", height=fine.shape[0], width=fine.shape[1], count=1, dtype=fine.dtype, nodata=0,
        crs=f"EPSG:{scene.epsg}", transform=transform,
    ) as file:  # fmt: skip
        file.write(fine, 1)
    kind = "nearest" if fine.dtype == np.uint8 else "average"
    copy_raster(plain, path, driver="COG", compress="DEFLATE", blocksize=512, overview_resampling=kind)
    plain.unlink()
    return Asset(str(path), gsd, 0, 0, fine.shape, tuple(transform)[:6], "GTiff")
