"""A cube's metadata documents, as readers see them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from difffusr.pipeline.cube.store import open_store
from difffusr.pipeline.storage.icechunk import failures_of, is_repository, open_repository
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
    if not is_repository(storage):
        return lambda path: storage.read(path) if storage.exists(path) else None
    if open_repository(storage) is None:
        return lambda path: None
    store = open_store(storage)

    def found(path: str) -> bytes | None:
        with failures_of(storage):
            return _bytes_at(store, path)

    return found


def object_bytes(storage: Storage, path: str) -> bytes | None:
    """One object of a cube as readers see it; None where there is none. Of many: `objects_of`.

    Raises:
        StoreError: the store refuses.
    """
    return objects_of(storage)(path)


def metadata(storage: Storage, path: str) -> dict[str, Any] | None:
    """A JSON document of a cube as readers see it; None where there is none."""
    data = object_bytes(storage, path)
    document: dict[str, Any] | None = None if data is None else json.loads(data)
    return document


def _bytes_at(store: Store, path: str) -> bytes | None:
    value = sync(store.get(path, default_buffer_prototype()))
    return None if value is None else bytes(value.to_bytes())


def published_documents(storage: Storage) -> dict[str, dict[str, Any]]:
    """Metadata of every group and array below the root, by path, as readers see it: of the root's consolidated
    metadata.
    Of an Icechunk repository nothing: what its snapshots hold is of one piece by itself."""
    root = metadata(storage, "zarr.json") or {}
    found: dict[str, dict[str, Any]] = (root.get("consolidated_metadata") or {}).get("metadata", {})
    return found
