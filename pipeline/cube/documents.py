"""A cube's metadata documents, as readers see them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from difffusr.pipeline.cube.described import ADVICE
from difffusr.pipeline.cube.store import store_of
from difffusr.pipeline.storage import Storage, parse_document


def in_steps(objects: Mapping[str, bytes]) -> list[list[str]]:
    """Paths of a cube's objects, those that may be written at the same time together, in the order in which they may be
    written: coordinates, arrays, then groups from the inside out. The root comes last: xarray finds every group in its
    consolidated metadata, so this one object switches all zones at once."""

    def order(path: str) -> tuple[int, int]:
        if not path.endswith("zarr.json"):
            return 0, 0
        is_array = json.loads(objects[path])["node_type"] == "array"
        return (1, 0) if is_array else (2, -path.count("/"))

    found: dict[tuple[int, int], list[str]] = {}
    for path in sorted(objects):
        found.setdefault(order(path) if path != "zarr.json" else (3, 0), []).append(path)
    return [found[step] for step in sorted(found)]


def in_order(objects: Mapping[str, bytes]) -> list[str]:
    """Paths of a cube's objects in the order of `in_steps`."""
    return [path for paths in in_steps(objects) for path in paths]


def objects_of(storage: Storage) -> Callable[[str], bytes | None]:
    """Open a cube once; returns a function that reads its objects by path, None for one that does not exist.

    Raises:
        StoreError: the store refuses.
    """
    return store_of(storage).objects()


def object_bytes(storage: Storage, path: str) -> bytes | None:
    """One object of a cube as readers see it, or None. For many, use `objects_of`.

    Raises:
        StoreError: the store refuses.
    """
    return objects_of(storage)(path)


def metadata(storage: Storage, path: str) -> dict[str, Any] | None:
    """A JSON document of a cube as readers see it, or None."""
    data = object_bytes(storage, path)
    return None if data is None else parse_document(data, dict[str, Any], f"{storage.url}/{path}", ADVICE)
