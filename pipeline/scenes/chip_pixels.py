"""A chip's bands as the models get them, and what is known of each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.pipeline.geo import PixelWindow


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
        looks: (chip_px, chip_px) uint8 on the 10 m grid, of a composite: number of its observations of the ground; None
            where pixels are of one scene.
    """

    dn: Mapping[int, NDArray[np.uint16]]
    valid: Mapping[int, NDArray[np.bool_]]
    quality: NDArray[np.uint8]
    source: NDArray[np.uint16]
    scl: NDArray[np.uint8]
    looks: NDArray[np.uint8] | None = None

    def shows_only(self, classes: Sequence[int]) -> bool:
        """Whether there is data, and all of it has one of these classes of the scene classification."""
        size = self.scl.shape[0]
        seen = self.quality.reshape(size, 2, size, 2).any(axis=(1, 3))
        return bool(seen.any() and np.isin(self.scl[seen], classes).all())


def empty_chip(window: PixelWindow) -> Chip:
    """A chip without data."""
    size = window.height // SCALE
    shape = {gsd: (size * 10 // gsd,) * 2 for gsd in GROUPS}
    return Chip(
        {gsd: np.zeros((len(bands), *shape[gsd]), np.uint16) for gsd, bands in GROUPS.items()},
        {gsd: np.zeros(shape[gsd], bool) for gsd in GROUPS},
        np.zeros(shape[10], np.uint8),
        np.zeros(shape[10], np.uint16),
        np.zeros(shape[20], np.uint8),
    )
