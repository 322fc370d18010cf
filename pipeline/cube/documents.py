"""A cube's metadata documents, as readers see them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore, StorePath

from difffusr.pipeline.cube.described import ADVICE, check_scenes
from difffusr.pipeline.cube.protocol import CubeStore
from difffusr.pipeline.cube.scenes import PAGES
from difffusr.pipeline.cube.store import store_of
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage import Storage, parse_document

#: Name of a group's or array's document below its path.
_NAME = "zarr.json"


def is_document(path: str) -> bool:
    """Whether an object of a cube is the document of a group or array."""
    return path.rpartition("/")[2] == _NAME


def node_of(path: str) -> str:
    """Path of the group or array that a document describes; empty for the root."""
    return path.removesuffix(_NAME).rstrip("/")


def texts_of(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """Every document of a cube as an object, by the object's path. The root, zones and levels hold those of all groups
    and arrays below them, so that one request is enough to know them.

    Args:
        documents: by path of the group or array, without what they hold of others.
    """
    plain = {
        path: {**document, **_holding({})} if _is_group(document) else document
        for path, document in sorted(documents.items())
    }
    within: dict[str, dict[str, Any]] = {path: {} for path, document in plain.items() if _is_group(document)}
    for path, document in plain.items():
        parents = path.split("/")[:-1]
        for above in [] if not path else ["", *("/".join(parents[:n]) for n in range(1, len(parents) + 1))]:
            if above in within:
                within[above][path[len(above) :].lstrip("/")] = document
    texts = {}
    for path, document in plain.items():
        if path in within and path.split("/")[0] != PAGES:
            document = {**document, **_holding(within[path])}
        texts[f"{path}/{_NAME}".lstrip("/")] = json.dumps(document, separators=(",", ":")).encode()
    return texts


def content_of(path: str, data: bytes) -> bytes:
    """An object's content for comparison: a document without its layout and consolidated metadata, which a snapshot
    does not need; what is no document is itself."""
    try:
        document = json.loads(data) if is_document(path) else None
    except ValueError:
        return data
    if not isinstance(document, dict):
        return data
    return json.dumps(without_members(document), sort_keys=True).encode()


def without_members(document: Mapping[str, Any]) -> dict[str, Any]:
    """A group's or array's document without what it holds of those below it."""
    return {name: value for name, value in document.items() if name != "consolidated_metadata"}


def _holding(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": metadata}}


def _is_group(document: Mapping[str, Any]) -> bool:
    return document["node_type"] == "group"


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


def page_of(store: CubeStore, path: str) -> dict[int, dict[str, Any]]:
    """The facts on a page of scenes, by number.

    Raises:
        StoreError: the store refuses, there is no such page, or it is damaged.
    """
    document = store.group(path)
    if document is None:
        raise StoreError(f"{store.storage.url}/{path}: is missing; {ADVICE}")
    data = store.objects()(f"{path}/c")
    text = None if data is None else text_of(document, path, data)
    if text is None:
        raise StoreError(f"{store.storage.url}/{path}: is not a page of scenes; {ADVICE}")
    return check_scenes(text, f"{store.storage.url}/{path}")


def text_of(document: Mapping[str, Any], path: str, data: bytes) -> str | None:
    """The text of a page of scenes whose only chunk holds these bytes; None if they are damaged."""
    try:
        return text_in(document, MemoryStore({f"{path}/c": default_buffer_prototype().buffer.from_bytes(data)}), path)
    except Exception:  # whatever a codec makes of damaged bytes
        return None


def text_in(document: Mapping[str, Any], store: Store, path: str) -> str:
    """The text that an array without dimensions holds, by its document."""
    metadata: Any = dict(document)
    return str(zarr.Array(zarr.AsyncArray(metadata, StorePath(store, path)))[()])
