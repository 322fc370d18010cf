"""Objects of a cube that follow from its documents: coordinates, and texts of scenes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore, StorePath

from difffusr.pipeline.cube.layout import Zone, lattice_of, periods_of
from difffusr.pipeline.cube.variables import COORDINATES
from difffusr.pipeline.geo import PixelWindow

_BY_NAME = {coordinate.name: coordinate for coordinate in COORDINATES}


def coordinates_of(documents: Mapping[str, Mapping[str, Any]], names: Collection[str] = ()) -> dict[str, bytes]:
    """The objects of a cube's coordinates by their path in the store.

    Args:
        documents: of the cube's groups and arrays by their path.
        names: of those coordinates that are wanted; all by default.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: the documents are not those of a cube.
    """
    objects: dict[str, bytes] = {}
    for path, document in documents.items():
        place = path.split("/")
        if not is_coordinate(path) or place[2] not in (names or _BY_NAME):
            continue
        epsg, level = int(place[0]), int(place[1])
        attributes = documents[f"{epsg}/0"]["attributes"]
        window, periods = PixelWindow(*attributes["difffusr:window"]), tuple(periods_of(attributes))
        zone = Zone(epsg, window, periods, 0, of_crs=lattice_of(attributes))
        objects |= _objects(path, document, _BY_NAME[place[2]].values(zone, level))
    return objects


def is_coordinate(path: str) -> bool:
    """Whether the array at a path is a coordinate of a level."""
    place = path.split("/")
    return len(place) == 3 and place[2] in _BY_NAME and place[0].isdigit() and place[1].isdigit()


def values_alike(
    path: str, document: Mapping[str, Any], stored: Mapping[str, bytes], wanted: Mapping[str, bytes]
) -> bool:
    """Whether an array with this document holds the same values in some objects, by path, as in others."""
    try:
        one, other = (np.asarray(_array(path, document, _buffers(held))[...]) for held in (stored, wanted))
        return bool(np.array_equal(one, other))
    except Exception:  # whatever a codec makes of damaged bytes
        return False


def page_object(path: str, document: Mapping[str, Any], text: str) -> dict[str, bytes]:
    """The object of a page of scenes, with this text, by its path in the store."""
    return _objects(path, document, np.array(text, np.dtypes.StringDType()))


def begins_alike(document: Mapping[str, Any], stored: bytes, wanted: bytes) -> bool:
    """Whether the first object of an array along time holds at least what it should, and perhaps more behind it: steps
    of other publications, which this document does not show.

    Args:
        document: the array's.
        stored, wanted: the object as it is and as it should be.
    """
    if stored == wanted:
        return True
    try:
        return bool(np.array_equal(_stored(document, stored), _stored(document, wanted)))
    except (ValueError, RuntimeError, LookupError):
        return False


def _stored(document: Mapping[str, Any], data: bytes) -> NDArray[Any]:
    key = next(iter(_objects("a", document, np.ones(document["shape"], document["data_type"]))))
    return np.asarray(_array("a", document, _buffers({key: data}))[...])


def _buffers(objects: Mapping[str, bytes]) -> dict[str, Buffer]:
    return {path: default_buffer_prototype().buffer.from_bytes(data) for path, data in objects.items()}


def _objects(path: str, document: Mapping[str, Any], values: NDArray[Any]) -> dict[str, bytes]:
    objects: dict[str, Buffer] = {}
    array = _array(path, document, objects)
    if array.shape != values.shape:
        raise ValueError(f"{path} has the shape {array.shape} instead of {values.shape}")
    array[...] = values
    return {key: value.to_bytes() for key, value in objects.items()}


def _array(path: str, document: Mapping[str, Any], objects: dict[str, Buffer]) -> zarr.Array[Any]:
    metadata: Any = dict(document)
    return zarr.Array(zarr.AsyncArray(metadata, StorePath(MemoryStore(objects), path)))
