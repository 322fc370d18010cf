"""A publication's documents put where readers of a plain store find them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from difffusr.pipeline.cube import (
    PAGES,
    CubeDraft,
    PlainStore,
    begins_alike,
    in_steps,
    is_document,
    texts_of,
    time_chunk,
)
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.documents import (
    NOT_DOCUMENTS,
    Documents,
    damaged,
    documents_of,
    keep_documents,
    objects_of_page,
    times_of,
)
from difffusr.pipeline.publish.publications import Publication, enter, mark
from difffusr.pipeline.storage import Lease, Storage, is_of

#: Requests to the store at a time.
_REQUESTS = 16

#: The document that xarray reads: what it does not describe, readers do not see.
_ROOT = "zarr.json"


@dataclass(frozen=True)
class CubeState:
    """A state of a cube, to be put in place.

    Attributes:
        documents: of all groups and arrays by their path.
        times: objects of `time` and `time_bnds` by their path.
        constant: objects that are the same in all publications which have them: other coordinates, pages of scenes.
        left: zones whose documents are in place already.
    """

    documents: Documents
    times: Mapping[str, bytes]
    constant: Mapping[str, bytes] = field(default_factory=dict)
    left: Collection[str] = ()

    @classmethod
    def of(cls, draft: CubeDraft, left: Collection[str] = ()) -> CubeState:
        """The state that a draft describes."""
        times: dict[str, bytes] = {}
        constant: dict[str, bytes] = {}
        for path, data in draft.objects.items():
            if path.startswith(f"{PAGES}/"):
                constant[path] = data
            elif not is_document(path):
                (times if path.split("/")[2].startswith("time") else constant)[path] = data
        return cls(draft.documents, times, constant, left)


def put_in_place(
    storage: Storage, staging: Storage, publication: Publication, lease: Lease | None, state: CubeState
) -> Publication:
    """Enter a publication in the history, write its documents, the root's last, and mark it as published.

    Every object replaces the version that was there while the lease was certainly held: what comes later, however late,
    does not.

    Raises:
        StoreError: the store refuses, or another driver publishes. It can be called again.
        LeaseError: another driver has taken over.
    """
    try:
        root = dict(state.documents[""])
        root["attributes"] = {**root.get("attributes", {}), "difffusr:publication": publication.number}
        texts = texts_of({**state.documents, "": root})
        objects = {
            path: data
            for path, data in {**state.times, **texts}.items()
            if path.split("/")[0] not in (*state.left, PAGES)
        }
        steps = in_steps(objects)
    except NOT_DOCUMENTS as error:
        raise damaged(staging, publication, error) from None
    replacing = Replacing(storage, [*state.constant, *objects], lease)
    replacing.write(state.constant)
    gone = {f"{name}/zarr.json" for name in _described(storage) if name.split("/")[0] != PAGES} - texts.keys()
    begun = replace(publication, dropped=sorted(gone.union(publication.dropped)), state="publishing")
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


def put_back(storage: Storage, staging: Storage, publication: Publication, lease: Lease | None) -> Publication:
    """As `put_in_place`, with what the history has of a publication: one that was begun, or a rollback.

    Raises:
        StoreError, LeaseError: as `put_in_place`; or its documents are damaged.
    """
    documents = documents_of(staging, publication)
    times = times_of(staging, publication, documents)
    if not publication.parts:
        kept = keep_documents(staging, documents)
        publication = replace(publication, parts=kept, documents={}, steps_of_time={})
    with ThreadPoolExecutor(_REQUESTS, "times") as pool:
        longest = pool.map(lambda path: _longest(storage, path, documents, times[path]), times)
        times = dict(zip(times, longest, strict=True))
    pages = _missing_pages(storage, staging, documents)
    return put_in_place(storage, staging, publication, lease, CubeState(documents, times, pages))


def _longest(storage: Storage, path: str, documents: Documents, wanted: bytes) -> bytes:
    """An object of time as it is to be written: never shorter than it is, for readers who still see a later state."""
    node = documents.get("/".join(path.split("/")[:3]))
    if node is None or time_chunk(node) == 1 or not storage.exists(path):
        return wanted
    there = storage.read(path)
    return there if begins_alike(node, there, wanted) else wanted


def _missing_pages(storage: Storage, staging: Storage, documents: Documents) -> dict[str, bytes]:
    """Objects of the pages of scenes that are not in a cube, from the history, as far as that has them."""
    pages = {path for path in documents if path.startswith(f"{PAGES}/")}
    there = {f"{PAGES}/{name}" for name in storage.names(PAGES)} if pages else set()
    texts: dict[str, bytes] = {}
    for path in sorted(pages):
        document: Mapping[str, Any] = documents[path]
        found = {name for name in there if name.startswith(f"{path}/")}
        if not {name for name in found if not is_document(name)}:
            texts |= objects_of_page(staging, path, document)
    lacking = {f"{path}/zarr.json" for path in pages} - there
    if lacking or (pages and f"{PAGES}/zarr.json" not in there):
        written = texts_of(documents)
        texts |= {path: written[path] for path in (*lacking, f"{PAGES}/zarr.json")}
    return texts


def _described(storage: Storage) -> Collection[str]:
    """The groups and arrays that the root describes; none where it is damaged, which writing it anew mends."""
    try:
        return PlainStore(storage).consolidated()
    except StoreError:
        return ()


class Replacing:
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
