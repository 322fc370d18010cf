"""Cells fit the chips that they judge."""

from __future__ import annotations

import numpy as np
import pytest

from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.plan.looks import Cells, size_of

GRID = Grid()


@pytest.mark.parametrize("grid", [GRID, Grid(96, 24, 512, 256), Grid(384, 48), Grid(66, 6, 512, 256)])
def test_cells_fit_chips_and_strides(grid):
    cells = Cells.of(grid)
    assert cells.side * cells.step_m == grid.chip_px * 10
    assert cells.stride * cells.step_m == grid.stride_px * 10
    assert size_of(np.full((2, cells.words), 2**64 - 1, np.uint64)).tolist() == [64 * cells.words] * 2
