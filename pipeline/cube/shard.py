"""A shard's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.ground.pixels import STD_FILL


def shard_bytes(side_px: int, *, with_std: bool, with_looks: bool = False) -> int:
    """Bytes of a shard's pixels: 27 a pixel, 24 more with the standard deviation, one more with looks."""
    return (2 * len(BANDS) * (2 if with_std else 1) + 1 + 2 + with_looks) * side_px**2


def encoding_bytes(side_px: int) -> int:
    """Most bytes that encoding one variable of a shard takes besides its pixels: Zarr holds a copy of them, the
    encoded chunks, and the object joined from the chunks. Assumes pixels that do not compress."""
    return 3 * 2 * len(BANDS) * side_px**2


@dataclass(frozen=True)
class ShardData:
    """A shard's pixels.

    Attributes:
        reflectance: (12, N, N) uint16 DN, 0 where there is no data.
        quality: (N, N) uint8.
        source: (N, N) uint16.
        std: (12, N, N) uint16 standard deviation of the samples as staged, `STD_FILL` where there is no data; None in a
            run without uncertainty.
        looks: (N, N) uint8 number of observations; None where pixels are of one scene.
    """

    reflectance: NDArray[np.uint16]
    quality: NDArray[np.uint8]
    source: NDArray[np.uint16]
    std: NDArray[np.uint16] | None = None
    looks: NDArray[np.uint8] | None = None

    @classmethod
    def empty(
        cls, size: int | tuple[int, int], *, bands: int = len(BANDS), with_std: bool, with_looks: bool = False
    ) -> ShardData:
        """A shard without data, or a rectangle of (height, width)."""
        flat = (size, size) if isinstance(size, int) else size
        spectral = (bands, *flat)
        return cls(
            np.zeros(spectral, np.uint16),
            np.zeros(flat, np.uint8),
            np.zeros(flat, np.uint16),
            np.full(spectral, STD_FILL, np.uint16) if with_std else None,
            np.zeros(flat, np.uint8) if with_looks else None,
        )

    def rows(self, start: int, stop: int) -> ShardData:
        """A strip of rows, as views."""
        return self.part(slice(start, stop), slice(None))

    def part(self, rows: slice, cols: slice) -> ShardData:
        """A rectangle, as views."""
        here = np.s_[..., rows, cols]
        std = None if self.std is None else self.std[here]
        looks = None if self.looks is None else self.looks[here]
        return ShardData(self.reflectance[here], self.quality[here], self.source[here], std, looks)
