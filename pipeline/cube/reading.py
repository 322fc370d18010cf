"""Windows of a cube's arrays, filled up where they reach past the edge."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync
from zarr.storage import MemoryStore, StorePath

from difffusr.pipeline.cube.described import check_arrays, understood
from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.layout import BASE_LEVEL
from difffusr.pipeline.cube.store import root_of, store_of
from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.storage import Storage, store_failures


def read_window(array: zarr.Array[Any], step: int, window: PixelWindow, whole: PixelWindow) -> NDArray[Any]:
    """A window of an array at a step of time, (bands, h, w) or (h, w) as stored; the fill value past the array's edge.

    Args:
        array: (time, band, y, x) or (time, y, x).
        window: in the same pixels as `whole`.
        whole: what the array covers.

    Raises:
        StoreError: the store refuses, or a chunk is damaged.
    """
    row, col = window.row - whole.row, window.col - whole.col
    top, bottom = max(row, 0), min(row + window.height, whole.height)
    left, right = max(col, 0), min(col + window.width, whole.width)
    bands = array.shape[1:-2]
    if top >= bottom or left >= right:
        return np.full((*bands, window.height, window.width), array.fill_value, array.dtype)
    try:
        inside = np.asarray(array[(step, ..., slice(top, bottom), slice(left, right))])
    except store_failures(RuntimeError) as error:  # the last one: of a codec
        raise StoreError(
            f"{array.store_path}: cannot be read ({first_line(error)}); `difffusr verify` names damaged shards"
        ) from None
    if inside.shape[-2:] == (window.height, window.width):
        return inside
    beyond = [(top - row, row + window.height - bottom), (left - col, col + window.width - right)]
    return np.pad(inside, [*[(0, 0)] * len(bands), *beyond], constant_values=array.fill_value)


def held_whole(array: zarr.Array[Any], step: int, window: PixelWindow, whole: PixelWindow) -> zarr.Array[Any]:
    """An array whose objects below a window are in memory: one request each, where reading the window would take one
    for each of their chunks. Worth it for variables without bands, whose objects are small.

    Args:
        array: (time, y, x), sharded.
        window, whole: as of `read_window`.

    Raises:
        StoreError: the store refuses.
    """
    high, wide = (array.shards or array.chunks)[-2:]
    row, col = window.row - whole.row, window.col - whole.col
    rows = range(max(row, 0) // high, -(-min(row + window.height, whole.height) // high))
    cols = range(max(col, 0) // wide, -(-min(col + window.width, whole.width) // wide))
    store, held = array.store_path, MemoryStore()

    async def fetch() -> None:
        encode = array.metadata.chunk_key_encoding.encode_chunk_key  # type: ignore[union-attr]
        keys = [encode((step, r, c)) for r in rows for c in cols]
        found = await asyncio.gather(*((store / key).get() for key in keys))
        for key, data in zip(keys, found, strict=True):
            if data is not None:
                await (StorePath(held, store.path) / key).set(data)

    try:
        sync(fetch())
    except store_failures(RuntimeError) as error:
        raise StoreError(f"{store}: cannot be read ({first_line(error)}); check the store") from None
    return zarr.Array(zarr.AsyncArray(array.metadata, StorePath(held, store.path)))


class CubeReader:
    """Windows of a published cube in absolute pixels, at the step of time that a draft describes."""

    def __init__(self, storage: Storage, draft: CubeDraft) -> None:
        with understood(storage):
            self._root = root_of(store_of(storage))
            for epsg in draft.zones:
                check_arrays(self._root[f"{epsg}/{BASE_LEVEL}"], storage, epsg, 0)
        self._draft = draft

    def read(self, epsg: int, name: str, window: PixelWindow) -> NDArray[Any]:
        """A window of a variable, see `read_window`."""
        zone = self._draft.zones[epsg]
        array = self._root[f"{zone.path}/{name}"]
        assert isinstance(array, zarr.Array)
        return read_window(array, zone.step, window, zone.window)
