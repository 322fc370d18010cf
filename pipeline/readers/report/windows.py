"""Reading windows of a published cube."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.storage.objects import STORE_FAILURES


class PeriodPixels:
    """Reads windows of one period of a cube: (bands, h, w) or (h, w), as stored; the fill value beyond the cube."""

    def __init__(self, cube: Cube, label: str) -> None:
        self._steps = {epsg: cube.periods(epsg)[label][0] for epsg in cube.zones if label in cube.periods(epsg)}
        self._whole = {epsg: cube.window(epsg) for epsg in self._steps}
        self._arrays = {(epsg, name): cube.array(epsg, name) for epsg in self._steps for name in cube.variables(epsg)}

    def __call__(self, epsg: int, name: str, window: PixelWindow) -> NDArray[Any]:
        """Read a window of a variable."""
        return read_padded(self._arrays[epsg, name], self._steps[epsg], window, self._whole[epsg])

    def scale(self, epsg: int) -> float:
        """Reflectance of the stored number 1."""
        return float(str(self._arrays[epsg, "reflectance"].attrs["scale_factor"]))


def shard_side(cube: Cube) -> int:
    """Side of the cube's shards in 2.5 m pixels, the same in all zones."""
    array = cube.array(next(iter(cube.zones)), "quality")
    return int((array.shards or array.chunks)[-1])


def read_padded(array: Any, step: int, window: PixelWindow, whole: PixelWindow) -> NDArray[Any]:
    """Read a window at a time step of an array (time, …, y, x) that covers `whole`; its fill value beyond.

    Raises:
        StoreError: the array cannot be read.
    """
    row, col = window.row - whole.row, window.col - whole.col
    r0, r1 = max(row, 0), min(row + window.height, whole.height)
    c0, c1 = max(col, 0), min(col + window.width, whole.width)
    lead = array.shape[1:-2]
    if r0 >= r1 or c0 >= c1:
        return np.full((*lead, window.height, window.width), array.fill_value, array.dtype)
    try:
        inside = np.asarray(array[(step, ..., slice(r0, r1), slice(c0, c1))])
    except (*STORE_FAILURES, RuntimeError) as error:  # RuntimeError comes from codecs
        raise StoreError(
            f"{array.store_path}: cannot be read ({first_line(error)}); `difffusr verify` names damaged shards"
        ) from None
    missing = [*[(0, 0)] * len(lead), (r0 - row, row + window.height - r1), (c0 - col, col + window.width - c1)]
    return np.pad(inside, missing, constant_values=array.fill_value)
