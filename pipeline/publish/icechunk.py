"""An Icechunk repository as a target: a run works on its own branch, and publishing moves ``main`` to its tip."""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import icechunk
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from difffusr.pipeline.cube import (
    ENCODINGS,
    MAIN,
    AnyShard,
    CubeDraft,
    ShardData,
    Zone,
    chunk_key,
    failures_of,
    object_in,
    open_repository,
)
from difffusr.pipeline.geo import OverviewIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.publications import Publication, keep, new_publication, records
from difffusr.pipeline.publish.target import Receipt
from difffusr.pipeline.storage import Storage

#: Key of a commit's metadata under which the project keeps its own.
_FACTS = "difffusr"


@dataclass(frozen=True)
class IcechunkWriter:
    """Writes shards into a fork of the branch's session: they are stored, but not referenced yet.

    Attributes:
        draft: the cube as it will be.
        fork: copied for every shard.
    """

    draft: CubeDraft
    fork: icechunk.ForkSession

    def store(self) -> Store:
        """See `ShardWriter`."""
        return self.fork.store

    def write(self, epsg: int, shard: AnyShard, data: ShardData) -> Receipt:
        """See `ShardWriter`. The receipt's token is a fork with this shard only."""
        fork: icechunk.ForkSession = pickle.loads(pickle.dumps(self.fork))
        with failures_of(self.draft.storage):
            return Receipt(self.draft.write_shard(epsg, shard, data, fork.store), fork)


class IcechunkTarget:
    """See `Target`.

    An attempt is what a branch holds since it left ``main``: every commit carries the attempt's random name, the
    snapshot where it left ``main``, and the attempts that led there. So the tip alone shows whether the branch of an
    interrupted run can be continued, and which entries of the ledger are valid.

    Rewriting shards of a published period needs a revised zone, as in a plain store: it separates what readers see from
    what is being written. The keys stay the same: Icechunk supports one chunk key encoding.

    Attributes:
        draft: the cube as it will be.
    """

    def __init__(self, storage: Storage, staging: Storage, draft: CubeDraft, label: str) -> None:
        for zone in draft.zones.values():
            if zone.revision % len(ENCODINGS):
                raise ValueError(f"zone {zone.epsg}: Icechunk does not support the keys of revision {zone.revision}")
        self.draft = draft
        self._storage, self._staging, self._branch = storage, staging, f"run-{label}"
        self._repository = open_repository(storage)
        self._base, self._attempt = "", ""
        self._before: tuple[str, ...] = ()
        if self._repository is None:
            return
        with failures_of(storage):
            self._base = self._repository.lookup_branch(MAIN)
            self._before = _lineage(self._repository, self._base)
            self._attempt = _attempt_on(self._repository, self._branch, self._base)

    # What is there ---------------------------------------------------------------------------------------------------

    def state(self, epsg: int) -> str:
        """The attempt that shards are written in."""
        return self._attempt

    def lineage(self, epsg: int) -> Mapping[str, int]:
        """See `Target`; for a published zone that is not revised, what readers see."""
        names = (*self._before, self._attempt) if self.draft.zones[epsg].is_written else self._before
        return {state: place for place, state in enumerate(names) if state}

    def published(self, epsg: int) -> Mapping[str, int]:
        """See `Target`."""
        if not self.draft.zones[epsg].seen:
            return {}
        return {state: place for place, state in enumerate(self._before)} or {self._base: 0}

    def present(self) -> set[str]:
        """See `Target`."""
        if self._repository is None:
            return set()
        with failures_of(self._storage):
            seen = self._repository.readonly_session(MAIN)
            coming = self._repository.readonly_session(self._branch) if self._attempt else seen
            return {
                f"{array}/{chunk_key(0, index)}"
                for zone in self.draft.zones.values()
                for array, index, _ in _chunks(coming if zone.is_written else seen, zone)
            }

    # What a run does -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Create the branch, or continue that of an interrupted attempt at the same state, and write the draft's
        metadata into it. May be repeated.

        Raises:
            StoreError: the store refuses, or another run has published in the meantime.
        """
        repository = self._repository = self._repository or open_repository(self._storage, create=True)
        assert repository is not None
        with failures_of(self._storage):
            main = repository.lookup_branch(MAIN)
            if main != self._base:
                if self._base or _facts(repository, main):
                    raise self._overtaken()
                self._base = main
            _finish(self._staging, repository)
            if not self._attempt:
                if self._branch in repository.list_branches():
                    repository.delete_branch(self._branch)
                repository.create_branch(self._branch, main)
                self._attempt = uuid4().hex[:16]
            session = repository.writable_session(self._branch)
            if self._lay_out(session):
                session.commit(f"draft of {self._branch}", self._commit_facts())

    def writer(self) -> IcechunkWriter:
        """See `Target`. It stays valid when further shards are accepted: its forks can be merged into any
        later tip of the branch."""
        with failures_of(self._storage):
            return IcechunkWriter(self.draft, self._session().fork())

    def accept(self, receipts: Sequence[Receipt]) -> None:
        """Merge the writers' forks and commit."""
        tokens = [receipt.token for receipt in receipts]
        if tokens:
            with failures_of(self._storage):
                session = self._session()
                session.merge(*tokens)
                session.commit(f"{len(tokens)} shards", self._commit_facts())

    def settle(self, planned: Collection[tuple[int, AnyShard]], rewritten: Collection[tuple[int, AnyShard]]) -> None:
        """Delete what is no longer planned. What stays is on the branch already."""
        with failures_of(self._storage):
            session = self._session()
            for epsg, zone in self.draft.zones.items():
                if not zone.is_written:
                    continue
                here = {zone.position(shard, self.draft.grid) for at, shard in planned if at == epsg}
                for array, index, place in _chunks(session, zone):
                    if place not in here:
                        sync(session.store.delete(f"{array}/{chunk_key(0, index)}"))
            if session.has_uncommitted_changes:
                session.commit("shards that are no longer planned", self._commit_facts())

    def publish(self, *, shards_written: int, keep: int) -> Publication:
        """Move ``main`` to the branch's tip, in one step that fails if somebody else has moved it.

        Args:
            keep: ignored: every publication has a tag, which protects its objects from Icechunk's garbage collection.
        """
        with failures_of(self._storage):
            repository, session = self._opened(), self._session()
            publication = new_publication(self._staging, self.draft, shards_written)
            self._lay_out(session)
            self._number(session, publication.number)
            lineage = [*self._before, self._attempt]
            facts = {"number": publication.number, "period": publication.period, "kind": publication.kind}
            tip = session.commit(f"publication {publication.number}", self._commit_facts(lineage=lineage, **facts))
            done = _move(repository, self._staging, replace(publication, snapshot=tip), self._base)
            if done is None:
                raise self._overtaken()
            repository.delete_branch(self._branch)
        self._base, self._before, self._attempt = tip, tuple(lineage), ""
        return done

    def _opened(self) -> icechunk.Repository:
        if self._repository is None or not self._attempt:
            raise RuntimeError("begin() comes first")
        return self._repository

    def _session(self) -> icechunk.Session:
        return self._opened().writable_session(self._branch)

    def _commit_facts(self, **more: Any) -> dict[str, Any]:
        return {_FACTS: {"attempt": self._attempt, "base": self._base, **more}}

    def _overtaken(self) -> StoreError:
        return StoreError(
            f"{self._storage.url}: somebody else has published since this run began, and readers see that; run again: "
            "staged chips are kept"
        )

    def _lay_out(self, session: icechunk.Session) -> bool:
        """Write the draft's documents and coordinates where they differ from those stored; returns whether any did."""
        before = session.has_uncommitted_changes
        # Groups before their members, arrays before their chunks.
        order = sorted(self.draft.objects, key=lambda path: (not path.endswith("zarr.json"), path.count("/"), path))
        for path in order:
            data = _content(path, self.draft.objects[path])
            there = _get(session, path)
            if there is None or _content(path, there) != data:
                _set(session, path, data)
        return session.has_uncommitted_changes and not before

    def _number(self, session: icechunk.Session, number: int) -> None:
        """Write the publication's number into the root group. Without a change there is nothing to commit."""
        root = json.loads(_content("zarr.json", self.draft.objects["zarr.json"]))
        root["attributes"]["difffusr:publication"] = number
        _set(session, "zarr.json", json.dumps(root).encode())


@dataclass(frozen=True)
class IcechunkPublisher:
    """See `Publisher`."""

    storage: Storage

    def target(self, staging: Storage, draft: CubeDraft, label: str) -> IcechunkTarget:
        """See `Publisher`."""
        return IcechunkTarget(self.storage, staging, draft, label)

    def revision_from(self, number: int) -> int:
        """See `Publisher`: Icechunk separates versions by itself, and supports the first encoding only."""
        return -(-number // len(ENCODINGS)) * len(ENCODINGS)

    def finish(self, staging: Storage, publication: Publication) -> None:
        """See `Publisher`: done when the next run begins or a state is restored."""

    def restore(self, staging: Storage, publication: Publication) -> Publication:
        """See `Publisher`. The rollback's snapshot is the one to restore.

        Raises:
            StoreError: the snapshot is gone, the store refuses, or another run is publishing.
        """
        repository = open_repository(self.storage)
        if repository is None:
            raise StoreError(f"{self.storage.url}: there is no Icechunk repository; check store.url")
        with failures_of(self.storage):
            _finish(staging, repository)
            try:
                repository.lookup_snapshot(publication.snapshot)
            except icechunk.IcechunkError:
                raise StoreError(
                    f"{self.storage.url}: snapshot {publication.snapshot} is gone: expired or collected as garbage"
                ) from None
            moved = _move(repository, staging, publication, repository.lookup_branch(MAIN))
        if moved is None:
            raise StoreError(f"{self.storage.url}: somebody else publishes at this moment; try again")
        return moved


def _move(repository: icechunk.Repository, staging: Storage, publication: Publication, base: str) -> Publication | None:
    """Move ``main`` from a snapshot to that of a publication, and record it; None if ``main`` is elsewhere."""
    if repository.lookup_branch(MAIN) != base:
        return None
    keep(staging, publication)
    try:
        repository.reset_branch(MAIN, publication.snapshot, from_snapshot_id=base)
    except (icechunk.IcechunkError, icechunk.ConflictError):
        if repository.lookup_branch(MAIN) != base:
            return None
        raise
    return _remember(staging, repository, publication)


def _remember(staging: Storage, repository: icechunk.Repository, publication: Publication) -> Publication:
    """Mark a publication as published, and tag it to protect it from garbage collection."""
    tag = f"publication-{publication.number:06d}-{publication.snapshot}"
    if tag not in repository.list_tags():
        repository.create_tag(tag, publication.snapshot)
    done = replace(publication, state="published")
    keep(staging, done)
    return replace(done, current=True)


def _finish(staging: Storage, repository: icechunk.Repository) -> None:
    """Record a publication whose driver died after moving ``main``."""
    last = max(records(staging), key=lambda record: record.number, default=None)
    if last is not None and last.state != "published" and last.snapshot == repository.lookup_branch(MAIN):
        _remember(staging, repository, last)


def _facts(repository: icechunk.Repository, snapshot: str) -> dict[str, Any]:
    """The project's metadata of a commit; empty for a repository's first and for those made by others."""
    facts: dict[str, Any] = repository.lookup_snapshot(snapshot).metadata.get(_FACTS, {})
    return facts


def _lineage(repository: icechunk.Repository, snapshot: str) -> tuple[str, ...]:
    """The attempts that led to a publication."""
    return tuple(_facts(repository, snapshot).get("lineage", ()))


def _attempt_on(repository: icechunk.Repository, branch: str, base: str) -> str:
    """The attempt on a branch; empty if there is none, or if it left ``main`` elsewhere."""
    if branch not in repository.list_branches():
        return ""
    facts = _facts(repository, repository.lookup_branch(branch))
    return str(facts["attempt"]) if facts.get("base") == base else ""


def _chunks(session: icechunk.Session, zone: Zone) -> list[tuple[str, tuple[int, ...], OverviewIndex]]:
    """Array, chunk index and place of every stored shard at a zone's step, of all levels."""

    async def found(array: str) -> list[tuple[int, ...]]:
        return [index async for index in session.chunk_coordinates(f"/{array}") if index[0] == zone.step]

    out = []
    for level in zone.levels:
        for array in (f"{zone.level_path(level)}/{name}" for name in zone.variables):
            if _get(session, f"{array}/zarr.json") is not None:
                out += [(array, index, OverviewIndex(level, *index[-2:])) for index in sync(found(array))]
    return out


def _get(session: icechunk.Session, path: str) -> bytes | None:
    return object_in(session.store, path)


def _set(session: icechunk.Session, path: str, data: bytes) -> None:
    sync(session.store.set(path, default_buffer_prototype().buffer.from_bytes(data)))


def _content(path: str, data: bytes) -> bytes:
    """An object's content for comparison: a document without its layout and consolidated metadata, which a snapshot
    does not need."""
    if not path.endswith("zarr.json"):
        return data
    document = json.loads(data)
    document.pop("consolidated_metadata", None)
    return json.dumps(document, sort_keys=True).encode()
