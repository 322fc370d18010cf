"""Tiles of the pixels that a scene was measured with, as reflectance, and nothing done to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import from_bounds
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window
from rio_tiler.constants import WEB_MERCATOR_CRS

from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.ground.pixels import UNMEASURED
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.readers.view.inputs import SceneGoneError
from difffusr.pipeline.readers.view.kept import Kept
from difffusr.pipeline.readers.view.layers import Layer, coloured, numbers
from difffusr.pipeline.readers.view.levels import MOST_RATIO, Bounds, NothingThereError, TooWideError
from difffusr.pipeline.readers.view.tiles import TILE_PX, ZOOMS, bounds_of, ground_m, picture_of
from difffusr.pipeline.scenes import Scene, opened, unread

#: Bands that are read at once. Each thread keeps its files and connections for the next tile.
_READERS: Final = 4

#: The least reflectance that is stored, for what is dark but measured.
_DARKEST: Final = 1

T = TypeVar("T")


class SceneTiles:
    """Makes the tiles of scenes."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._readers = ThreadPoolExecutor(_READERS, "scenes")

    def tile(self, scene: Scene, layer: Layer, zoom: int, col: int, row: int, low: float, high: float) -> bytes:
        """A tile as PNG, transparent where the scene has no data.

        Args:
            layer: of reflectance.
            zoom, col, row, low, high: as of `Tiles.tile`.

        Raises:
            NothingThereError: the scene does not reach there.
            TooWideError: its files have no overview that coarse.
            SceneGoneError: one of its files cannot be read.
        """
        bounds, bands = bounds_of(zoom, col, row), tuple(dict.fromkeys(layer.bands))
        dn = self._kept.get((scene.version_key(), bands, bounds), lambda: self._read(scene, bands, bounds))
        if not dn.any():
            raise NothingThereError("the scene has no data there")
        with self._kept.turn():
            values = dn * np.float32(scene.scale)
            values[dn == 0] = np.nan
            shown = numbers(layer, values)
            seen: NDArray[np.bool_] = np.asarray(np.isfinite(shown).all(axis=0))
            return picture_of(coloured(shown, low, high, layer.colours), seen)

    def zooms(self, scene: Scene) -> tuple[int, int]:
        """The first zoom at which every tile of a scene can be made, and the last that shows more than the one before.

        Raises:
            SceneGoneError: its red band cannot be read.
        """
        coarsest, lat = self._readers.submit(_of_file, scene, "B04", _coarsest_m).result(), scene.footprint.centroid.y
        side = [ground_m(bounds_of(zoom, *_over(0.0, lat, zoom))) for zoom in ZOOMS]
        first = next(zoom for zoom in ZOOMS if side[zoom] <= coarsest * MOST_RATIO * 0.9)
        return first, next(zoom for zoom in ZOOMS if side[zoom] <= scene.file("B04").gsd_m / 3)

    def _read(self, scene: Scene, bands: tuple[str, ...], bounds: Bounds) -> NDArray[np.uint16]:
        """(bands, h, w) DN without offset, 0 where there is no data."""
        parts = [
            self._readers.submit(_of_file, scene, band, lambda file, band=band: _part(scene, band, file, bounds))
            for band in bands
        ]
        return np.stack([part.result() for part in parts])


def _of_file(scene: Scene, band: str, read: Callable[[rasterio.DatasetReader], T]) -> T:
    """What is read of a band's file; after an error once more without GDAL's cache, which keeps failures, too."""
    asset = scene.file(band)
    for afresh in (False, True):
        try:
            with opened(scene, band, asset, afresh=afresh, keep=True) as file:
                return read(file)
        except (ReadError, RasterioError) as error:
            if afresh:
                said = error if isinstance(error, ReadError) else unread(scene, band, asset, error)
                raise SceneGoneError(one_line(said, None)) from None
    raise AssertionError  # the second try raised


def _part(scene: Scene, band: str, file: rasterio.DatasetReader, bounds: Bounds) -> NDArray[np.uint16]:
    """(h, w) of a tile. Pixels are read about as large as they are drawn, from the overview that has them."""
    drawn_m, gsd = ground_m(bounds), file.transform.a
    if drawn_m > _coarsest_m(file) * MOST_RATIO:
        raise TooWideError(f"scene {scene.id} has no overview for a map of {drawn_m:.0f} m; zoom in")
    blank = np.zeros((TILE_PX, TILE_PX), np.uint16)
    window = _window(file, transform_bounds(WEB_MERCATOR_CRS, file.crs, *bounds))
    if window is None:
        return blank
    step = 2 ** max(math.floor(math.log2(drawn_m / gsd)), 0)
    shape = math.ceil(window.height / step), math.ceil(window.width / step)
    read = file.read(1, window=window, out_shape=shape, resampling=Resampling.average)
    dn = _without_offset(read, file.nodata, scene.file(band).offset_dn)
    left, top = file.transform.c + window.col_off * gsd, file.transform.f - window.row_off * gsd
    across = Affine(window.width * gsd / shape[1], 0, left, 0, -window.height * gsd / shape[0], top)
    reproject(
        dn, blank, src_transform=across, src_crs=file.crs, src_nodata=0,
        dst_transform=from_bounds(*bounds, TILE_PX, TILE_PX), dst_crs=WEB_MERCATOR_CRS, dst_nodata=0,
        resampling=Resampling.average if drawn_m > across.a else Resampling.nearest,
    )  # fmt: skip
    return blank


def _window(file: rasterio.DatasetReader, bounds: Bounds) -> Window | None:
    """Whole pixels of a file that cover bounds, with some beyond; None if it does not reach them."""
    left, bottom, right, top = bounds
    gsd, x, y = file.transform.a, file.transform.c, file.transform.f
    if not all(map(math.isfinite, bounds)):
        return None
    margin = 2 + (right - left) / gsd / TILE_PX * 2
    cols = max(math.floor((left - x) / gsd - margin), 0), min(math.ceil((right - x) / gsd + margin), file.width)
    rows = max(math.floor((y - top) / gsd - margin), 0), min(math.ceil((y - bottom) / gsd + margin), file.height)
    if cols[0] >= cols[1] or rows[0] >= rows[1]:
        return None
    return Window(cols[0], rows[0], cols[1] - cols[0], rows[1] - rows[0])


def _without_offset(read: NDArray[Any], nodata: float | None, offset: int) -> NDArray[np.uint16]:
    """DN of reflectance, 0 where there is none."""
    none = (read == 0) | (read == UNMEASURED)
    if nodata not in (None, 0):
        none |= np.isnan(read) if np.isnan(nodata) else read == nodata
    shifted = np.clip(np.nan_to_num(read.astype(np.float32)) + offset, _DARKEST, UNMEASURED - 1)
    return np.where(none, 0, shifted).astype(np.uint16)


def _coarsest_m(file: rasterio.DatasetReader) -> float:
    """Size of a pixel of the coarsest overview, in metres."""
    return float(file.transform.a) * max(file.overviews(1), default=1)


def _over(lon: float, lat: float, zoom: int) -> tuple[int, int]:
    """Column and row of the tile over a place."""
    y = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2
    return int((lon + 180) / 360 * 2**zoom), min(int(y * 2**zoom), 2**zoom - 1)
