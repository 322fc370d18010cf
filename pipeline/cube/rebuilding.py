"""What a cube's coordinates and pages of scenes must hold, by its documents, and whether they do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from difffusr.pipeline.cube.coordinates import coordinates_of, is_coordinate, page_object, values_alike
from difffusr.pipeline.cube.described import check_zone, understood
from difffusr.pipeline.cube.documents import text_of
from difffusr.pipeline.cube.layout import BASE_LEVEL
from difffusr.pipeline.cube.scenes import PAGES
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage import Storage

#: Metadata of groups and arrays by path.
Documents = Mapping[str, Mapping[str, Any]]

#: Reads objects of a cube by path; None for those that do not exist.
ReadAll = Callable[[Collection[str]], Mapping[str, bytes | None]]


def damaged_coordinates(storage: Storage, documents: Documents, read: ReadAll) -> Iterator[tuple[str, bytes, bool]]:
    """Chunks of coordinates that are not what would be written now: path, what it would be, and whether the array
    still holds the right values. Another version of the codec may have written others. Those that an earlier version
    has described in other ways are left out; so are those of time that hold further steps, of publications that readers
    may have open still.

    Args:
        storage: of the cube, for errors.
        documents: of the cube's groups and arrays by their path.

    Raises:
        StoreError: the documents are not those of a cube.
    """
    wanted = {path: objects for path in documents if (objects := _objects(storage, documents, path))}
    there = read([path for objects in wanted.values() for path in objects])
    for node, objects in wanted.items():
        found = {path: data for path in objects if (data := there[path]) is not None}
        if found == objects:
            continue
        holds = values_alike(node, documents[node], found, objects)
        if holds and node.split("/")[2].startswith("time"):
            continue
        for path, data in objects.items():
            if found.get(path) != data:
                yield path, data, holds and path in found


def damaged_pages(documents: Documents, read: ReadAll, text: Callable[[str], str]) -> Iterator[tuple[str, bytes, bool]]:
    """As `damaged_coordinates`, of the pages of scenes, whose name is the digest of their text.

    Args:
        text: returns that of a page by its path.
    """
    pages = {path: f"{path}/c" for path in documents if path.startswith(f"{PAGES}/")}
    there = read(pages.values())
    for page, path in pages.items():
        data, document = there[path], documents[page]
        held = None if data is None else page_in(document, page, data)
        objects = page_object(page, document, text(page) if held is None else held)
        if objects != {path: data}:
            yield path, objects[path], held is not None


def page_in(document: Mapping[str, Any], path: str, data: bytes) -> str | None:
    """The text of the page of scenes at a path, whose chunk holds these bytes; None if it is not what was written."""
    text = text_of(document, path, data)
    right = text is not None and hashlib.sha256(text.encode()).hexdigest() == path.rpartition("/")[2]
    return text if right else None


def _objects(storage: Storage, documents: Documents, path: str) -> Mapping[str, bytes]:
    """The chunks of a coordinate as they would be written now, by path; none of what is not one of this version."""
    if not is_coordinate(path):
        return {}
    base = f"{path.split('/')[0]}/{BASE_LEVEL}"
    if base not in documents:
        return {}
    check_zone(documents[base].get("attributes", {}), storage, int(path.split("/")[0]))
    try:
        with understood(storage):
            return coordinates_of({path: documents[path], base: documents[base]})
    except StoreError:
        return {}
