"""A publication's documents put where readers of a plain store find them."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from difffusr.pipeline.cube import PlainStore, in_steps
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.publish.publications import Publication, enter, mark
from difffusr.pipeline.storage import Lease, Storage, is_of

#: Requests to the store at a time.
_REQUESTS = 16

#: The document that xarray reads: what it does not describe, readers do not see.
_ROOT = "zarr.json"


def put_in_place(
    storage: Storage,
    staging: Storage,
    publication: Publication,
    lease: Lease | None,
    constant: Mapping[str, bytes] | None = None,
) -> Publication:
    """Enter a publication in the history, write its documents, the root's last, and mark it as published.

    Every object replaces the version that was there while the lease was certainly held: what comes later, however late,
    does not.

    Args:
        constant: coordinates that are the same in all publications of a cube.

    Raises:
        StoreError: the store refuses, or another driver publishes. It can be called again.
        LeaseError: another driver has taken over.
    """
    try:
        text = _numbered(publication)
        objects = {path: base64.b64decode(data, validate=True) for path, data in publication.steps_of_time.items()}
        objects |= {path: data.encode() for path, data in text.items()}
        steps = in_steps(objects)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        number = publication.restores or publication.number
        raise StoreError(
            f"{staging.url}/history: the documents of publication {number} cannot be understood "
            f"({one_line(error)}); restore it from a copy, or go back to another publication"
        ) from None
    constant = constant or {}
    replacing = _Replacing(storage, [*constant, *objects], lease)
    replacing.write(constant)
    gone = {f"{name}/zarr.json" for name in _described(storage)} - objects.keys()
    begun = replace(publication, documents=text, dropped=sorted(gone.union(publication.dropped)), state="publishing")
    try:
        enter(staging, begun)
    except StoreError:
        if lease is not None:
            lease.check()
        raise
    for paths in steps:
        replacing.write({path: objects[path] for path in paths})
    for path in begun.dropped:
        storage.delete(path)
    return mark(staging, publication.number, state="published")


def _described(storage: Storage) -> Collection[str]:
    """The groups and arrays that the root describes; none where it is damaged, which writing it anew mends."""
    try:
        return PlainStore(storage).consolidated()
    except StoreError:
        return ()


def _numbered(publication: Publication) -> dict[str, str]:
    """A publication's documents; the root's has its number, so that no two are the same."""
    root = json.loads(publication.documents[_ROOT])
    root.setdefault("attributes", {})["difffusr:publication"] = publication.number
    return {**publication.documents, _ROOT: json.dumps(root, indent=2)}


class _Replacing:
    """Replaces objects of a store, each only if it is the version that was there when this was made.

    Raises:
        StoreError: the store refuses.
        LeaseError: another driver has taken over.
    """

    def __init__(self, storage: Storage, paths: Collection[str], lease: Lease | None) -> None:
        self._storage, self._lease = storage, lease
        with ThreadPoolExecutor(_REQUESTS, "tags") as pool:
            self._tags = dict(zip(paths, pool.map(storage.tag, paths), strict=True))
        if lease is not None:
            lease.check()  # after the tags: whoever takes over now leaves others behind

    def write(self, objects: Mapping[str, bytes]) -> None:
        """Replace some of the objects, in any order. The lease is read before the root."""
        if self._lease is not None and _ROOT in objects:
            self._lease.check()
        with ThreadPoolExecutor(_REQUESTS, "documents") as pool:
            for _ in pool.map(self._replace, objects, objects.values()):
                pass

    def _replace(self, path: str, data: bytes) -> None:
        if self._lease is not None:
            self._lease.guard()
        tag = self._tags[path]
        if is_of(data, tag) or self._storage.exchange(path, data, tag):
            return
        if self._lease is not None:
            self._lease.check()
        raise StoreError(
            f"{self._storage.url}/{path}: somebody else has written it since this publication began; run again"
        )
