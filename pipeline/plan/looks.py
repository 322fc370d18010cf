"""Which cells of each chip a scene shows, and shows clear, by its mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from difffusr.pipeline.engine import in_order
from difffusr.pipeline.geo import GSD_10_M, LATTICE_M, Grid
from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.scenes import ChipRules, MaskClass, Scene, doubt_of_offset, maker_of, mask_overview


@dataclass(frozen=True)
class Cells:
    """The cells that chips are judged by: a square per chip, one sample of the mask per cell.

    Attributes:
        step_m: side of a cell in metres, 60 or, for chips of a kilometre or more, 120.
        side: cells along a chip.
        stride: cells from one chip to the next.
    """

    step_m: int
    side: int
    stride: int

    @classmethod
    def of(cls, grid: Grid) -> Cells:
        """The cells of a grid's chips: 16 × 16 of 120 m in a chip of 192 pixels."""
        chip_m, stride_m = grid.chip_px * GSD_10_M, grid.stride_px * GSD_10_M
        coarse = chip_m >= 1000 and not (chip_m % 120 or stride_m % 120)
        step = 2 * LATTICE_M if coarse else LATTICE_M
        return cls(step, chip_m // step, stride_m // step)

    @property
    def count(self) -> int:
        """Cells of a chip."""
        return self.side**2

    @property
    def words(self) -> int:
        """64-bit words needed for a set of a chip's cells."""
        return -(-self.count // 64)


@dataclass(frozen=True, eq=False)
class Look:
    """Which cells one scene shows.

    Attributes:
        row, col: (n,) int32 chips that it shows part of.
        valid, clear: (n, words) uint64 sets of cells: with data, and clear as well.
        judged: whether clouds are known.
        doubt: what speaks against the radiometric offset that its item states, "" for nothing.
    """

    row: NDArray[np.int32]
    col: NDArray[np.int32]
    valid: NDArray[np.uint64]
    clear: NDArray[np.uint64]
    judged: bool
    doubt: str = ""


def look_at_all(scenes: Sequence[Scene], grid: Grid, rules: ChipRules) -> Iterator[Look | ReadError]:
    """Each scene's look, or why it cannot be read, in the scenes' order; read in parallel."""
    return in_order(partial(_try_look, grid=grid, rules=rules), scenes)


def _try_look(scene: Scene, grid: Grid, rules: ChipRules) -> Look | ReadError:
    try:
        return look_at(scene, grid, rules)
    except ReadError as error:
        return error


def look_at(scene: Scene, grid: Grid, rules: ChipRules) -> Look:
    """Look at a scene: at its mask, in one read of an overview where that is its classification; and at a band where
    its offset is only stated.

    Raises:
        ReadError: the file cannot be read.
    """
    cells = Cells.of(grid)
    mask, judged = mask_overview(scene, cells.step_m, rules), maker_of(rules).judges(scene)
    clear = mask.classes == MaskClass.CLEAR
    rows, cols, sets = _sets(mask.classes != MaskClass.NO_DATA, mask.row, mask.col, cells)
    clear_sets = _sets(clear, mask.row, mask.col, cells)[2] if judged else sets
    seen = sets.any(axis=1)
    doubt = doubt_of_offset(scene, clear, cells.step_m)
    return Look(rows[seen], cols[seen], sets[seen], clear_sets[seen], judged, doubt)


def _sets(
    mask: NDArray[np.bool_], row: int, col: int, cells: Cells
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint64]]:
    """Rows and columns of the chips that a mask touches, and the set of cells of each that are true.

    `row`, `col`: lattice position of the mask's first cell, in cells.
    """
    side, stride = cells.side, cells.stride
    r0, c0 = (row - side) // stride + 1, (col - side) // stride + 1
    r1, c1 = (row + mask.shape[0] - 1) // stride, (col + mask.shape[1] - 1) // stride
    bottom = r1 * stride + side - row - mask.shape[0]
    right = c1 * stride + side - col - mask.shape[1]
    padded = np.pad(mask, ((row - r0 * stride, max(bottom, 0)), (col - c0 * stride, max(right, 0))))
    windows = sliding_window_view(padded, (side, side))[::stride, ::stride][: r1 - r0 + 1, : c1 - c0 + 1]
    packed = np.packbits(windows.reshape(-1, cells.count), axis=1, bitorder="little")
    sets = np.zeros((len(packed), cells.words * 8), np.uint8)
    sets[:, : packed.shape[1]] = packed
    rows, cols = np.mgrid[r0 : r1 + 1, c0 : c1 + 1].astype(np.int32)
    return rows.ravel(), cols.ravel(), sets.view(np.uint64)


def size_of(sets: NDArray[np.uint64]) -> NDArray[np.int32]:
    """(…,) number of cells in sets (…, words)."""
    return np.bitwise_count(sets).sum(axis=-1, dtype=np.int32)
