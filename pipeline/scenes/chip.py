"""A chip's bands from its scenes: DN on native grids, with validity, quality and source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.pipeline.geo import LATTICE_M, LATTICE_PX, PixelWindow
from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.scenes.chip_pixels import Chip as Chip
from difffusr.pipeline.scenes.chip_pixels import empty_chip
from difffusr.pipeline.scenes.composite import compose
from difffusr.pipeline.scenes.files import PassingReadError, make_room
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.masks import MASK, maker_of
from difffusr.pipeline.scenes.rules import ChipRules
from difffusr.pipeline.scenes.scene_window import SceneWindow, read_scene, spread
from difffusr.pipeline.scenes.two_bands import NONE, blend_two_bands
from difffusr.pipeline.scenes.windows import read_window


def read_chip(window: PixelWindow, scenes: Sequence[Scene], rules: ChipRules) -> Chip:
    """Read a chip: of each scene's pixels, the composite, or each 60 m cell from the best scene that shows it.

    Args:
        window: of the chip, in absolute 2.5 m pixels.
        scenes: best first.

    Raises:
        ReadError: an asset cannot be read.
    """
    if rules.composite != "none":
        make_room(len(scenes))
        looks = [read_scene(scene, window, rules) for scene in scenes]
        return compose(window, looks, [scene.acquisition for scene in scenes], rules)
    return _fill(window, scenes, rules)


def _fill(window: PixelWindow, scenes: Sequence[Scene], rules: ChipRules) -> Chip:
    """Each 60 m cell from the best scene that shows it.

    A cell is taken whole from one scene, so that its 10, 20 and 60 m pixels belong together. First come cells that are
    clear and complete, scene by scene in their order; then clear ones at a swath's edge, from the scene that shows most
    of them; then, if allowed, cells with data under cloud.
    """
    cells = window.height // (LATTICE_PX * SCALE)
    chip = empty_chip(window)
    missing = np.ones((cells, cells), bool)
    clear = np.full((cells, cells), NONE, np.int8)
    looks = []
    for rank, scene in enumerate(scenes):
        look = read_scene(scene, window, rules)
        if rank == 0 and (look.clear & look.whole).all():  # the usual case: no choice, no copy
            return Chip(look.dn, look.valid, look.quality(rank), np.ones(look.data.shape, np.uint16), look.scl)
        looks.append(look)
        taken = _take(chip, look, missing & look.clear & look.whole, rank)
        clear[taken] = rank
        missing &= ~taken
        if not missing.any():
            break
    if looks and missing.any():
        fullest = _take_fullest(chip, looks, [missing & look.clear for look in looks])
        clear = np.maximum(clear, fullest)
        missing &= fullest == NONE
        if rules.allow_cloudy:
            _take_fullest(chip, looks, [missing & (look.count > 0) for look in looks])
    if rules.blend == "two-band":
        blend_two_bands(chip.dn, chip.valid, looks, clear)
    return chip


class Unread(NamedTuple):
    """A scene with a file that cannot be read, and will not be read by trying again: its id, the band, why."""

    scene: str
    band: str
    why: str


def unreadable(window: PixelWindow, scenes: Sequence[Scene], rules: ChipRules) -> list[Unread]:
    """Those of the scenes that cannot be read in a window, each by the first band that fails. A scene whose server may
    answer later is not among them."""
    found = (_unread_in(window, scene, rules) for scene in scenes)
    return [one for one in found if one is not None]


def _unread_in(window: PixelWindow, scene: Scene, rules: ChipRules) -> Unread | None:
    maker = maker_of(rules)
    for band in (*scene.assets, *(("SCL",) if scene.scl is not None else ()), *maker.files(scene), MASK):
        try:
            if band == MASK:
                maker.prepare(scene, rules)
            else:
                read_window(scene, band, window)
        except PassingReadError:
            return None
        except ReadError as error:
            return Unread(scene.id, band, str(error))
    return None


def _take_fullest(chip: Chip, looks: Sequence[SceneWindow], cells: Sequence[NDArray[np.bool_]]) -> NDArray[np.int8]:
    """As `_take`, from several scenes that may each give some cells: the one that has most data there, of equal ones
    the first; returns the rank of each cell's scene, `NONE` where nothing is taken."""
    fullest = np.argmax([look.count * mask for look, mask in zip(looks, cells, strict=True)], axis=0)
    for rank, (look, mask) in enumerate(zip(looks, cells, strict=True)):
        _take(chip, look, mask & (fullest == rank), rank)
    return np.where(np.any(cells, axis=0), fullest, NONE).astype(np.int8)


def _take(chip: Chip, look: SceneWindow, cells: NDArray[np.bool_], rank: int) -> NDArray[np.bool_]:
    """Copy whole cells of a scene into the chip, where the chip is empty; returns these cells."""
    if not cells.any():
        return cells
    for gsd in GROUPS:
        here = spread(cells, LATTICE_M // gsd)
        # Empty pixels are 0; combining bits is many times faster than indexing.
        chip.dn[gsd][...] |= look.dn[gsd] & np.negative(here.astype(np.uint16))
        chip.valid[gsd][...] |= look.valid[gsd] & here
    chip.scl[...] |= look.scl * spread(cells, LATTICE_M // 20)
    here = spread(cells, LATTICE_PX) & look.data
    chip.quality[...] |= look.quality(rank) * here
    chip.source[...] |= here * np.uint16(rank + 1)
    return cells
