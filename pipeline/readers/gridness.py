"""Does a cube show the 4-pixel grid that networks may leave behind: gridness of each band at chips that are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from difffusr.kernels.measures import PERIODS, TILE_PX, GridPower, grid_power
from difffusr.pipeline.geo import ChipIndex
from difffusr.pipeline.ground.pixels import DN_SCALE
from difffusr.pipeline.plan import ChipPlan
from difffusr.pipeline.readers.verdicts import BandReport, shows_grid

#: About as many tiles are looked at, whatever the cube: what they hold is known to a hundredth of the limit.
_TILES: Final = 24

#: Most tiles along a side of a chip.
_SIDE: Final = 3


class GridCheck:
    """Gathers the power of patterns chip by chip, from several threads.

    Args:
        chips: those that will be looked at; where they are many, some of them are chosen, evenly spread.
    """

    def __init__(self, chips: Sequence[ChipPlan]) -> None:
        some = np.unique(np.linspace(0, len(chips) - 1, min(len(chips), _TILES)).astype(int)) if chips else ()
        self._chosen = {(chips[i].epsg, chips[i].index) for i in some}
        self._side = min(_SIDE, max(1, int((_TILES / max(len(some), 1)) ** 0.5)))
        self._found: dict[tuple[int, ChipIndex], GridPower] = {}

    def look(self, chip: ChipPlan, pixels: NDArray[np.uint16], source: NDArray[np.uint16]) -> None:
        """Add the middle of a chip, where neighbours have no part in it.

        Args:
            pixels: (bands, h, w) DN of the chip's window.
            source: (h, w) number of the pixel's scene, 0 where it is not from the networks. Tiles that are not of one
                scene are left out.
        """
        place = (chip.epsg, chip.index)
        if place not in self._chosen:
            return
        height, width = source.shape
        side = min(height, width, self._side * TILE_PX)
        row, col = (height - side) // 2, (width - side) // 2
        middle = slice(row, row + side), slice(col, col + side)
        scene = np.bincount(source[middle].ravel()).argmax()
        reflectance = torch.from_numpy(pixels[:, *middle].astype(np.float64) / DN_SCALE)
        of_one = torch.from_numpy((source[middle] == scene) & (scene > 0))
        self._found[place] = grid_power(reflectance, of_one, PERIODS[:1])

    def judged(self, bands: Sequence[BandReport]) -> list[BandReport]:
        """The bands' reports with their gridness; as they are where no tile could be looked at."""
        found = [self._found[place] for place in sorted(self._found) if self._found[place].tiles]
        if not found:
            return list(bands)
        power = sum(found[1:], found[0])
        shares, amplitudes = power.share(PERIODS[0]).tolist(), power.amplitude(PERIODS[0]).tolist()
        return [_with_grid(*of_band) for of_band in zip(bands, shares, amplitudes, strict=True)]


def _with_grid(band: BandReport, share: float, amplitude: float) -> BandReport:
    if np.isnan(share):
        return band
    grid = shows_grid(share, amplitude)
    return replace(
        band,
        gridness=round(share, 5),
        grid_amplitude=round(amplitude, 6),
        grid=grid,
        ok=band.ok and not grid,
    )
