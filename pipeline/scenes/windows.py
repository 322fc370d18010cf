"""Windows of a scene's rasters on the lattice, and whole rasters at low resolution."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.geo import PixelWindow, origin_m
from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.ground.pixels import UNMEASURED, Pixels
from difffusr.pipeline.scenes.checks import Held, check_block
from difffusr.pipeline.scenes.files import held_open, patiently, unread
from difffusr.pipeline.scenes.hints import CLOUD_M, NATIVE_M
from difffusr.pipeline.scenes.item import Asset, Scene


def read_window(scene: Scene, band: str, window: PixelWindow) -> NDArray[np.uint16]:
    """The pixels of a band in a window of its zone, on the band's native grid.

    Args:
        band: a band name, "SCL" or "CLD" (cloud probability, at 20 m whatever its file has).
        window: in absolute 2.5 m pixels; its edges lie on the band's grid.

    Returns:
        (h, w) uint16 raw DN as in the file; `UNMEASURED` outside the file, and where it has its own nodata value, if
        that is not 0.

    Raises:
        ReadError: the file is missing, damaged, in another CRS or off the lattice, or its server fails.
    """
    asset = scene.file(band)
    return patiently(asset.href, lambda afresh: _read_window(scene, band, asset, window, afresh))


def _read_window(scene: Scene, band: str, asset: Asset, window: PixelWindow, afresh: bool) -> NDArray[np.uint16]:
    left, _, _, top = window.bounds_m(scene.epsg)
    native = gsd = NATIVE_M[band]
    with held_open(scene, band, asset, afresh=afresh, keep=True) as held:
        if band == "CLD" and held.gsd_m in CLOUD_M:
            gsd = int(held.gsd_m)
        if held.gsd_m != gsd:
            raise ReadError(f"{held.what} has pixels of {held.gsd_m:g} m, expected {gsd} m; leave the scene out")
        height, width = (round(side * TARGET_GSD_M / gsd) for side in (window.height, window.width))
        col = round((left - held.left) / gsd)
        row = round((held.top - top) / gsd)
        r0, r1 = max(row, 0), min(row + height, held.height)
        c0, c1 = max(col, 0), min(col + width, held.width)
        if r0 >= r1 or c0 >= c1:
            return np.full((height * gsd // native, width * gsd // native), UNMEASURED, np.uint16)
        try:
            data = held.file.read(1, window=Window(c0, r0, c1 - c0, r1 - r0))
        except (RasterioError, ValueError) as error:
            raise unread(scene, band, asset, error) from None
    data = held.dn(data, UNMEASURED).astype(np.uint16, copy=False)
    out: NDArray[np.uint16] = data
    if data.shape != (height, width):
        out = np.full((height, width), UNMEASURED, np.uint16)
        out[r0 - row : r1 - row, c0 - col : c1 - col] = data
    return out if gsd == native else out.repeat(gsd // native, axis=0).repeat(gsd // native, axis=1)


def read_overview(scene: Scene, band: str, step_m: int) -> tuple[Pixels, int, int]:
    """A whole file sampled on the zone's lattice at `step_m` metres, from the file's overviews where it has some.

    Each cell that overlaps the file has the pixel nearest to its centre. Cells cut by the file's edge have their
    neighbour's pixel, so that no strip of ground is lost.

    Returns:
        (h, w) raw DN, uint8 or uint16, 0 where it says nodata (`UNMEASURED` for "CLD"); then row and column of the
        first cell, in steps from the zone's origin, rows southwards.

    Raises:
        ReadError: as `read_window`.
    """
    asset = scene.file(band)
    return patiently(asset.href, lambda afresh: _read_overview(scene, band, asset, step_m, afresh))


def _read_overview(scene: Scene, band: str, asset: Asset, step_m: int, afresh: bool) -> tuple[Pixels, int, int]:
    with held_open(scene, band, asset, afresh=afresh, keep=False) as held:
        rows = _Axis.of(origin_m(scene.epsg) - held.top, held.height, held.gsd_m, step_m)
        cols = _Axis.of(held.left, held.width, held.gsd_m, step_m)
        _check_overviews(held)
        try:
            data = _sample(held.file, rows, cols)
        except (RasterioError, ValueError) as error:
            raise unread(scene, band, asset, error) from None
        return held.dn(data, UNMEASURED if band == "CLD" else 0), rows.first, cols.first


def _check_overviews(held: Held) -> None:
    """As `check_block` for a file's overviews, whose blocks are of another size."""
    if held.file.driver not in ("GTiff", "COG"):
        return
    for level in range(len(held.file.overviews(1))):
        with rasterio.open(held.file.name, driver="GTiff", overview_level=level) as overview:
            check_block(f"{held.what}, overview {level + 1},", overview)


class _Axis(NamedTuple):
    """The lattice cells that overlap a file, along one axis.

    `first` and `cells`: index of the first, and their number. `before` and `after`: how many are cut at either end.
    `offset_px`: where the first whole cell starts, `step_px`: size of a cell, `size_px`: of the file, in its pixels.
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
        """Number of cells that are wholly in the file; not positive where the file is smaller than one."""
        return self.cells - self.before - self.after

    @property
    def nearest_px(self) -> NDArray[np.intp]:
        """(cells,) the pixel nearest to each cell's centre."""
        centres = self.offset_px + (np.arange(self.cells) - self.before + 0.5) * self.step_px
        return np.clip(np.floor(centres).astype(np.intp), 0, self.size_px - 1)


def _sample(file: rasterio.DatasetReader, rows: _Axis, cols: _Axis) -> Pixels:
    """(rows.cells, cols.cells) pixels of the file's first band, in its dtype."""
    if rows.whole < 1 or cols.whole < 1:  # a strip narrower than two cells
        narrow: Pixels = file.read(1)[np.ix_(rows.nearest_px, cols.nearest_px)]
        return narrow
    inside = Window(cols.offset_px, rows.offset_px, cols.whole * cols.step_px, rows.whole * rows.step_px)
    data = file.read(1, window=inside, out_shape=(rows.whole, cols.whole), resampling=Resampling.nearest)
    return np.pad(data, ((rows.before, rows.after), (cols.before, cols.after)), mode="edge")
