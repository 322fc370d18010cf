"""Windows of a scene's rasters on the lattice, and one clear error for whatever can be wrong with a file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError, RasterioIOError
from rasterio.windows import Window

from pipeline.access import advice, gdal_options, readable
from pipeline.catalog import Asset, Scene
from pipeline.errors import ReadError
from pipeline.grid import LATTICE_M, PixelWindow, origin_m
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

#: DN or classes as a file stores them: uint16 or uint8.
Pixels = NDArray[np.unsignedinteger[Any]]

#: Classes of the scene classification (Sen2Cor) that show the ground: dark features, vegetation, bare soil, water,
#: unclassified, snow or ice. The rest are no data, saturated, cloud shadow and clouds.
CLEAR_CLASSES = (2, 4, 5, 6, 7, 11)


def is_clear(classes: Pixels) -> NDArray[np.bool_]:
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
    left, _, _, top = window.bounds_m(scene.epsg)
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


def read_overview(scene: Scene, band: str, step_m: int) -> tuple[Pixels, int, int]:
    """A whole file sampled on the zone's lattice at `step_m` metres; the file's overviews are used where it has them.

    Every cell that overlaps the file gets the pixel nearest its centre. Cells that the file's edge cuts take their
    neighbour's pixel, so that no strip of ground is lost.

    Returns:
        (h, w) raw DN of the file's own type, 0 where it says nodata, and the lattice position of the first cell as
        (row, col) in steps counted from the zone's origin, rows southwards.

    Raises:
        ReadError: as `read_window`.
    """
    asset = scene.scl if band == "SCL" else scene.assets[band]
    assert asset is not None, f"{scene.id} has no {band}"
    with opened(scene, band, asset) as file:
        rows = _Axis.of(origin_m(scene.epsg) - file.transform.f, file.height, asset.gsd_m, step_m)
        cols = _Axis.of(file.transform.c, file.width, asset.gsd_m, step_m)
        try:
            data = _sample(file, rows, cols)
        except (RasterioError, ValueError) as error:
            raise _damaged(scene, band, asset, error) from None
        if file.nodata not in (None, 0):
            data[data == file.nodata] = 0
        return data, rows.first, cols.first


class _Axis(NamedTuple):
    """A file's extent along one axis, in lattice cells: those that overlap it, and the whole ones among them.

    `first` and `cells` are of all of them; `before` and `after` are the numbers of cut ones at either end; `offset_px`
    is where the first whole cell starts in the file, `step_px` is a cell's size, both in the file's pixels.
    """

    first: int
    cells: int
    before: int
    after: int
    offset_px: float
    step_px: float
    size_px: int

    @classmethod
    def of(cls, start_m: float, size_px: int, gsd_m: float, step_m: int) -> _Axis:
        stop_m = start_m + size_px * gsd_m
        first, stop = math.floor(start_m / step_m), math.ceil(stop_m / step_m)
        inner_first, inner_stop = math.ceil(start_m / step_m), math.floor(stop_m / step_m)
        offset_px = (inner_first * step_m - start_m) / gsd_m
        return cls(first, stop - first, inner_first - first, stop - inner_stop, offset_px, step_m / gsd_m, size_px)

    @property
    def whole(self) -> int:
        """Number of cells that lie in the file from edge to edge; not positive where the file is smaller than one."""
        return self.cells - self.before - self.after

    @property
    def nearest_px(self) -> NDArray[np.intp]:
        """(cells,) the pixel nearest each cell's centre."""
        centres = self.offset_px + (np.arange(self.cells) - self.before + 0.5) * self.step_px
        return np.clip(np.floor(centres).astype(np.intp), 0, self.size_px - 1)


def _sample(file: rasterio.DatasetReader, rows: _Axis, cols: _Axis) -> Pixels:
    """(rows.cells, cols.cells) pixels of the file's first band, of its own type."""
    if rows.whole < 1 or cols.whole < 1:  # a strip narrower than a cell or two
        narrow: Pixels = file.read(1)[np.ix_(rows.nearest_px, cols.nearest_px)]
        return narrow
    inside = Window(cols.offset_px, rows.offset_px, cols.whole * cols.step_px, rows.whole * rows.step_px)
    data = file.read(1, window=inside, out_shape=(rows.whole, cols.whole), resampling=Resampling.nearest)
    return np.pad(data, ((rows.before, rows.after), (cols.before, cols.after)), mode="edge")


@contextmanager
def opened(scene: Scene, band: str, asset: Asset) -> Iterator[rasterio.DatasetReader]:
    """Open a scene's file and check that it lies where the item says.

    Raises:
        ReadError: the file is missing, damaged, in another CRS or off the lattice.
    """
    with rasterio.Env(**GDAL_OPTIONS, **gdal_options(asset.href)):
        try:
            file = rasterio.open(readable(asset.href))
        except ReadError as error:
            raise ReadError(f"scene {scene.id}, {band}: {error}") from None
        except (RasterioIOError, CRSError) as error:
            raise ReadError(
                f"scene {scene.id}, {band}: {shown(asset.href)} cannot be opened ({first_line(error)}); "
                f"{advice(asset.href)}"
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
    t, step = file.transform, min(asset.gsd_m, LATTICE_M)
    if (t.a, t.b, t.d, t.e) != (asset.gsd_m, 0, 0, -asset.gsd_m) or t.c % step or (t.f - origin_m(scene.epsg)) % step:
        raise ReadError(
            f"scene {scene.id}, {band}: {shown(asset.href)} has the transform {tuple(t)[:6]}, expected north-up pixels "
            f"of {asset.gsd_m} m on the zone's lattice; only products on their native UTM grid can be used"
        )


def _damaged(scene: Scene, band: str, asset: Asset, error: BaseException) -> ReadError:
    return ReadError(
        f"scene {scene.id}, {band}: {shown(asset.href)} is damaged or incomplete ({first_line(error)}); "
        "fetch it again, or leave the scene out"
    )
