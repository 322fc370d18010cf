"""Blending written down plainly: sums over every pixel of every chip in 64 bits, what `images.blending` must equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class PlainBlend:
    """Accumulator of one target window: Σ w·chip and Σ w in whole numbers.

    Attributes:
        total: (C, H, W) int64, Σ w·value.
        weight: (H, W) int64, Σ w.
        claim: (H, W) int64, the strongest claim on a pixel's labels so far (weight, then lower chip rank).
        labels: (L, H, W) uint16, labels (quality, source, …) of the chip with the strongest claim.
    """

    total: NDArray[np.int64]
    weight: NDArray[np.int64]
    claim: NDArray[np.int64]
    labels: NDArray[np.uint16]

    @classmethod
    def empty(cls, channels: int, labels: int, height: int, width: int) -> PlainBlend:
        """An accumulator nothing has been added to."""
        return cls(
            np.zeros((channels, height, width), np.int64),
            np.zeros((height, width), np.int64),
            np.zeros((height, width), np.int64),
            np.zeros((labels, height, width), np.uint16),
        )

    def add(
        self,
        values: NDArray[np.uint16],
        labels: NDArray[np.uint16],
        weight: NDArray[np.int64],
        valid: NDArray[np.bool_],
        at: tuple[int, int],
        rank: int,
    ) -> None:
        """Add a chip, or the part of it that lies in the window.

        Args:
            values: (C, h, w) uint16.
            labels: (L, h, w) uint16.
            weight: (h, w) int64 window of the chip.
            valid: (h, w) bool; pixels without data have no weight.
            at: (row, col) of the chip's top left pixel in the window; may be negative.
            rank: position of the chip among all that are blended, unique, below 2³²: decides between equal weights.
        """
        height, width = self.weight.shape
        h, w = weight.shape
        r0, c0 = max(at[0], 0), max(at[1], 0)
        r1, c1 = min(at[0] + h, height), min(at[1] + w, width)
        if r0 >= r1 or c0 >= c1:
            return
        here = np.s_[r0:r1, c0:c1]
        there = np.s_[r0 - at[0] : r1 - at[0], c0 - at[1] : c1 - at[1]]
        wt = weight[there] * valid[there]
        self.weight[here] += wt
        self.total[(slice(None), *here)] += wt * values[(slice(None), *there)]
        # Labels cannot be averaged: they follow the chip with the greatest weight, the lower rank among equals.
        claim = np.where(wt > 0, (wt << 32) + (2**32 - 1 - rank), 0)
        stronger = claim > self.claim[here]
        self.claim[here][stronger] = claim[stronger]
        self.labels[(slice(None), *here)][:, stronger] = labels[(slice(None), *there)][:, stronger]

    def result(self) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Blended values rounded half up, (C, H, W) uint16, zero where nothing had weight; and the labels."""
        safe = np.maximum(self.weight, 1)
        values = (self.total * 2 + safe) // (safe * 2)
        return values.astype(np.uint16), self.labels
