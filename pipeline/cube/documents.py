"""A cube's metadata documents, as readers see them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from difffusr.pipeline.cube.store import store_of
from difffusr.pipeline.storage.objects import Storage


def in_order(objects: Mapping[str, bytes]) -> list[str]:
    """Paths of a cube's objects in the order in which they may be put in place: coordinates, arrays, then groups from
    the inside out. The root comes last: xarray finds every group by its consolidated metadata, so that this one object
    switches all zones at once."""

    def order(path: str) -> tuple[int, int, str]:
        if not path.endswith("zarr.json"):
            return 0, 0, path
        return (1 if json.loads(objects[path])["node_type"] == "array" else 2), -path.count("/"), path

    return sorted(objects, key=order)


def objects_of(storage: Storage) -> Callable[[str], bytes | None]:
    """Opens a cube once and gives its objects by path, as readers see them; None for one that is not there.

    Raises:
        StoreError: the store refuses.
    """
    return store_of(storage).objects()


def object_bytes(storage: Storage, path: str) -> bytes | None:
    """One object of a cube as readers see it; None where there is none. For many, use `objects_of`.

    Raises:
        StoreError: the store refuses.
    """
    return objects_of(storage)(path)


def metadata(storage: Storage, path: str) -> dict[str, Any] | None:
    """A JSON document of a cube as readers see it; None where there is none."""
    data = object_bytes(storage, path)
    document: dict[str, Any] | None = None if data is None else json.loads(data)
    return document
