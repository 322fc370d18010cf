"""A cube's coordinates from its documents alone: what x, y, time and the others must hold, and whether they do."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore, StorePath

from difffusr.pipeline.cube.described import check_zone, understood
from difffusr.pipeline.cube.layout import BASE_LEVEL, Zone, periods_of
from difffusr.pipeline.cube.variables import COORDINATES
from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage import Storage


class CoordinateArray(NamedTuple):
    """A coordinate of a zone's level.

    Attributes:
        document: its metadata.
        path: of its array.
        values: what it must hold.
        objects: its chunks as they would be written now, by path. Another version of the codec may write others.
    """

    document: Any
    path: str
    values: NDArray[Any]
    objects: Mapping[str, bytes]

    def holds(self, objects: Mapping[str, bytes]) -> bool:
        """Whether the array holds the right values in these chunks, by path."""
        array = _array(self.document, self.path, {path: _buffer(data) for path, data in objects.items()})
        try:
            return bool(np.array_equal(np.asarray(array[...]), self.values))
        except Exception:  # whatever a codec makes of damaged bytes
            return False


def coordinates_of(storage: Storage, documents: Mapping[str, bytes]) -> Iterator[CoordinateArray]:
    """The coordinates that a cube with these documents, by path, must have, but those that an earlier version has
    described in other ways.

    Args:
        storage: of the cube, for errors.

    Raises:
        StoreError: the documents are not those of a cube.
    """
    for zone in _zones(storage, documents):
        for level in zone.levels:
            for coordinate in COORDINATES:
                path = f"{zone.level_path(level)}/{coordinate.name}"
                if (data := documents.get(f"{path}/zarr.json")) is None:
                    continue
                document, values = json.loads(data), coordinate.values(zone, level)
                if document["shape"] != list(values.shape):
                    continue
                objects: dict[str, Buffer] = {}
                try:
                    with understood(storage):
                        _array(document, path, objects)[...] = values
                except StoreError:
                    continue
                yield CoordinateArray(document, path, values, {key: part.to_bytes() for key, part in objects.items()})


def damaged_coordinates(
    storage: Storage,
    documents: Mapping[str, bytes],
    read: Callable[[Collection[str]], Mapping[str, bytes | None]],
) -> Iterator[tuple[str, bytes, bool]]:
    """Chunks of coordinates that are not what would be written now: path, what it would be, and whether the array
    still holds the right values. Raises as `coordinates_of`.

    Args:
        read: reads objects of the cube by path; None for those that do not exist.
    """
    coordinates = list(coordinates_of(storage, documents))
    there = read([path for coordinate in coordinates for path in coordinate.objects])
    for coordinate in coordinates:
        found = {path: data for path in coordinate.objects if (data := there[path]) is not None}
        if found == coordinate.objects:
            continue
        holds = coordinate.holds(found)
        for path, data in coordinate.objects.items():
            if found.get(path) != data:
                yield path, data, holds and path in found


def _zones(storage: Storage, documents: Mapping[str, bytes]) -> Iterator[Zone]:
    for path in documents:
        epsg, _, rest = path.partition("/")
        if rest != f"{BASE_LEVEL}/zarr.json" or not epsg.isdigit():
            continue
        attributes = json.loads(documents[path]).get("attributes", {})
        check_zone(attributes, storage, int(epsg))
        window, overviews = PixelWindow(*attributes["difffusr:window"]), attributes.get("difffusr:overviews", 0)
        yield Zone(int(epsg), window, tuple(periods_of(attributes)), 0, overviews)


def _array(document: Any, path: str, objects: dict[str, Buffer]) -> zarr.Array[Any]:
    return zarr.Array(zarr.AsyncArray(document, StorePath(MemoryStore(objects), path)))


def _buffer(data: bytes) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(data)
