"""A chip's bands from its scenes: DN on native grids, with validity, quality and source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.pipeline.geo import LATTICE_M, LATTICE_PX, PixelWindow
from difffusr.pipeline.ground.pixels import Quality, is_clear
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.windows import read_window

#: The largest DN of a band after its offset is removed; DN 0 means "no data".
_DN_MAX = 65535

#: Share of a 60 m cell's pixels that must show the ground: single misclassified pixels do not change the scene.
_CLEAR_CELL = 0.75


@dataclass(frozen=True)
class Chip:
    """The models' input for one chip, in whole native pixels.

    Attributes:
        dn: by native GSD in metres, (C, n, n) uint16 DN with the radiometric offset removed (reflectance × 10⁴), bands
            in `GROUPS` order; 0 where there is no data. n = chip_px · 10 / GSD.
        valid: by native GSD, (n, n) bool.
        quality: (chip_px, chip_px) uint8 on the 10 m grid, values of `Quality`.
        source: (chip_px, chip_px) uint16 on the 10 m grid: number of the pixel's scene, 1 for the best, 0 for no data.
        scl: (chip_px / 2, chip_px / 2) uint8 on the 20 m grid, the scene classification of each pixel's scene; 0 for no
            data or no classification.
    """

    dn: Mapping[int, NDArray[np.uint16]]
    valid: Mapping[int, NDArray[np.bool_]]
    quality: NDArray[np.uint8]
    source: NDArray[np.uint16]
    scl: NDArray[np.uint8]

    def shows_only(self, classes: Sequence[int]) -> bool:
        """Whether there is data, and all of it has one of these classes of the scene classification."""
        size = self.scl.shape[0]
        seen = self.quality.reshape(size, 2, size, 2).any(axis=(1, 3))
        return bool(seen.any() and np.isin(self.scl[seen], classes).all())


def read_chip(window: PixelWindow, scenes: Sequence[Scene], *, allow_cloudy: bool) -> Chip:
    """Read a chip, each 60 m cell from the best scene that shows it.

    A cell is taken whole from one scene, so that its 10, 20 and 60 m pixels belong together. First come cells that are
    clear and complete, scene by scene in their order; then clear ones at a swath's edge; then, if allowed, cells with
    data under cloud.

    Args:
        window: of the chip, in absolute 2.5 m pixels.
        scenes: best first.
        allow_cloudy: whether cloudy cells may fill what no clear one covers.

    Raises:
        ReadError: an asset cannot be read.
    """
    cells = window.height // (LATTICE_PX * SCALE)
    chip = _empty_chip(window)
    missing = np.ones((cells, cells), bool)
    looks = []
    for rank, scene in enumerate(scenes):
        look = _read_scene(scene, window)
        if rank == 0 and (look.clear & look.whole).all():  # the usual case: no choice, no copy
            return Chip(look.dn, look.valid, look.quality(rank), np.ones(look.data.shape, np.uint16), look.scl)
        looks.append(look)
        missing &= ~_take(chip, look, missing & look.clear & look.whole, rank)
        if not missing.any():
            return chip
    for rank, look in enumerate(looks):
        missing &= ~_take(chip, look, missing & look.clear, rank)
    if allow_cloudy:
        for rank, look in enumerate(looks):
            missing &= ~_take(chip, look, missing & look.some, rank)
    return chip


@dataclass(frozen=True)
class _SceneWindow:
    """One scene in the chip's window: its DN, and masks of its 10 m pixels and 60 m cells.

    Attributes:
        dn, valid: as in `Chip`.
        data: (chip_px, chip_px) pixels with data in every band.
        ground: (chip_px, chip_px) pixels with data and without cloud or shadow.
        scl: as in `Chip`.
        whole, clear, some: (cells, cells) all pixels have data; most of those with data show the ground; any has data.
    """

    dn: Mapping[int, NDArray[np.uint16]]
    valid: Mapping[int, NDArray[np.bool_]]
    data: NDArray[np.bool_]
    ground: NDArray[np.bool_]
    scl: NDArray[np.uint8]
    whole: NDArray[np.bool_]
    clear: NDArray[np.bool_]
    some: NDArray[np.bool_]

    def quality(self, rank: int) -> NDArray[np.uint8]:
        """(chip_px, chip_px) `Quality` of its pixels in a chip where it is the scene of this rank, 0 for the best."""
        shown = Quality.CLEAR if rank == 0 else Quality.FILLED
        return np.where(self.ground, np.uint8(shown), np.uint8(Quality.CLOUDY))


def _read_scene(scene: Scene, window: PixelWindow) -> _SceneWindow:
    dn: dict[int, NDArray[np.uint16]] = {}
    valid: dict[int, NDArray[np.bool_]] = {}
    for gsd, bands in GROUPS.items():
        raw = np.stack([read_window(scene, band, window) for band in bands])
        valid[gsd] = raw.min(axis=0) > 0
        offsets = [scene.assets[band].offset_dn for band in bands]
        dn[gsd] = _without(raw, offsets) if any(offsets) else raw
    data = valid[10] & _spread(valid[20], 2) & _spread(valid[60], 6)
    ground, scl = data, np.zeros(valid[20].shape, np.uint8)
    if scene.scl is not None:
        scl = read_window(scene, "SCL", window).astype(np.uint8)
        ground = data & _spread(is_clear(scl), 2)
    with_data, with_ground = _count(data), _count(ground)
    clear = (with_data > 0) & (with_ground >= _CLEAR_CELL * with_data)
    return _SceneWindow(dn, valid, data, ground, scl, with_data == LATTICE_PX**2, clear, with_data > 0)


def _without(raw: NDArray[np.uint16], offsets: Sequence[int]) -> NDArray[np.uint16]:
    """(C, n, n) DN without each band's radiometric offset; 0 stays "no data"."""
    shifted = raw + np.array(offsets, np.int32)[:, None, None]
    return np.where(raw > 0, np.clip(shifted, 1, _DN_MAX), 0).astype(np.uint16)


def _take(chip: Chip, look: _SceneWindow, cells: NDArray[np.bool_], rank: int) -> NDArray[np.bool_]:
    """Copy whole cells of a scene into the chip, where the chip is empty; returns these cells."""
    if not cells.any():
        return cells
    for gsd in GROUPS:
        here = _spread(cells, LATTICE_M // gsd)
        # Empty pixels are 0; combining bits is many times faster than indexing.
        chip.dn[gsd][...] |= look.dn[gsd] & np.negative(here.astype(np.uint16))
        chip.valid[gsd][...] |= look.valid[gsd] & here
    chip.scl[...] |= look.scl * _spread(cells, LATTICE_M // 20)
    here = _spread(cells, LATTICE_PX) & look.data
    chip.quality[...] |= look.quality(rank) * here
    chip.source[...] |= here * np.uint16(rank + 1)
    return cells


def _empty_chip(window: PixelWindow) -> Chip:
    size = window.height // SCALE
    shape = {gsd: (size * 10 // gsd,) * 2 for gsd in GROUPS}
    return Chip(
        {gsd: np.zeros((len(bands), *shape[gsd]), np.uint16) for gsd, bands in GROUPS.items()},
        {gsd: np.zeros(shape[gsd], bool) for gsd in GROUPS},
        np.zeros(shape[10], np.uint8),
        np.zeros(shape[10], np.uint16),
        np.zeros(shape[20], np.uint8),
    )


def _spread(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
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
