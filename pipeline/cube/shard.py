"""A shard's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ShardData:
    """A shard's pixels.

    Attributes:
        reflectance: (12, N, N) uint16 DN, 0 where there is no data.
        quality: (N, N) uint8.
        source: (N, N) uint16.
        std: (12, N, N) uint16 standard deviation of the samples as staged, `STD_FILL` where there is no data; None in a
            run without uncertainty.
    """

    reflectance: NDArray[np.uint16]
    quality: NDArray[np.uint8]
    source: NDArray[np.uint16]
    std: NDArray[np.uint16] | None = None

    def rows(self, start: int, stop: int) -> ShardData:
        """A strip of rows, as views."""
        return self.part(slice(start, stop), slice(None))

    def part(self, rows: slice, cols: slice) -> ShardData:
        """A rectangle, as views."""
        here = np.s_[..., rows, cols]
        std = None if self.std is None else self.std[here]
        return ShardData(self.reflectance[here], self.quality[here], self.source[here], std)
