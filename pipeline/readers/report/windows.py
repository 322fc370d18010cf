"""Reading windows of a published cube."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from difffusr.pipeline.cube import Cube, read_window
from difffusr.pipeline.geo import PixelWindow


class PeriodPixels:
    """Reads windows of one period of a cube: (bands, h, w) or (h, w), as stored; the fill value beyond the cube."""

    def __init__(self, cube: Cube, label: str) -> None:
        self._steps = {epsg: cube.periods(epsg)[label][0] for epsg in cube.zones if label in cube.periods(epsg)}
        self._whole = {epsg: cube.window(epsg) for epsg in self._steps}
        self._arrays = {(epsg, name): cube.array(epsg, name) for epsg in self._steps for name in cube.variables(epsg)}

    def __call__(self, epsg: int, name: str, window: PixelWindow) -> NDArray[Any]:
        """Read a window of a variable."""
        return read_window(self._arrays[epsg, name], self._steps[epsg], window, self._whole[epsg])

    def scale(self, epsg: int) -> float:
        """Reflectance of the stored number 1."""
        return float(str(self._arrays[epsg, "reflectance"].attrs["scale_factor"]))


def shard_side(cube: Cube) -> int:
    """Side of the cube's shards in 2.5 m pixels, the same in all zones."""
    array = cube.array(next(iter(cube.zones)), "quality")
    return int((array.shards or array.chunks)[-1])
