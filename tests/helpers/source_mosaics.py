"""Mosaics of several scenes, blended from chips as runs do, whose borders between scenes are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difffusr.kernels.bands import BANDS, SCALE
from difffusr.kernels.images.blending import Layer, blend, chip_window
from difffusr.pipeline.geo.grid import ChipIndex, Grid, PixelWindow
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.readers.source_seams import SourceBorder, source_borders

#: The zone of all mosaics, and a place of its lattice.
EPSG, FIRST = 32633, ChipIndex(-3100, 120)
#: Chips of 480 m at a stride of 360 m: a small grid with borders of a dozen squares.
SMALL = Grid(48, 12, 512, 256)
#: Measured differences between dates or granules, × 1e-4.
MEASURED = {
    "33TWM, 13 to 15 August": {"B02": 26, "B03": 71, "B04": 59, "B08": 262},
    "33TWL, 13 to 15 August": {"B02": 78, "B03": 103, "B04": 85, "B08": 203},
    "33TWL, 15 to 20 August": {"B02": 143, "B03": 70, "B04": 58, "B08": -9},
    "33TWM to 33TWL": {"B02": 70, "B03": 41, "B04": 38, "B08": -44},
}
#: Mean absolute difference of 60 m cells 180 m apart, averaged along 1.7 km: of real fields and forest in August, DN.
TEXTURE = {"B02": 42, "B03": 65, "B04": 65, "B08": 250}

Choice = Callable[[int, int], int]


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A window of a cube: (bands, h, w) DN, and (h, w) labels."""

    grid: Grid
    chips: tuple[int, int]
    reflectance: NDArray[np.uint16]
    source: NDArray[np.uint16]
    quality: NDArray[np.uint8]

    @property
    def window(self) -> PixelWindow:
        return self.grid.chip_window(FIRST)._replace(height=self.source.shape[0], width=self.source.shape[1])

    def read(self, epsg: int, name: str, window: PixelWindow) -> NDArray[Any]:
        """As of a cube: zeros beyond."""
        assert epsg == EPSG
        array, (row, col) = getattr(self, name), (window.row - self.window.row, window.col - self.window.col)
        out = np.zeros((*array.shape[:-2], window.height, window.width), array.dtype)
        top, left = max(row, 0), max(col, 0)
        part = array[..., top : max(row + window.height, 0), left : max(col + window.width, 0)]
        rows, cols = slice(top - row, top - row + part.shape[-2]), slice(left - col, left - col + part.shape[-1])
        out[..., rows, cols] = part
        return out

    def marked(self, where: NDArray[np.bool_], quality: Quality) -> Mosaic:
        """With this quality in some pixels, and no scene where it has none."""
        none = quality in (Quality.NO_DATA, Quality.FAILED)
        return replace(
            self,
            quality=np.where(where, quality, self.quality).astype(np.uint8),
            source=np.where(where & none, 0, self.source).astype(np.uint16),
        )

    def borders(self) -> list[SourceBorder]:
        """Of all its chips."""
        rows, cols = self.chips
        places = [ChipIndex(FIRST.row + row, FIRST.col + col) for row in range(rows) for col in range(cols)]
        return [border for place in places for border in source_borders(self.read, self.grid, EPSG, place)]


def size_of(grid: Grid, chips: tuple[int, int]) -> tuple[int, int]:
    """Pixels of so many chips."""
    rows, cols = ((count - 1) * grid.chip_step + grid.chip_side for count in chips)
    return rows, cols


def mosaic(
    grid: Grid,
    chips: tuple[int, int],
    scenes: Mapping[int, NDArray[np.uint16]],
    choose: Choice,
    patches: Callable[[int, int, int], NDArray[np.bool_]] | None = None,
) -> Mosaic:
    """Chips of scenes, blended.

    Args:
        scenes: (bands, h, w) DN of the whole window by number.
        choose: the number of the scene of the chip at a row and a column.
        patches: (n, n) cells of 60 m of such a chip of n × n cells that are of the next scene.
    """
    side, step = grid.chip_side, grid.chip_step
    layers = []
    for row in range(chips[0]):
        for col in range(chips[1]):
            here = slice(row * step, row * step + side), slice(col * step, col * step + side)
            first = choose(row, col)
            values, source = scenes[first][:, *here], np.full((side, side), first, np.uint16)
            if patches is not None:
                other = patches(row, col, side // 24).repeat(24, axis=0).repeat(24, axis=1)
                values = np.where(other, scenes[first + 1][:, *here], values)
                source[other] = first + 1
            valid, at = np.ones((side, side), bool), (row * step, col * step)
            layers.append(Layer(values, (source,), valid, at, len(layers)))
    height, width = size_of(grid, chips)
    blended = np.empty((len(next(iter(scenes.values()))), height, width), np.uint16)
    source = np.empty((height, width), np.uint16)
    blend(layers, chip_window(side, grid.overlap_px * SCALE, grid.margin_px * SCALE), blended, (source,))
    quality = np.where(source > 0, Quality.CLEAR, Quality.NO_DATA).astype(np.uint8)
    return Mosaic(grid, chips, blended, source, quality)


@lru_cache(maxsize=4)
def ground(height: int, width: int, seed: int = 0, strength: float = 1.0) -> NDArray[np.uint16]:
    """(bands, height, width) DN: fields, forests and roads, as rough as real ground, other ones in every band."""
    rng = np.random.default_rng(seed)
    out = np.empty((len(BANDS), height, width), np.uint16)
    for i, band in enumerate(BANDS):
        shape = height // 12 + 2, width // 12 + 2
        coarse = sum(
            size**0.5 * _unit(ndimage.gaussian_filter(rng.standard_normal(shape), size)) for size in (1.0, 4.0, 16.0)
        )
        fine = rng.standard_normal((height // 4 + 1, width // 4 + 1)).repeat(4, axis=0).repeat(4, axis=1)
        rough = TEXTURE.get(band, 150) * strength
        values = 12 * TEXTURE.get(band, 150) + rough * (
            0.6 * coarse.repeat(12, axis=0).repeat(12, axis=1)[:height, :width] + fine[:height, :width]
        )
        out[i] = np.clip(values, 1, 20_000)
    return out


def _unit(field: NDArray[np.float64]) -> NDArray[np.float64]:
    return field / field.std()


def shifted(scene: NDArray[np.uint16], steps: Mapping[str, int]) -> NDArray[np.uint16]:
    """The scene with differences in DN added to bands; others stay."""
    shift = np.array([steps.get(band, 0) for band in BANDS])[:, None, None]
    return np.clip(scene.astype(np.int64) + shift, 1, 65_534).astype(np.uint16)


def checkerboard(row: int, col: int) -> int:
    """Two scenes, chip by chip."""
    return 1 + (row + col) % 2
