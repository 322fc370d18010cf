"""Halving an image: averages of valid pixels and most frequent labels, in exact integer arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_2x(values: NDArray[np.uint16], fill: int) -> NDArray[np.uint16]:
    """Mean of the valid pixels among 2 × 2, rounded half to even, so that a pyramid of many levels does not drift.

    Args:
        values: (..., 2h, 2w) uint16.
        fill: the value of pixels without data.

    Returns:
        (..., h, w) uint16, `fill` where none of the four is valid.
    """
    corners = _corners(values)
    valid = [corner != fill for corner in corners]
    count = sum((mask.astype(np.uint8) for mask in valid[1:]), valid[0].astype(np.uint8))
    if count.size and count.min() == 4:
        total = sum((corner.astype(np.uint32) for corner in corners[1:]), corners[0].astype(np.uint32))
        return _fourth(total)
    total = np.zeros(count.shape, np.uint32)
    for corner, mask in zip(corners, valid, strict=True):
        total += np.where(mask, corner, np.uint16(0))
    # Σ / n for each n by itself: with one there is nothing to round, with three nothing lies half way.
    out = np.select(
        [count == 4, count == 3, count == 2, count == 1],
        [_fourth(total), (total + 1) // 3, (total + (total >> 1 & 1)) >> 1, total],
        fill,
    )
    return out.astype(np.uint16)


def mode_2x(labels: NDArray[Any], counts: NDArray[np.bool_]) -> NDArray[Any]:
    """The most frequent label among those of 2 × 2 pixels that count, or among all four if none does; ties go to the
    first by rows.

    Args:
        labels: (2h, 2w).
        counts: (2h, 2w) bool.

    Returns:
        (h, w) of the labels' dtype.
    """
    corners, counted = _corners(labels), _corners(counts)
    none = ~(counted[0] | counted[1] | counted[2] | counted[3])
    counted = [mask | none for mask in counted]
    out, most = corners[0].copy(), np.zeros(none.shape, np.uint8)
    for mine, by_me in zip(corners, counted, strict=True):
        alike = sum(
            ((mine == other) & by_other).astype(np.uint8) for other, by_other in zip(corners, counted, strict=True)
        )
        alike = np.where(by_me, alike, 0)
        better = alike > most
        out[better], most[better] = mine[better], alike[better]
    return out


def _corners(values: NDArray[Any]) -> list[NDArray[Any]]:
    """The four pixels that become one, by rows, as views."""
    return [values[..., row::2, col::2] for row in (0, 1) for col in (0, 1)]


def _fourth(total: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """A quarter, half to even."""
    quarter: NDArray[np.uint16] = ((total + 1 + (total >> 2 & 1)) >> 2).astype(np.uint16)
    return quarter
