"""One scene in a chip's window: its DN on native grids, and what of it can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import GROUPS
from difffusr.pipeline.geo import LATTICE_PX, PixelWindow
from difffusr.pipeline.ground.pixels import UNMEASURED, Quality
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.masks import mask_window
from difffusr.pipeline.scenes.measurement import measured
from difffusr.pipeline.scenes.rules import ChipRules
from difffusr.pipeline.scenes.windows import read_window

#: The largest DN of a band after its offset is removed.
_DN_MAX = 65534

#: Share of a 60 m cell's pixels that must show the ground: single misclassified pixels do not change the scene.
_CLEAR_CELL = 0.75


@dataclass(frozen=True)
class SceneWindow:
    """One scene in the chip's window: its DN, and masks of its 10 m pixels and 60 m cells.

    Attributes:
        dn, valid: as in `Chip`.
        data: (chip_px, chip_px) pixels with data in every band.
        ground: (chip_px, chip_px) pixels with data and without cloud or shadow, by the mask.
        scl: as in `Chip`.
        count: (cells, cells) uint8 pixels of 36 that have data.
        whole, clear: (cells, cells) bool: all pixels have data; most of those with data show the ground.
    """

    dn: Mapping[int, NDArray[np.uint16]]
    valid: Mapping[int, NDArray[np.bool_]]
    data: NDArray[np.bool_]
    ground: NDArray[np.bool_]
    scl: NDArray[np.uint8]
    count: NDArray[np.uint8]
    whole: NDArray[np.bool_]
    clear: NDArray[np.bool_]

    def quality(self, rank: int) -> NDArray[np.uint8]:
        """(chip_px, chip_px) `Quality` of its pixels in a chip where it is the scene of this rank, 0 for the best."""
        shown = Quality.CLEAR if rank == 0 else Quality.FILLED
        return np.where(self.ground, np.uint8(shown), np.uint8(Quality.CLOUDY))


def read_scene(scene: Scene, window: PixelWindow, rules: ChipRules) -> SceneWindow:
    raw = {gsd: np.stack([read_window(scene, band, window) for band in bands]) for gsd, bands in GROUPS.items()}
    classes, clear_px = mask_window(scene, window, rules)
    dn, valid = measured(raw, classes)
    for gsd, bands in GROUPS.items():
        offsets = [scene.assets[band].offset_dn for band in bands]
        dn[gsd] = _without(dn[gsd], offsets) if any(offsets) else dn[gsd]
    if scene.correction is not None:
        dn = scene.correction.corrected(dn, window.bounds_m(scene.epsg))
    data = valid[10] & spread(valid[20], 2) & spread(valid[60], 6)
    ground, scl = data, np.zeros(valid[20].shape, np.uint8)
    if classes is not None:
        scl = np.where(classes == UNMEASURED, 0, classes).astype(np.uint8)
    if clear_px is not None:
        ground = data & spread(clear_px, 2)
    if scene.correction is not None and scene.correction.hazy:
        ground = np.zeros_like(data)
    with_data, with_ground = _count(data), _count(ground)
    clear = (with_data > 0) & (with_ground >= _CLEAR_CELL * with_data)
    return SceneWindow(dn, valid, data, ground, scl, with_data, with_data == LATTICE_PX**2, clear)


def _without(raw: NDArray[np.uint16], offsets: Sequence[int]) -> NDArray[np.uint16]:
    """(C, n, n) DN without each band's radiometric offset; 0 stays "no data"."""
    shifted = raw + np.array(offsets, np.int32)[:, None, None]
    return np.where(raw > 0, np.clip(shifted, 1, _DN_MAX), 0).astype(np.uint16)


def spread(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    """Each pixel of a square mask repeated factor × factor times."""
    place = np.arange(mask.shape[0] * factor) // factor
    return mask.take(place, axis=1).take(place, axis=0)


def _count(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(cells, cells) number of pixels, 0 to 36, that a 10 m mask has in each cell."""
    side = LATTICE_PX
    cells = mask.shape[0] // side
    rows = np.add.reduce(mask.view(np.uint8).reshape(cells, side, side * cells), axis=1, dtype=np.uint8)
    counts: NDArray[np.uint8] = np.add.reduce(rows.reshape(cells * cells, side).T, axis=0, dtype=np.uint8)
    return counts.reshape(cells, cells)
