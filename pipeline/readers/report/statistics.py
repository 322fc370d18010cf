"""Statistics of reflectance by band, from counts of stored numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: Number of values of a uint16.
VALUES = 65536


@dataclass(frozen=True, eq=False)
class BandStatistics:
    """Reflectance of the pixels with data in whole inner chunks.

    Attributes:
        chunks: number of chunks read.
        counts: (bands, 65536) int64, pixels by stored number.
        scale: reflectance of the number 1.
    """

    chunks: int
    counts: NDArray[np.int64] = field(repr=False)
    scale: float

    @property
    def pixels(self) -> int:
        """Pixels counted, the same for every band."""
        return int(self.counts[0].sum())

    @property
    def mean(self) -> NDArray[np.float64]:
        """(bands,) reflectance."""
        total = self.counts @ np.arange(VALUES, dtype=np.float64)
        return np.asarray(total / max(self.pixels, 1) * self.scale)

    @property
    def std(self) -> NDArray[np.float64]:
        """(bands,) reflectance."""
        square = self.counts @ (np.arange(VALUES, dtype=np.float64) ** 2) / max(self.pixels, 1) * self.scale**2
        return np.asarray(np.sqrt(np.maximum(square - self.mean**2, 0)))

    @property
    def zeros(self) -> NDArray[np.float64]:
        """(bands,) share of pixels with data whose stored number is 0."""
        return np.asarray(self.counts[:, 0] / max(self.pixels, 1))

    def share_above(self, reflectance: float) -> NDArray[np.float64]:
        """(bands,) share of pixels above a reflectance."""
        first = math.floor(reflectance / self.scale + 1e-6) + 1
        return np.asarray(self.counts[:, first:].sum(axis=1) / max(self.pixels, 1))

    def percentile(self, percent: float) -> NDArray[np.float64]:
        """(bands,) the smallest reflectance that at least this percentage of pixels does not exceed."""
        reached = np.cumsum(self.counts, axis=1) >= max(percent / 100 * self.pixels, 1e-9)
        return np.asarray(reached.argmax(axis=1) * self.scale)

    def histogram(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """(bands, bins) share of pixels between neighbouring edges (reflectance, lower edge included)."""
        places = np.clip(np.ceil(edges / self.scale - 1e-6).astype(np.int64), 0, VALUES)
        summed = np.concatenate([np.zeros((len(self.counts), 1), np.int64), np.cumsum(self.counts, axis=1)], axis=1)
        return np.asarray(np.diff(summed[:, places], axis=1) / max(self.pixels, 1))
