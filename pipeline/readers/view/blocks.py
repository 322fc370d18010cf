"""Blocks of pixels as one: their mean, or their most frequent label."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Rows of blocks that are counted at a time, so that little memory is taken.
_STRIP: Final = 64


def block_means(values: NDArray[Any], factor: int, fill: int) -> NDArray[Any]:
    """Means over blocks of the pixels with data, rounded to stored numbers.

    Args:
        values: (…, h, w) whole numbers; blocks at the lower and right edge may be cut.
        factor: side of a block.
        fill: where there is no data, and the result where a block has none.

    Returns:
        (…, ⌈h / factor⌉, ⌈w / factor⌉) of the same type.
    """
    blocks = _in_blocks(values, factor, fill)
    out = np.empty((*blocks.shape[:-3], blocks.shape[-2]), values.dtype)
    for row in range(0, out.shape[-2], _STRIP):
        some = blocks[..., row : row + _STRIP, :, :, :]
        seen = some != fill
        count = seen.sum(axis=(-3, -1), dtype=np.uint32)
        total = np.where(seen, some, 0).sum(axis=(-3, -1), dtype=np.float64)
        mean = np.rint(total / np.maximum(count, 1))
        out[..., row : row + _STRIP, :] = np.where(count > 0, mean, fill).astype(values.dtype)
    return out


def block_modes(values: NDArray[Any], factor: int, fill: int) -> NDArray[Any]:
    """The most frequent labels of blocks among the pixels with data; of labels that are as frequent, the smallest.

    Args, returns: as `block_means`, without further axes.
    """
    blocks = _in_blocks(values, factor, fill)
    out = np.full((blocks.shape[0], blocks.shape[2]), fill, values.dtype)
    for row in range(0, len(out), _STRIP):
        some, here = blocks[row : row + _STRIP], out[row : row + _STRIP]
        most = np.zeros(here.shape, np.uint16)
        for label in np.unique(some):
            if label == fill:
                continue
            count = (some == label).sum(axis=(1, 3), dtype=np.uint16)
            better = count > most
            here[better], most[better] = label, count[better]
    return out


def _in_blocks(values: NDArray[Any], factor: int, fill: int) -> NDArray[Any]:
    """(…, rows of blocks, factor, columns of blocks, factor), filled up at the edges."""
    *others, height, width = values.shape
    beyond = [(0, 0)] * len(others) + [(0, -side % factor) for side in (height, width)]
    whole = np.pad(values, beyond, constant_values=fill) if any(add for _, add in beyond) else values
    rows, cols = (side // factor for side in whole.shape[-2:])
    return whole.reshape(*others, rows, factor, cols, factor)
