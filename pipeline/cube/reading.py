"""Windows of a published cube."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.store import open_store
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.storage.objects import Storage


class CubeReader:
    """Windows of a published cube in absolute pixels, at the step of time that a draft describes."""

    def __init__(self, storage: Storage, draft: CubeDraft) -> None:
        self._root = zarr.open_group(open_store(storage), mode="r")
        self._draft = draft

    def read(self, epsg: int, name: str, window: PixelWindow) -> NDArray[Any]:
        """(bands, h, w) or (h, w) of a variable, as stored; its fill value where the window reaches past the cube."""
        zone = self._draft.zones[epsg]
        row, col = window.row - zone.window.row, window.col - zone.window.col
        array = self._root[f"{zone.path}/{name}"]
        assert isinstance(array, zarr.Array)
        r0, r1 = max(row, 0), min(row + window.height, zone.window.height)
        c0, c1 = max(col, 0), min(col + window.width, zone.window.width)
        inside = np.asarray(array[(zone.step, ..., slice(r0, r1), slice(c0, c1))])
        missing = [(0, 0)] * (inside.ndim - 2)
        missing += [(r0 - row, row + window.height - r1), (c0 - col, col + window.width - c1)]
        return np.pad(inside, missing, constant_values=array.fill_value)
