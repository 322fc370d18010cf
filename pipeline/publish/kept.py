"""What a published cube's documents and coordinates must be, by its history: found where they are not, and put back.

A plain store's documents and the texts of its pages of scenes are in the history; coordinates follow from them. An
Icechunk repository keeps its documents in snapshots, which it reads whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from difffusr.pipeline.cube import (
    PlainStore,
    damaged_coordinates,
    damaged_pages,
    in_steps,
    page_in,
    store_of,
    without_members,
)
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.documents import Documents, documents_of, lost_documents, page_text, texts
from difffusr.pipeline.publish.placing import Replacing
from difffusr.pipeline.publish.publications import Publication, end_of
from difffusr.pipeline.storage import Lease, Storage

#: Requests to the store at a time.
_REQUESTS = 16


@dataclass(frozen=True)
class AsPublished(Storage):
    """A folder as it should be, a cube's or its history's: what is damaged in it is read from the other.

    Attributes:
        right: what it should hold, by path, where it does not.
    """

    right: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        return self.right[name] if name in self.right else super().read(name)

    def exists(self, name: str) -> bool:
        """See `Storage`."""
        return name in self.right or super().exists(name)


def damaged_documents(storage: Storage, staging: Storage, *, exactly: bool = False) -> dict[str, bytes]:
    """The documents, coordinates and pages of scenes of a published cube that are missing or damaged, by path, and what
    they must hold.

    Args:
        exactly: also chunks whose values are right, and whose bytes are others than would be written.

    Raises:
        StoreError: the store cannot be read, or the history not understood.
    """
    end = end_of(staging)
    if end.latest is None or not _is_kept(end.latest) or not isinstance(store_of(storage), PlainStore):
        return {}
    documents = documents_of(staging, end.latest)
    wanted = _texts(staging, end.latest, documents)
    also = {} if end.begun is None else _texts(staging, end.begun, documents_of(staging, end.begun))
    there = _read(storage, wanted)
    found = {path: data for path, data in wanted.items() if there[path] not in (data, also.get(path, data))}
    damaged = damaged_pages(documents, partial(_read, storage), partial(page_text, staging))
    if end.begun is None:  # else some coordinates are those of the unfinished publication already
        damaged = chain(damaged, damaged_coordinates(storage, documents, partial(_read, storage)))
    return found | {path: data for path, data, holds in damaged if exactly or not holds}


def damaged_history(storage: Storage, staging: Storage) -> dict[str, bytes]:
    """What the history keeps of the documents that readers see and is missing or damaged there, while the cube has it:
    name in the staging folder, and what it must hold.

    Raises:
        StoreError: the history cannot be read.
    """
    latest, store = end_of(staging).latest, store_of(storage)
    if latest is None or not latest.parts or not isinstance(store, PlainStore):
        return {}
    try:
        held = {"": store.group("") or {}, **store.consolidated()}
    except StoreError:
        return {}  # the root is damaged: the history is what it is mended by
    documents = {path: without_members(document) for path, document in held.items()}
    return lost_documents(staging, latest, documents, partial(_page, storage, documents))


def _page(storage: Storage, documents: Documents, path: str) -> str | None:
    data = _read(storage, [f"{path}/c"])[f"{path}/c"]
    return None if data is None else page_in(documents[path], path, data)


def mend_documents(storage: Storage, staging: Storage, lease: Lease | None) -> list[str]:
    """Put back what `damaged_history` and `damaged_documents` find; returns the paths of that. The caller holds the
    store's lease.

    Raises:
        StoreError: the store refuses, or the root is missing and the history cannot say what it was.
        LeaseError: another driver has taken over.
    """
    lost = damaged_history(storage, staging)
    for name, data in lost.items():
        if lease is not None:
            lease.guard()
        staging.write(name, data)
    wrong = damaged_documents(storage, staging, exactly=True)
    if wrong:
        replacing = Replacing(storage, [*wrong], lease)
        for paths in in_steps(wrong):
            replacing.write({path: wrong[path] for path in paths})
    if store_of(storage).objects()("zarr.json") is None and (latest := end_of(staging).latest) is not None:
        raise StoreError(
            f"{storage.url}: there is no cube, but publication {latest.number} of {staging.url}/history; check "
            "store.url, or restore the cube from a copy; to begin a new one, delete both folders"
        )
    return sorted([*wrong, *lost])


def _is_kept(publication: Publication) -> bool:
    """Whether the history has a publication's documents: not of an Icechunk repository."""
    return bool(publication.parts or publication.documents)


def _texts(staging: Storage, publication: Publication, documents: Documents) -> dict[str, bytes]:
    """Every metadata document of a publication as it is stored, by path."""
    if publication.parts:
        return texts(staging, publication, documents)
    return {path: text.encode() for path, text in publication.documents.items()}  # as an earlier version wrote it


def _read(storage: Storage, paths: Collection[str]) -> dict[str, bytes | None]:
    """Objects of a plain store by path, None for those that do not exist."""
    read = PlainStore(storage).objects()
    with ThreadPoolExecutor(_REQUESTS, "documents") as pool:
        return dict(zip(paths, pool.map(read, paths), strict=True))
