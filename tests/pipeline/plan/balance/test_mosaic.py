"""Mosaics whose chips take turns between two dates: their borders show without balance, and do not with it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from real_tiles import FOLDER, TOP, Tile, balanced, sampled, solve
from source_mosaics import SMALL, checkerboard, mosaic, size_of

from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.readers.seams import seam_ratios
from difffusr.pipeline.readers.verdicts import SEAM_RANGE, shows_nothing


def borders(
    one: NDArray[np.uint16], other: NDArray[np.uint16], clear: NDArray[np.bool_], chips: tuple[int, int]
) -> list[NDArray[np.float64]]:
    """Steps across the borders of a chessboard of two scenes' DN (bands, h, w) at 2.5 m, for `seam_ratios`."""
    height, width = size_of(SMALL, chips)
    scenes = {number: pixels[:, :height, :width] for number, pixels in ((1, one), (2, other))}
    whole = mosaic(SMALL, chips, scenes, checkerboard).marked(~clear[:height, :width], Quality.CLOUDY)
    return [border.steps for border in whole.borders()]


def seen(found: tuple[NDArray[np.float64], NDArray[np.float64]]) -> list[bool]:
    """Whether borders show, by band."""
    return [not shows_nothing(*pair) for pair in zip(*found, strict=True)]


@pytest.mark.skipif(not FOLDER.exists(), reason=f"no real scenes of two orbits: {FOLDER} is not there")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_chessboard_of_two_real_dates_shows_until_it_is_balanced(real_tiles: list[Tile]) -> None:
    """Every pixel of 120 m stands for a square of 30 m: ground four times as rough as it is."""
    tiles = real_tiles
    everywhere = np.ones(tiles[0].dn.shape[1:], bool)
    found = solve([sampled(tile.dn, tile.day, TOP[tile.tile], 915, everywhere) for tile in tiles], 240.0)
    after = [balanced(found, i, tiles[i].dn, TOP["33TWM"], 915) for i in (0, 1)]
    chips = (20, 20)
    was: list[NDArray[np.float64]] = []
    now: list[NDArray[np.float64]] = []
    for corner in (560, 320):
        here = (slice(None), slice(corner, corner + 250), slice(corner, corner + 250))
        clear = np.isfinite(tiles[0].dn[0][here[1:]]) & np.isfinite(tiles[1].dn[0][here[1:]])
        wide = clear.repeat(12, 0).repeat(12, 1)
        was += borders(*(enlarged((tile.dn / tile.factor)[here]) for tile in tiles[:2]), wide, chips)
        now += borders(*(enlarged(dn[here]) for dn in after), wide, chips)
    unbalanced, balanced_ones = seam_ratios(was), seam_ratios(now)
    assert seen(unbalanced)[1:] == [True, True, True], unbalanced
    assert not any(seen(balanced_ones)), balanced_ones
    assert ((balanced_ones[0] >= SEAM_RANGE[0]) & (balanced_ones[0] <= SEAM_RANGE[1])).all(), balanced_ones
    assert (unbalanced[0][1:] > SEAM_RANGE[1]).all(), unbalanced


def enlarged(dn: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Each pixel 12 × 12 times, as whole DN."""
    whole = np.nan_to_num(np.clip(np.rint(dn), 1, 65_534), nan=1).astype(np.uint16)
    return whole.repeat(12, axis=1).repeat(12, axis=2)
