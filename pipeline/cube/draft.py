"""A cube's next state: metadata in memory, shards written to where it will look for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore, StorePath

from difffusr.pipeline.cube.documents import in_order
from difffusr.pipeline.cube.layout import AnyShard, Zone, chunk_key
from difffusr.pipeline.cube.scenes import SceneTable
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.cube.store import open_store
from difffusr.pipeline.geo import Grid
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.storage import Storage, store_failures

#: Bytes of a shard that are read back at a time.
_READ_BACK = 16 << 20


@dataclass(frozen=True)
class CubeDraft:
    """A cube's next state: metadata in memory, and where its shards are written.

    Attributes:
        storage: where the cube is.
        grid: its shards and chunks.
        zones: by EPSG code.
        scenes: facts by number, of every scene that a `source` pixel of the period can refer to.
        objects: bytes by path, of the metadata and coordinates of its zones, the root, and the period's page of scenes.
        documents: metadata of all groups and arrays of the cube, other zones' included, by their path; a group's
            without what it holds of those below it.
        table: where the facts of scenes stand.
        pages: the text of each page of scenes among the objects, by its array's path.
    """

    storage: Storage
    grid: Grid
    zones: Mapping[int, Zone]
    scenes: Mapping[int, Mapping[str, Any]]
    objects: Mapping[str, bytes]
    documents: Mapping[str, Mapping[str, Any]]
    table: SceneTable
    pages: Mapping[str, str]

    @cached_property
    def store(self) -> Store:
        """The cube's Zarr store; of an Icechunk repository use a session's."""
        return open_store(self.storage, read_only=False)

    def write_shard(self, epsg: int, shard: AnyShard, data: ShardData, store: Store | None = None) -> dict[str, str]:
        """Write one whole shard of every variable and read it back.

        A shard is encoded in memory and written by one request, which does not read the old object first. Then it is
        read back and compared byte for byte.

        Args:
            store: an Icechunk session's; the cube's own by default.

        Returns:
            the sha256 of each object written, by its path in the store.

        Raises:
            StoreError: the store refuses, or returns other bytes than were written.
        """
        zone = self.zones[epsg]
        level, *place = zone.position(shard, self.grid)
        store = store or self.store
        keys = dict(zip(zone.variables, self.shard_objects(epsg, shard), strict=True))
        variables: dict[str, NDArray[Any]] = {
            "reflectance": data.reflectance,
            "quality": data.quality,
            "source": data.source,
        }
        if data.std is not None:
            variables["reflectance_std"] = data.std
        if data.looks is not None:
            variables["looks"] = data.looks
        checksums = {}
        for name, values in variables.items():
            key = keys[name]
            encoded = self._encoded(f"{zone.level_path(level)}/{name}", key, (zone.step, *place), values)
            try:
                sync(store.set(key, encoded))
                whole = _holds(store, key, encoded)
            except store_failures() as error:
                raise StoreError(f"{self.storage.url}/{key}: cannot be written ({first_line(error)})") from None
            if not whole:
                raise StoreError(
                    f"{self.storage.url}/{key}: the store returns other bytes than were written; run again"
                )
            checksums[key] = hashlib.sha256(encoded.as_buffer_like()).hexdigest()
        return checksums

    def _encoded(self, path: str, key: str, place: Sequence[int], values: NDArray[Any]) -> Buffer:
        """A shard's object at `key` of the array at `path`; `place` is (time, row, col), in shards. Pixels past the
        array's edge are cut off."""
        time, row, col = place
        size = self.grid.shard_px
        here = np.s_[row * size : (row + 1) * size, col * size : (col + 1) * size]
        bands = (slice(None),) * (values.ndim - 2)
        objects: dict[str, Buffer] = {}
        array = self.array(MemoryStore(objects), path)
        height, width = (min(size, length - at * size) for length, at in zip(array.shape[-2:], (row, col), strict=True))
        array[(slice(time, time + 1), *bands, *here)] = values[None, ..., :height, :width]
        return objects[key]

    def shard_objects(self, epsg: int, shard: AnyShard) -> list[str]:
        """Paths of a shard's objects, one a variable, in the order of `Zone.variables`."""
        zone = self.zones[epsg]
        level, row, col = zone.position(shard, self.grid)
        return [
            f"{zone.level_path(level)}/{name}/"
            f"{chunk_key(zone.revision, (zone.step, *((0,) if name.startswith('reflectance') else ()), row, col))}"
            for name in zone.variables
        ]

    def in_order(self) -> list[str]:
        """Paths of all objects in the order in which they may be written: see `in_order`."""
        return in_order(self.objects)

    def array(self, store: Store, path: str) -> zarr.Array:
        """An array of the draft, in a store that need not have its metadata yet."""
        document = json.loads(self.objects[f"{path}/zarr.json"])
        inner = zarr.AsyncArray(document, StorePath(store, path), config={"write_empty_chunks": True})
        return zarr.Array(inner)


def _holds(store: Store, path: str, expected: Buffer) -> bool:
    """Whether a store returns these bytes. They are read in pieces, to bound memory."""
    for start in range(0, len(expected), _READ_BACK):
        piece = expected[start : start + _READ_BACK].as_numpy_array()
        asked = RangeByteRequest(start, start + len(piece))
        returned = sync(store.get(path, default_buffer_prototype(), asked))
        if returned is None or not np.array_equal(returned.as_numpy_array(), piece):
            return False
    return True
