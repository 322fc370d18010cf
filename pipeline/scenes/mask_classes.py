"""The classes of a mask, and a mask of a whole scene: its classes and where they lie."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.geo import PixelWindow


class MaskClass(IntEnum):
    """What a mask says of a pixel. Defective ones (saturated, of an unknown class) are neither ground nor cloud."""

    NO_DATA = 0
    CLEAR = 1
    CLOUD = 2
    SHADOW = 3
    DEFECTIVE = 4


class Mask(NamedTuple):
    """A scene's classes on its zone's lattice.

    Attributes:
        classes: (h, w) values of `MaskClass`.
        row, col: of the first cell, in steps from the zone's origin, rows southwards.
        step_m: side of a cell in metres.
    """

    classes: NDArray[Any]
    row: int
    col: int
    step_m: int

    def at(self, step_m: int) -> Mask:
        """At a step that is a multiple of this one's: each cell that overlaps has the cell nearest to its centre."""
        if step_m == self.step_m:
            return self
        factor = step_m // self.step_m
        rows, row = _coarser(self.row, self.classes.shape[0], factor)
        cols, col = _coarser(self.col, self.classes.shape[1], factor)
        return Mask(self.classes[np.ix_(rows, cols)], row, col, step_m)

    def window(self, window: PixelWindow, gsd_m: int) -> NDArray[np.uint8]:
        """The classes of a window's pixels of a size that divides the step; `NO_DATA` beyond the mask."""
        rows = _cells(window.row, window.height, gsd_m, self.step_m, self.row)
        cols = _cells(window.col, window.width, gsd_m, self.step_m, self.col)
        return self._cut(rows, cols, outside=MaskClass.NO_DATA)

    def placed(self, frame: Mask, outside: int) -> NDArray[Any]:
        """This where another of the same step lies, `outside` where it does not reach."""
        height, width = frame.classes.shape
        rows, cols = np.arange(height) + frame.row - self.row, np.arange(width) + frame.col - self.col
        return self._cut(rows, cols, outside=outside)

    def _cut(self, rows: NDArray[np.intp], cols: NDArray[np.intp], *, outside: int) -> NDArray[Any]:
        height, width = self.classes.shape
        there = ((rows >= 0) & (rows < height))[:, None] & ((cols >= 0) & (cols < width))
        found = self.classes[np.ix_(np.clip(rows, 0, height - 1), np.clip(cols, 0, width - 1))]
        return np.where(there, found, np.asarray(outside, found.dtype))


def _coarser(first: int, cells: int, factor: int) -> tuple[NDArray[np.intp], int]:
    """Which of the cells from `first` on stand for coarser ones, and the first of those."""
    start, stop = first // factor, -(-(first + cells) // factor)
    return np.clip(np.arange(start, stop) * factor + factor // 2 - first, 0, cells - 1), start


def _cells(start: int, size: int, gsd_m: int, step_m: int, first: int) -> NDArray[np.intp]:
    """The cell, counted from `first`, under each pixel of a window along one axis (in 2.5 m pixels)."""
    pixel = round(start * TARGET_GSD_M / gsd_m) + np.arange(round(size * TARGET_GSD_M / gsd_m))
    return pixel * gsd_m // step_m - first
