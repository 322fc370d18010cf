"""A chip's bands from its scenes: DN on native grids, with validity, quality and source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.pipeline.geo import LATTICE_M, LATTICE_PX, PixelWindow
from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.ground.pixels import UNMEASURED, Quality, is_clear
from difffusr.pipeline.scenes.files import PassingReadError
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.measurement import measured
from difffusr.pipeline.scenes.windows import read_window

#: The largest DN of a band after its offset is removed.
_DN_MAX = 65534

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
    clear and complete, scene by scene in their order; then clear ones at a swath's edge, from the scene that shows most
    of them; then, if allowed, cells with data under cloud.

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
    if not looks:
        return chip
    missing &= ~_take_fullest(chip, looks, [missing & look.clear for look in looks])
    if allow_cloudy:
        _take_fullest(chip, looks, [missing & (look.count > 0) for look in looks])
    return chip


class Unread(NamedTuple):
    """A scene with a file that cannot be read, and will not be read by trying again: its id, the band, why."""

    scene: str
    band: str
    why: str


def unreadable(window: PixelWindow, scenes: Sequence[Scene]) -> list[Unread]:
    """Those of the scenes that cannot be read in a window, each by the first band that fails. A scene whose server may
    answer later is not among them."""
    found = (_unread_in(window, scene) for scene in scenes)
    return [one for one in found if one is not None]


def _unread_in(window: PixelWindow, scene: Scene) -> Unread | None:
    for band in (*scene.assets, *(("SCL",) if scene.scl is not None else ())):
        try:
            read_window(scene, band, window)
        except PassingReadError:
            return None
        except ReadError as error:
            return Unread(scene.id, band, str(error))
    return None


@dataclass(frozen=True)
class _SceneWindow:
    """One scene in the chip's window: its DN, and masks of its 10 m pixels and 60 m cells.

    Attributes:
        dn, valid: as in `Chip`.
        data: (chip_px, chip_px) pixels with data in every band.
        ground: (chip_px, chip_px) pixels with data and without cloud or shadow.
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


def _read_scene(scene: Scene, window: PixelWindow) -> _SceneWindow:
    raw = {gsd: np.stack([read_window(scene, band, window) for band in bands]) for gsd, bands in GROUPS.items()}
    classes = None if scene.scl is None else read_window(scene, "SCL", window)
    dn, valid = measured(raw, classes)
    for gsd, bands in GROUPS.items():
        offsets = [scene.assets[band].offset_dn for band in bands]
        dn[gsd] = _without(dn[gsd], offsets) if any(offsets) else dn[gsd]
    data = valid[10] & _spread(valid[20], 2) & _spread(valid[60], 6)
    ground, scl = data, np.zeros(valid[20].shape, np.uint8)
    if classes is not None:
        scl = np.where(classes == UNMEASURED, 0, classes).astype(np.uint8)
        ground = data & _spread(is_clear(scl), 2)
    with_data, with_ground = _count(data), _count(ground)
    clear = (with_data > 0) & (with_ground >= _CLEAR_CELL * with_data)
    return _SceneWindow(dn, valid, data, ground, scl, with_data, with_data == LATTICE_PX**2, clear)


def _without(raw: NDArray[np.uint16], offsets: Sequence[int]) -> NDArray[np.uint16]:
    """(C, n, n) DN without each band's radiometric offset; 0 stays "no data"."""
    shifted = raw + np.array(offsets, np.int32)[:, None, None]
    return np.where(raw > 0, np.clip(shifted, 1, _DN_MAX), 0).astype(np.uint16)


def _take_fullest(chip: Chip, looks: Sequence[_SceneWindow], cells: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """As `_take`, from several scenes that may each give some cells: the one that has most data there, of equal ones
    the first; returns all cells taken."""
    fullest = np.argmax([look.count * mask for look, mask in zip(looks, cells, strict=True)], axis=0)
    for rank, (look, mask) in enumerate(zip(looks, cells, strict=True)):
        _take(chip, look, mask & (fullest == rank), rank)
    taken: NDArray[np.bool_] = np.any(cells, axis=0)
    return taken


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
