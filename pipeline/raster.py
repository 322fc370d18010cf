"""Windows of a scene's rasters on the lattice, and one clear error for whatever can be wrong with a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError, RasterioIOError
from rasterio.windows import Window

from pipeline.catalog import Asset, Scene
from pipeline.errors import ReadError
from pipeline.grid import PixelWindow
from pipeline.storage import first_line

#: GDAL set for cloud-optimised files over a network: no directory listings, merged ranges, retries on what passes.
GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_TIMEOUT": "60",
    "VSI_CACHE": "TRUE",
    "GDAL_NUM_THREADS": "1",
}

#: Classes of the scene classification (Sen2Cor) that show the ground: dark features, vegetation, bare soil, water,
#: unclassified, snow or ice. The rest are no data, saturated, cloud shadow and clouds.
CLEAR_CLASSES = (2, 4, 5, 6, 7, 11)


def is_clear(classes: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Which pixels of a scene classification show the ground: any shape, bool."""
    return np.isin(classes, CLEAR_CLASSES)


def read_window(scene: Scene, band: str, window: PixelWindow) -> NDArray[np.uint16]:
    """The pixels of a band inside a window of its zone, on the band's native grid.

    Args:
        band: a band name, or "SCL".
        window: in absolute 2.5 m pixels; its edges lie on the band's grid.

    Returns:
        (h, w) uint16 raw DN as in the file; 0 outside the file and where it says nodata.

    Raises:
        ReadError: the file is missing, damaged, in another CRS or off the lattice.
    """
    asset = scene.scl if band == "SCL" else scene.assets[band]
    assert asset is not None, f"{scene.id} has no {band}"
    left, _, _, top = window.bounds_m()
    size = window.height * 2.5 / asset.gsd_m, window.width * 2.5 / asset.gsd_m
    height, width = round(size[0]), round(size[1])
    out: NDArray[np.uint16] = np.zeros((height, width), np.uint16)
    with opened(scene, band, asset) as file:
        col = round((left - file.transform.c) / asset.gsd_m)
        row = round((file.transform.f - top) / asset.gsd_m)
        r0, r1 = max(row, 0), min(row + height, file.height)
        c0, c1 = max(col, 0), min(col + width, file.width)
        if r0 >= r1 or c0 >= c1:
            return out
        try:
            data = file.read(1, window=Window(c0, r0, c1 - c0, r1 - r0))
        except (RasterioError, ValueError) as error:
            raise _damaged(scene, band, asset, error) from None
        if file.nodata not in (None, 0):
            data = np.where(data == file.nodata, 0, data)
        out[r0 - row : r1 - row, c0 - col : c1 - col] = data
    return out


def read_overview(scene: Scene, band: str, step_m: int) -> tuple[NDArray[np.uint16], int, int]:
    """A whole file thinned out to `step_m` (nearest pixel; the file's overviews are used where it has them).

    Returns:
        (h, w) uint16 raw DN, and the lattice position of its top left corner as (row, col) in steps of `step_m`
        counted from the zone's origin.

    Raises:
        ReadError: as `read_window`.
    """
    asset = scene.scl if band == "SCL" else scene.assets[band]
    assert asset is not None, f"{scene.id} has no {band}"
    with opened(scene, band, asset) as file:
        height, width = (int(n * asset.gsd_m // step_m) for n in (file.height, file.width))
        whole = Window(0, 0, width * step_m / asset.gsd_m, height * step_m / asset.gsd_m)
        try:
            data = file.read(1, window=whole, out_shape=(height, width), resampling=Resampling.nearest)
        except (RasterioError, ValueError) as error:
            raise _damaged(scene, band, asset, error) from None
        return data.astype(np.uint16), round(-file.transform.f / step_m), round(file.transform.c / step_m)


@contextmanager
def opened(scene: Scene, band: str, asset: Asset) -> Iterator[rasterio.DatasetReader]:
    """Open a scene's file and check that it lies where the item says.

    Raises:
        ReadError: the file is missing, damaged, in another CRS or off the lattice.
    """
    with rasterio.Env(**GDAL_OPTIONS):
        try:
            file = rasterio.open(asset.href)
        except (RasterioIOError, CRSError) as error:
            raise ReadError(
                f"scene {scene.id}, {band}: {shown(asset.href)} cannot be opened ({first_line(error)}); "
                "check that the file exists and is whole, or leave the scene out"
            ) from None
        with file:
            _check_position(scene, band, asset, file)
            yield file


def shown(href: str) -> str:
    """An asset's address without its query, which may hold a signature."""
    return href.split("?")[0]


def _check_position(scene: Scene, band: str, asset: Asset, file: rasterio.DatasetReader) -> None:
    epsg = file.crs.to_epsg() if file.crs else None
    if epsg != scene.epsg:
        found = f"EPSG:{epsg}" if epsg else (file.crs.to_string() if file.crs else "none")
        raise ReadError(
            f"scene {scene.id}, {band}: {shown(asset.href)} has CRS {found}, its item says EPSG:{scene.epsg}; "
            "correct the item or leave the scene out"
        )
    t = file.transform
    if (t.a, t.b, t.d, t.e) != (asset.gsd_m, 0, 0, -asset.gsd_m) or t.c % asset.gsd_m or t.f % asset.gsd_m:
        raise ReadError(
            f"scene {scene.id}, {band}: {shown(asset.href)} has the transform {tuple(t)[:6]}, expected north-up pixels "
            f"of {asset.gsd_m} m on the zone's lattice; only products on their native UTM grid can be used"
        )


def _damaged(scene: Scene, band: str, asset: Asset, error: BaseException) -> ReadError:
    return ReadError(
        f"scene {scene.id}, {band}: {shown(asset.href)} is damaged or incomplete ({first_line(error)}); "
        "fetch it again, or leave the scene out"
    )
