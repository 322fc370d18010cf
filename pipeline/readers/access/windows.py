"""Blocks of a cube's arrays, many at a time, each shard's index asked for once; and which shards nobody has written."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import StorePath, WrapperStore

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.storage import store_failures

#: Blocks that are read at a time: enough for a store that takes 30 ms a request. A block of all bands has 1.5 MB.
_AT_ONCE = 32

#: Shards whose indexes are kept, 1 kB each.
_INDEXES = 8192

#: Of a variable without bands a whole shard is read where more of its chunks are wanted: its objects are small.
_FEW_CHUNKS = 2

#: Called with the number of a block and its values, (bands, h, w) or (h, w) as stored.
OnBlock = Callable[[int, NDArray[Any]], None]


class _Keeping(WrapperStore[Store]):
    """A store whose shards' indexes are asked for once, however many want them at a time."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._asked: OrderedDict[str, asyncio.Task[Buffer | None]] = OrderedDict()
        self.absent: set[str] = set()

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """See `Store`."""
        if not isinstance(byte_range, SuffixByteRequest):
            found = await self._store.get(key, prototype, byte_range)
        else:
            task = self._asked.get(key)
            if task is None:
                task = self._asked[key] = asyncio.ensure_future(self._store.get(key, prototype, byte_range))
                if len(self._asked) > _INDEXES:
                    self._asked.popitem(last=False)
            try:
                found = await asyncio.shield(task)
            except BaseException:
                self._asked.pop(key, None)
                raise
        if found is None:
            self.absent.add(key)
        elif len(found) < (byte_range.suffix if isinstance(byte_range, SuffixByteRequest) else 1):
            raise ValueError(f"{key} has {len(found)} bytes")  # zarr would take an empty object for one without data
        return found


@dataclass(frozen=True)
class Block:
    """A rectangle of an array at a step of time, in pixels from its upper left corner."""

    rows: slice
    cols: slice


@dataclass(frozen=True)
class Wanted:
    """A block of a variable of a zone's level."""

    epsg: int
    name: str
    step: int
    block: Block
    level: int = 0


class Windows:
    """A cube's pixels, in the state in which it was opened. May be pickled, and used in processes that were forked."""

    def __init__(self, cube: Cube) -> None:
        self.cube = cube
        self._begin(cube.group(next(iter(cube.zones))).store)

    def _begin(self, store: Store) -> None:
        self._store, self._pid = _Keeping(store), os.getpid()
        self._arrays: dict[tuple[int, int, str], zarr.AsyncArray[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"cube": self.cube}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["cube"])  # type: ignore[misc]

    def _array(self, epsg: int, name: str, level: int) -> zarr.AsyncArray[Any]:
        if self._pid != os.getpid():
            # Connections do not survive a fork; what describes the store does.
            self._begin(pickle.loads(pickle.dumps(self._store._store)))
        array = self._arrays.get((epsg, level, name))
        if array is None:
            told = self.cube.array(epsg, name, level)
            array = zarr.AsyncArray(told.metadata, StorePath(self._store, told.path))
            self._arrays[epsg, level, name] = array
        return array

    def shape(self, epsg: int, level: int = 0) -> tuple[int, int]:
        """(height, width) of a level in its own pixels."""
        height, width = self.cube.array(epsg, "quality", level).shape[-2:]
        return height, width

    def shard_px(self, epsg: int, level: int = 0) -> tuple[int, int]:
        """Height and width of a level's shards."""
        array = self.cube.array(epsg, "quality", level)
        height, width = (array.shards or array.chunks)[-2:]
        return height, width

    def chunk_px(self, epsg: int, level: int = 0) -> tuple[int, int]:
        """Height and width of a level's chunks of reflectance: what is read at least."""
        height, width = self.cube.array(epsg, "reflectance", level).chunks[-2:]
        return height, width

    def read_all(self, wanted: Sequence[Wanted], on_block: OnBlock) -> None:
        """Read blocks, many at a time; each lies within its array.

        Raises:
            StoreError: the store refuses, or a chunk is damaged.
        """
        room = asyncio.Semaphore(_AT_ONCE)
        arrays = [self._array(part.epsg, part.name, part.level) for part in wanted]

        async def one(number: int, array: zarr.AsyncArray[Any], part: Wanted) -> None:
            async with room:
                try:
                    values = await array.getitem((part.step, ..., part.block.rows, part.block.cols))
                except store_failures(RuntimeError) as error:  # the last one: of a codec
                    raise StoreError(
                        f"{array.store_path}: cannot be read ({first_line(error)}); `difffusr verify` names damaged "
                        "shards"
                    ) from None
                on_block(number, np.asarray(values))

        async def every() -> None:
            await asyncio.gather(*map(one, range(len(wanted)), arrays, wanted))

        sync(every())

    def read_blocks(
        self, epsg: int, name: str, step: int, blocks: Sequence[Block], on_block: OnBlock, level: int = 0
    ) -> None:
        """As `read_all`, of one variable."""
        self.read_all([Wanted(epsg, name, step, block, level) for block in blocks], on_block)

    def read(self, epsg: int, name: str, step: int, window: PixelWindow, level: int = 0) -> NDArray[Any]:
        """(bands, h, w) or (h, w) of a window in a level's own pixels, from its upper left corner; the fill value past
        its edges.

        Raises:
            StoreError: the store refuses, or a chunk is damaged.
        """
        array = self._array(epsg, name, level)
        height, width = self.shape(epsg, level)
        bands = array.shape[1:-2]
        out = np.full((*bands, window.height, window.width), array.metadata.fill_value, array.dtype)
        inside = _inside(window, height, width)
        if inside is None:
            return out
        blocks = list(self._blocks(array, inside, flat=not bands))

        def put(number: int, values: NDArray[Any]) -> None:
            block = blocks[number]
            rows, taken_rows = _shared(block.rows, window.row, window.height)
            cols, taken_cols = _shared(block.cols, window.col, window.width)
            out[..., rows, cols] = values[..., taken_rows, taken_cols]

        self.read_blocks(epsg, name, step, blocks, put, level)
        return out

    def _blocks(self, array: zarr.AsyncArray[Any], inside: PixelWindow, *, flat: bool) -> Iterator[Block]:
        """What to read of an array for a window: parts of chunks, of variables without bands also whole shards."""
        chunk, shard = array.chunks[-2:], (array.shards or array.chunks)[-2:]
        for rows in _cut(inside.row, inside.row_stop, shard[0]):
            for cols in _cut(inside.col, inside.col_stop, shard[1]):
                parts = [
                    Block(row, col)
                    for row in _cut(rows.start, rows.stop, chunk[0])
                    for col in _cut(cols.start, cols.stop, chunk[1])
                ]
                if flat and len(parts) > _FEW_CHUNKS:
                    height, width = array.shape[-2:]
                    yield Block(_whole(rows, shard[0], height), _whole(cols, shard[1], width))
                else:
                    yield from parts

    def unwritten(
        self, epsg: int, step: int, rows: NDArray[np.int64], cols: NDArray[np.int64], level: int = 0
    ) -> NDArray[np.bool_]:
        """Which shards, by row and column, nobody has written in a period: (n,) bool. Those beyond the array's edges
        are among them.

        Raises:
            StoreError: the store refuses.
        """
        array = self._array(epsg, "quality", level)
        high, wide = self.shard_px(epsg, level)
        height, width = self.shape(epsg, level)
        found = (rows < 0) | (cols < 0) | (rows * high >= height) | (cols * wide >= width)
        places = {(int(row), int(col)) for row, col in zip(rows[~found], cols[~found], strict=True)}
        absent = self._absent(array, step, sorted(places))
        found[~found] = [(row, col) in absent for row, col in zip(rows[~found], cols[~found], strict=True)]
        return found

    def _absent(
        self, array: zarr.AsyncArray[Any], step: int, places: Sequence[tuple[int, int]]
    ) -> set[tuple[int, int]]:
        encode = array.metadata.chunk_key_encoding.encode_chunk_key
        keys = {place: f"{array.path}/{encode((step, *place))}" for place in places}
        room = asyncio.Semaphore(_AT_ONCE)

        async def there(key: str) -> bool:
            if key in self._store.absent or key in self._store._asked:
                return key not in self._store.absent
            async with room:
                found = await self._store.exists(key)
            if not found:
                self._store.absent.add(key)
            return found

        async def every() -> list[bool]:
            return await asyncio.gather(*map(there, keys.values()))

        try:
            return {place for place, found in zip(keys, sync(every()), strict=True) if not found}
        except store_failures() as error:
            raise StoreError(f"{array.store_path}: cannot be read ({first_line(error)}); check the store") from None


def _cut(start: int, stop: int, side: int) -> Iterator[slice]:
    """Cut a range at the multiples of a number."""
    while start < stop:
        end = min((start // side + 1) * side, stop)
        yield slice(start, end)
        start = end


def _whole(part: slice, side: int, most: int) -> slice:
    start = part.start // side * side
    return slice(start, min(start + side, most))


def _shared(block: slice, start: int, size: int) -> tuple[slice, slice]:
    """What a block and a window have in common along an axis: in the window, and in the block."""
    first, last = max(block.start, start), min(block.stop, start + size)
    return slice(first - start, last - start), slice(first - block.start, last - block.start)


def _inside(window: PixelWindow, height: int, width: int) -> PixelWindow | None:
    row, col = max(window.row, 0), max(window.col, 0)
    bottom, right = min(window.row_stop, height), min(window.col_stop, width)
    return PixelWindow(row, col, bottom - row, right - col) if row < bottom and col < right else None
