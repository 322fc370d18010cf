"""Snapshots of an Icechunk repository: whose they are, and what a stranger's commit has done to a published cube.

A publication's snapshot never changes, and the history names it. So what readers of ``main`` see is compared with it
where ``main`` was moved by somebody else, and put back by moving ``main`` back; their snapshot keeps a tag.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import icechunk
from zarr.core.sync import sync

from difffusr.pipeline.cube import (
    MAIN,
    PAGES,
    content_of,
    failures_of,
    is_coordinate,
    is_document,
    object_in,
    open_repository,
)
from difffusr.pipeline.publish.publications import End, Publication
from difffusr.pipeline.storage import Lease, Storage

#: Key of a commit's metadata under which the project keeps its own.
FACTS = "difffusr"


def facts_of(repository: icechunk.Repository, snapshot: str) -> dict[str, Any]:
    """The project's metadata of a commit; empty for a repository's first and for those made by others."""
    facts: dict[str, Any] = repository.lookup_snapshot(snapshot).metadata.get(FACTS, {})
    return facts


def lineage_of(repository: icechunk.Repository, snapshot: str) -> tuple[str, ...]:
    """The attempts that led to a publication, whoever has committed something on top of it."""
    found = (info.metadata.get(FACTS) for info in repository.ancestry(snapshot_id=snapshot))
    facts: dict[str, Any] = next((facts for facts in found if facts), {})
    return tuple(facts.get("lineage", ()))


def changed_by_others(storage: Storage, end: End) -> dict[str, bytes]:
    """Documents, coordinates and pages of scenes that readers see otherwise than they were published, by path, and what
    they were. Empty where the project itself has moved ``main`` last.

    Args:
        storage: an Icechunk repository.
        end: of the cube's history.

    Raises:
        StoreError: the repository cannot be read, or the publication's snapshot is gone.
    """
    repository = open_repository(storage)
    if repository is None or end.latest is None:
        return {}
    with failures_of(storage):
        main, wanted = repository.lookup_branch(MAIN), end.latest.snapshot
        if not wanted or main == wanted or facts_of(repository, main):
            return {}
        right = dict(_described(repository.readonly_session(snapshot_id=wanted)))
        there = dict(_described(repository.readonly_session(snapshot_id=main)))
    return {
        path: data
        for path, data in right.items()
        if path not in there or content_of(path, there[path]) != content_of(path, data)
    }


def move_back(storage: Storage, end: End, lease: Lease | None) -> None:
    """Let readers see the last publication's snapshot again. What others have committed since keeps a tag.

    Raises:
        StoreError: the repository refuses, or somebody moves ``main`` just now.
        LeaseError: another driver has taken over.
    """
    repository = open_repository(storage)
    assert repository is not None
    assert end.latest is not None
    with failures_of(storage):
        main = repository.lookup_branch(MAIN)
        if (tag := f"others-{main}") not in repository.list_tags():
            repository.create_tag(tag, main)
        if lease is not None:
            lease.check()
        repository.reset_branch(MAIN, end.latest.snapshot, from_snapshot_id=main)


def lost_snapshots(storage: Storage, publications: Collection[Publication]) -> dict[int, str]:
    """The publications whose snapshots are gone, by number, and what is said of each.

    Raises:
        StoreError: the repository cannot be read.
    """
    repository = open_repository(storage)
    if repository is None:
        return {}
    lost = {}
    for publication in publications:
        try:
            repository.lookup_snapshot(publication.snapshot)
        except icechunk.IcechunkError:
            lost[publication.number] = f"{storage.url}: snapshot {publication.snapshot} is gone"
    return lost


def _described(session: icechunk.Session) -> Iterator[tuple[str, bytes]]:
    """Everything of a snapshot but pixels, by path."""

    async def listed() -> list[str]:
        return [path async for path in session.store.list()]

    for path in sync(listed()):
        node = "/".join(path.split("/")[:3])
        is_wanted = is_document(path) or is_coordinate(node) or path.startswith(f"{PAGES}/")
        if is_wanted and (data := object_in(session.store, path)) is not None:
            yield path, data
