"""Scenes of one small band."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import rasterio

from difffusr.pipeline.geo.globe import tile_footprint
from difffusr.pipeline.geo.grid import PixelWindow, origin_m
from difffusr.pipeline.scenes.item import Asset, Scene


def raster(path: Path, value: int) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=60, width=60, count=1, dtype="uint16", crs="EPSG:32648",
        transform=rasterio.Affine(10, 0, 600_000, 0, -10, 1_200_000),
    ) as file:  # fmt: skip
        file.write(np.full((60, 60), value, np.uint16), 1)
    return path


def scene_of(href: str, name: str = "S2A_48QUE", epsg: int = 32648) -> Scene:
    asset = Asset(href, 10, 0, 0, None, None, "GTiff")
    return Scene(
        id=name, collection="c", datetime=dt.datetime(2021, 6, 1, tzinfo=dt.UTC), tile="48QUE", epsg=epsg,
        baseline="03.00", cloud_cover=0.0, provider="other", footprint=tile_footprint("48QUE"), assets={"B04": asset},
        scl=None, product_uri=None, datatake=None, created=None, updated=None, sequence=None,
    )  # fmt: skip


#: The 600 m square of the rasters above, in absolute pixels of 2.5 m.
SQUARE = PixelWindow(round((origin_m(32648) - 1_200_000) / 2.5), round(600_000 / 2.5), 240, 240)
