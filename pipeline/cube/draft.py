"""A cube's next state: metadata in memory, shards written to where it will look for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

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


class OvertakenError(StoreError):
    """Somebody else has written an object in the meantime: what was to replace it was not written."""


@dataclass(frozen=True)
class StoredShard:
    """What was written of a shard.

    Attributes:
        checksums: sha256 of each object's bytes, by its path in the store.
        sizes: their number.
    """

    checksums: Mapping[str, str]
    sizes: Mapping[str, int]


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

    def write_shard(
        self,
        epsg: int,
        shard: AnyShard,
        data: ShardData,
        store: Store | None = None,
        only: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> StoredShard:
        """Write one whole shard of every variable and read it back.

        A shard is encoded in memory and written by one request, which does not read the old object first. Then it is
        read back and compared byte for byte. On this machine's file system it is on the disk when this returns.

        Args:
            store: an Icechunk session's; the cube's own by default.
            only: the sha256 that each object must have, by its path: where one comes out otherwise, none is written.
            tags: of the objects that may be replaced, by path: see `Storage.exchange`. By default all may.

        Returns:
            what was written.

        Raises:
            StoreError: the store refuses, or returns other bytes than were written.
            OvertakenError: an object is not the one of `tags` any more.
        """
        checksums, sizes = {}, {}
        if only is not None and any(_sha256(object_) != only[key] for key, object_ in self._objects(epsg, shard, data)):
            return StoredShard({}, {})
        for key, encoded in self._objects(epsg, shard, data):
            self._place(key, encoded, store, None if tags is None else tags.get(key, ""))
            checksums[key], sizes[key] = _sha256(encoded), len(encoded)
        return StoredShard(checksums, sizes)

    def _objects(self, epsg: int, shard: AnyShard, data: ShardData) -> Iterator[tuple[str, Buffer]]:
        """Path and content of each object of a shard, encoded one after the other."""
        zone = self.zones[epsg]
        level, *place = zone.position(shard, self.grid)
        keys = dict(zip(zone.variables, self.shard_objects(epsg, shard), strict=True))
        variables: dict[str, NDArray[Any] | None] = {
            "reflectance": data.reflectance,
            "quality": data.quality,
            "source": data.source,
            "reflectance_std": data.std,
            "looks": data.looks,
        }
        for name, values in variables.items():
            if values is not None:
                path = f"{zone.level_path(level)}/{name}"
                yield keys[name], self._encoded(path, keys[name], (zone.step, *place), values)

    def _place(self, key: str, encoded: Buffer, store: Store | None, tag: str | None) -> None:
        """Write an object and read it back."""
        into = store or self.store
        if tag is not None and not self.storage.exchange(key, self._content(encoded), tag):
            raise OvertakenError(f"{self.storage.url}/{key}: somebody else has written it meanwhile; run again")
        try:
            if tag is None:
                sync(into.set(key, encoded))
            whole = _holds(into, key, encoded)
        except store_failures() as error:
            raise StoreError(f"{self.storage.url}/{key}: cannot be written ({first_line(error)})") from None
        if not whole:
            raise StoreError(f"{self.storage.url}/{key}: the store returns other bytes than were written; run again")
        if store is None and tag is None:
            self.storage.sync(key)

    def _content(self, encoded: Buffer) -> bytes:
        """An object's bytes; where it becomes a file, without a copy."""
        return cast(bytes, encoded.as_buffer_like()) if self.storage.is_local else encoded.to_bytes()

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


def _sha256(encoded: Buffer) -> str:
    return hashlib.sha256(encoded.as_buffer_like()).hexdigest()


def _holds(store: Store, path: str, expected: Buffer) -> bool:
    """Whether a store returns these bytes. They are read in pieces, to bound memory."""
    for start in range(0, len(expected), _READ_BACK):
        piece = expected[start : start + _READ_BACK].as_numpy_array()
        asked = RangeByteRequest(start, start + len(piece))
        returned = sync(store.get(path, default_buffer_prototype(), asked))
        if returned is None or not np.array_equal(returned.as_numpy_array(), piece):
            return False
    return True
