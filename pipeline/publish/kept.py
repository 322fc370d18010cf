"""What a published cube's documents and coordinates must be, by its history: found where they are not, and put back.

A plain store's documents and the texts of its pages of scenes are in the history; coordinates follow from them. An
Icechunk repository keeps all of that in snapshots, which it reads whole or not at all; the history names the last one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from itertools import chain
from typing import Any

from difffusr.pipeline.cube import (
    PAGES,
    PlainStore,
    SceneTable,
    damaged_coordinates,
    damaged_pages,
    in_steps,
    node_of,
    page_in,
    store_of,
    without_members,
)
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.documents import (
    KEPT,
    Documents,
    documents_of,
    lost_documents,
    page_text,
    texts,
    unreadable_parts,
)
from difffusr.pipeline.publish.placing import Replacing
from difffusr.pipeline.publish.publications import Publication, end_of, records
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


@dataclass(frozen=True)
class Scope:
    """Which pages of scenes are looked at: there is one more for each period, and what looks at its own alone costs the
    same however many there are. Pages that are gone count always; so do all other documents.

    Attributes:
        period: the pages of periods that share a day with this one; None for all pages.
        named: besides, what is known to be damaged: paths in the cube, and names in the staging folder.
    """

    period: tuple[date, date] | None = None
    named: Collection[str] = ()

    def pages(self, root: Mapping[str, Any], documents: Documents, storage: Storage, staging: Storage) -> set[str]:
        """Paths of the pages to look at.

        Args:
            root: the attributes of the cube's root.
            documents: of the cube; the pages are among them.
        """
        pages = {path for path in documents if path.startswith(f"{PAGES}/")}
        if self.period is None or not pages:
            return pages
        there = {f"{PAGES}/{name}" for name in storage.names(PAGES)} | staging.names(KEPT)
        near = set(SceneTable.of(root).within(self.period))
        words = {word.removesuffix(".json.gz") for name in self.named for word in name.split("/")}

        def is_wanted(page: str) -> bool:
            digest = page.rpartition("/")[2]
            return digest in words or not there >= {f"{page}/c", f"{page}/zarr.json", f"{digest}.json.gz"}

        return {page for page in pages if page in near or is_wanted(page)}


EVERYTHING = Scope()


def damaged_documents(
    storage: Storage, staging: Storage, scope: Scope = EVERYTHING, *, exactly: bool = False
) -> dict[str, bytes]:
    """The documents, coordinates and pages of scenes of a published cube that are missing or damaged, by path, and what
    they must hold.

    Args:
        scope: which pages to look at.
        exactly: also chunks whose values are right, and whose bytes are others than would be written.

    Raises:
        StoreError: the store cannot be read, or the history not understood.
    """
    end = end_of(staging)
    if end.latest is not None and not isinstance(store_of(storage), PlainStore):
        from difffusr.pipeline.publish.snapshots import changed_by_others

        return changed_by_others(storage, end)
    if end.latest is None or not _is_kept(end.latest):
        return {}
    documents = documents_of(staging, end.latest)
    pages = scope.pages(documents[""].get("attributes", {}), documents, storage, staging)
    looked_at = {path: held for path, held in documents.items() if path in pages or not path.startswith(f"{PAGES}/")}
    wanted = {path: d for path, d in _texts(staging, end.latest, documents).items() if node_of(path) in looked_at}
    also = {} if end.begun is None else _texts(staging, end.begun, documents_of(staging, end.begun))
    there = _read(storage, wanted)
    found = {path: data for path, data in wanted.items() if there[path] not in (data, also.get(path, data))}
    damaged = damaged_pages(looked_at, partial(_read, storage), partial(page_text, staging))
    if end.begun is None:  # else some coordinates are those of the unfinished publication already
        damaged = chain(damaged, damaged_coordinates(storage, documents, partial(_read, storage)))
    return found | {path: data for path, data, holds in damaged if exactly or not holds}


def as_published(storage: Storage, staging: Storage, damaged: Mapping[str, bytes]) -> Storage:
    """A cube as it should be.

    Args:
        damaged: what `damaged_documents` finds.
    """
    latest = end_of(staging).latest
    if damaged and latest is not None and not isinstance(store_of(storage), PlainStore):
        return replace(storage, snapshot=latest.snapshot)
    return AsPublished(storage.url, storage.options, right=damaged) if damaged else storage


def damaged_history(storage: Storage, staging: Storage, scope: Scope = EVERYTHING) -> dict[str, bytes]:
    """What the history keeps of the documents that readers see and is missing or damaged there, while the cube has it:
    name in the staging folder, and what it must hold.

    Args:
        scope: which pages to look at.

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
    pages = scope.pages(documents[""].get("attributes", {}), documents, storage, staging)
    return lost_documents(staging, latest, documents, pages, partial(_page, storage, documents))


def lost_publications(storage: Storage, staging: Storage) -> dict[int, str]:
    """Earlier publications that one could go back to, but for what is missing or damaged and nobody else has: why not,
    by number.

    Raises:
        StoreError: the store cannot be read, or the history not understood.
    """
    published = [record for record in records(staging) if record.state == "published"]
    kept = [record for record in published[:-1] if not record.gone]
    if not isinstance(store_of(storage), PlainStore):
        from difffusr.pipeline.publish.snapshots import lost_snapshots

        return lost_snapshots(storage, kept)
    lost = unreadable_parts(staging, kept)
    why = {record.number: [lost[digest] for digest in record.parts.values() if digest in lost] for record in kept}
    return {number: said[0] for number, said in why.items() if said}


def _page(storage: Storage, documents: Documents, path: str) -> str | None:
    data = _read(storage, [f"{path}/c"])[f"{path}/c"]
    return None if data is None else page_in(documents[path], path, data)


def mend_documents(storage: Storage, staging: Storage, lease: Lease | None, scope: Scope = EVERYTHING) -> list[str]:
    """Put back what `damaged_history` and `damaged_documents` find; returns the paths of that. The caller holds the
    store's lease.

    Args:
        scope: which pages to look at.

    Raises:
        StoreError: the store refuses, or the root is missing and the history cannot say what it was.
        LeaseError: another driver has taken over.
    """
    lost = damaged_history(storage, staging, scope)
    for name, data in lost.items():
        if lease is not None:
            lease.guard()
        staging.write(name, data)
    wrong = damaged_documents(storage, staging, scope, exactly=True)
    if wrong and not isinstance(store_of(storage), PlainStore):
        from difffusr.pipeline.publish.snapshots import move_back

        move_back(storage, end_of(staging), lease)
    elif wrong:
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
