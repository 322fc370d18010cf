"""An Icechunk repository as a target: a run works on its own branch, and publishing moves ``main`` to its tip."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    PAGES,
    AnyShard,
    CubeDraft,
    ShardData,
    Zone,
    chunk_key,
    content_of,
    failures_of,
    object_in,
    open_repository,
)
from difffusr.pipeline.geo import OverviewIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.documents import is_digest
from difffusr.pipeline.publish.publications import Publication, attempt_of, end_of, enter, mark, new_publication
from difffusr.pipeline.publish.snapshots import FACTS, facts_of, lineage_of
from difffusr.pipeline.publish.target import Receipt
from difffusr.pipeline.storage import Lease, Storage


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
            stored = self.draft.write_shard(epsg, shard, data, fork.store)
            return Receipt(stored.checksums, fork, stored.sizes)


class IcechunkTarget:
    """See `Target`.

    An attempt is what one driver adds to a branch of its own, named by its lease: every commit carries the attempt's
    random name, those of the attempts that it continues, and the snapshot where the first of them left ``main``. So
    the tip alone shows whether the branch of an interrupted run can be continued, and which entries of the ledger are
    valid. What an earlier driver commits after that stays on its own branch, which nobody reads.

    Rewriting shards of a published period needs a revised zone, as in a plain store: it separates what readers see from
    what is being written. The keys stay the same: Icechunk supports one chunk key encoding.

    Attributes:
        draft: the cube as it will be.
    """

    def __init__(self, storage: Storage, staging: Storage, draft: CubeDraft, label: str, lease: Lease | None) -> None:
        for zone in draft.zones.values():
            if zone.revision % len(ENCODINGS):
                raise ValueError(f"zone {zone.epsg}: Icechunk does not support the keys of revision {zone.revision}")
        self.draft = draft
        self._storage, self._staging, self._lease = storage, staging, lease
        self._family = f"run-{label}"
        self._branch = self._family if lease is None else f"{self._family}.{lease.number:08d}"
        self._repository = open_repository(storage)
        self._base, self._attempt, self._tip = "", "", ""
        self._before: tuple[str, ...] = ()
        self._continues: tuple[str, ...] = ()
        if self._repository is None:
            return
        with failures_of(storage):
            self._base = self._repository.lookup_branch(MAIN)
            self._before = lineage_of(self._repository, self._base)
            self._tip, self._continues = _left_by(self._repository, self._family, self._base)

    # What is there ---------------------------------------------------------------------------------------------------

    def state(self, epsg: int) -> str:
        """The attempt that shards are written in."""
        return self._attempt

    def lineage(self, epsg: int) -> Mapping[str, int]:
        """See `Target`; for a published zone that is not revised, what readers see."""
        coming = (*self._continues, self._attempt) if self.draft.zones[epsg].is_written else ()
        return {state: place for place, state in enumerate((*self._before, *coming)) if state}

    def published(self, epsg: int) -> Mapping[str, int]:
        """See `Target`."""
        if not self.draft.zones[epsg].seen:
            return {}
        return {state: place for place, state in enumerate(self._before)} or {self._base: 0}

    def is_free(self, epsg: int, revision: int | None = None) -> bool:
        """See `Target`: nobody else writes to this driver's branch."""
        return True

    def replaced(self, epsg: int) -> frozenset[str]:
        """See `Target`."""
        return frozenset({*self._continues, self._attempt})

    def present(self) -> dict[str, int | None]:
        """See `Target`: a snapshot refers to whole chunks alone, and does not tell their sizes."""
        if self._repository is None:
            return {}
        with failures_of(self._storage):
            seen = self._repository.readonly_session(MAIN)
            coming = self._coming(self._repository) or seen
            return {
                f"{array}/{chunk_key(0, index)}": None
                for zone in self.draft.zones.values()
                for array, index, _ in _chunks(coming if zone.is_written else seen, zone)
            }

    # What a run does -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Create this driver's branch, where that of an interrupted attempt at the same state ends or at ``main``, and
        write the draft's metadata into it. May be repeated.

        Raises:
            StoreError: the store refuses, or another run has published in the meantime.
            LeaseError: another driver has taken over.
        """
        repository = self._repository = self._repository or open_repository(self._storage, create=True)
        assert repository is not None
        self._check()
        with self._failures():
            main = repository.lookup_branch(MAIN)
            if main != self._base:
                if self._base or facts_of(repository, main):
                    raise self._overtaken()
                self._base = main
            _finish(self._staging, repository)
            if not self._attempt:
                self._branch_off(repository)
            session = repository.writable_session(self._branch)
            if self._lay_out(session):
                session.commit(f"draft of {self._family}", self._commit_facts())

    def _branch_off(self, repository: icechunk.Repository) -> None:
        """Create this driver's branch, in place of those that earlier ones have left."""
        start = self._tip or self._base
        for branch in _family(repository, self._family):
            if branch == self._branch and repository.lookup_branch(branch) != start:
                repository.reset_branch(branch, start)
        if self._branch not in repository.list_branches():
            repository.create_branch(self._branch, start)
        for branch in _family(repository, self._family):
            if branch < self._branch:  # one that is later is that of who has taken over
                repository.delete_branch(branch)
        self._attempt = uuid4().hex[:16]

    def close(self) -> None:
        """See `Target`: nobody else will write to this driver's branch."""

    def tidy(self, *, keep: int, again: bool = False) -> None:
        """See `Target`: every publication has a tag, which protects its objects from Icechunk's garbage collection."""
        if self._repository is not None and again:
            with self._failures():
                for branch in _family(self._repository, self._family):
                    self._repository.delete_branch(branch)

    def writer(self, level: int | None = None) -> IcechunkWriter:
        """See `Target`. It stays valid when further shards are accepted: its forks can be merged into any
        later tip of the branch."""
        with self._failures():
            return IcechunkWriter(self.draft, self._session().fork())

    def accept(self, receipts: Sequence[Receipt]) -> None:
        """Merge the writers' forks and commit."""
        tokens = [receipt.token for receipt in receipts]
        if tokens:
            with self._failures():
                session = self._session()
                session.merge(*tokens)
                session.commit(f"{len(tokens)} shards", self._commit_facts())

    def settle(self, planned: Collection[tuple[int, AnyShard]], rewritten: Collection[tuple[int, AnyShard]]) -> None:
        """Delete what is no longer planned. What stays is on the branch already."""
        with self._failures():
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
        self._check()
        with self._failures():
            repository, session = self._opened(), self._session()
            publication = new_publication(
                self._staging, end_of(self._staging), self.draft, shards_written, attempt=attempt_of(self._lease)
            )
            self._lay_out(session)
            self._drop_pages(session)
            self._number(session, publication.number)
            lineage = [*self._before, *self._continues, self._attempt]
            facts = {"number": publication.number, "period": publication.period, "kind": publication.kind}
            tip = session.commit(f"publication {publication.number}", self._commit_facts(lineage=lineage, **facts))
            self._check()
            done = _move(repository, self._staging, replace(publication, snapshot=tip), self._base)
            if done is None:
                raise self._overtaken()
            repository.delete_branch(self._branch)
        self._base, self._before, self._attempt, self._tip = tip, tuple(lineage), "", ""
        self._continues = ()
        return done

    def _check(self) -> None:
        if self._lease is not None:
            self._lease.check()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """As `failures_of`. Who was taken over hears of that, and not of what has failed for that reason."""
        try:
            with failures_of(self._storage):
                yield
        except StoreError:
            self._check()
            raise

    def _opened(self) -> icechunk.Repository:
        if self._repository is None or not self._attempt:
            raise RuntimeError("begin() comes first")
        return self._repository

    def _coming(self, repository: icechunk.Repository) -> icechunk.Session | None:
        """What is to come, as far as it is written; None if nothing is."""
        if self._attempt:
            return repository.readonly_session(self._branch)
        return repository.readonly_session(snapshot_id=self._tip) if self._tip else None

    def _session(self) -> icechunk.Session:
        return self._opened().writable_session(self._branch)

    def _commit_facts(self, **more: Any) -> dict[str, Any]:
        return {FACTS: {"attempt": self._attempt, "continues": self._continues, "base": self._base, **more}}

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
            data = content_of(path, self.draft.objects[path])
            there = _get(session, path)
            if there is None or content_of(path, there) != data:
                _set(session, path, data)
        return session.has_uncommitted_changes and not before

    def _drop_pages(self, session: icechunk.Session) -> None:
        """Delete pages of scenes that the draft's root does not name: those before it are in their snapshots."""
        named = set(self.draft.table.pages.values())

        async def others() -> list[str]:
            return [name async for name in session.store.list_dir(PAGES) if f"{PAGES}/{name}" not in named]

        for name in sync(others()):
            if is_digest(name):
                sync(session.store.delete_dir(f"{PAGES}/{name}"))

    def _number(self, session: icechunk.Session, number: int) -> None:
        """Write the publication's number into the root group. Without a change there is nothing to commit."""
        root = json.loads(content_of("zarr.json", self.draft.objects["zarr.json"]))
        root["attributes"]["difffusr:publication"] = number
        _set(session, "zarr.json", json.dumps(root).encode())


@dataclass(frozen=True)
class IcechunkPublisher:
    """See `Publisher`."""

    storage: Storage

    def target(
        self, staging: Storage, draft: CubeDraft, label: str, lease: Lease | None, pixels: Mapping[int, str]
    ) -> IcechunkTarget:
        """See `Publisher`."""
        return IcechunkTarget(self.storage, staging, draft, label, lease)

    def revision_from(self, number: int) -> int:
        """See `Publisher`: Icechunk separates versions by itself, and supports the first encoding only."""
        return -(-number // len(ENCODINGS)) * len(ENCODINGS)

    def states_seen(self) -> Callable[[Sequence[int]], Mapping[str, int]]:
        """See `Publisher`: all zones have the same."""
        repository = open_repository(self.storage)
        if repository is None:
            return lambda _: {}
        with failures_of(self.storage):
            snapshot = repository.lookup_branch(MAIN)
            states = {state: place for place, state in enumerate(lineage_of(repository, snapshot))} or {snapshot: 0}
        return lambda _: states

    def finish(self, staging: Storage, publication: Publication, lease: Lease | None) -> Publication | None:
        """See `Publisher`: ``main`` tells whether it is published."""
        repository = open_repository(self.storage)
        if repository is None:
            return None
        with failures_of(self.storage):
            return _finish(staging, repository)

    def restore(self, staging: Storage, publication: Publication, lease: Lease | None) -> Publication:
        """See `Publisher`. The rollback's snapshot is the one to restore.

        Raises:
            StoreError: the snapshot is gone, the store refuses, or another run is publishing.
        """
        repository = open_repository(self.storage)
        if repository is None:
            raise StoreError(f"{self.storage.url}: there is no Icechunk repository; check store.url")
        with failures_of(self.storage):
            try:
                repository.lookup_snapshot(publication.snapshot)
            except icechunk.IcechunkError:
                raise StoreError(
                    f"{self.storage.url}: snapshot {publication.snapshot} is gone: expired or collected as garbage"
                ) from None
            base = repository.lookup_branch(MAIN)
            if lease is not None:
                lease.check()
            moved = _move(repository, staging, publication, base)
        if moved is None:
            raise StoreError(f"{self.storage.url}: somebody else publishes at this moment; try again")
        return moved


def _move(repository: icechunk.Repository, staging: Storage, publication: Publication, base: str) -> Publication | None:
    """Move ``main`` from a snapshot to that of a publication, and record it; None if ``main`` is elsewhere."""
    if repository.lookup_branch(MAIN) != base:
        return None
    enter(staging, publication)
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
    return replace(mark(staging, publication.number, state="published"), current=True)


def _finish(staging: Storage, repository: icechunk.Repository) -> Publication | None:
    """Record a publication whose driver died after moving ``main``; None if there is none."""
    last = end_of(staging).begun
    if last is None or last.snapshot != repository.lookup_branch(MAIN):
        return None
    return _remember(staging, repository, last)


def _family(repository: icechunk.Repository, family: str) -> list[str]:
    """The branches of a period's runs, the latest driver's first."""
    names = (name for name in repository.list_branches() if name == family or name.startswith(f"{family}."))
    return sorted(names, reverse=True)


def _left_by(repository: icechunk.Repository, family: str, base: str) -> tuple[str, tuple[str, ...]]:
    """The snapshot to continue from, and the attempts that led to it since they left ``main``; empty if there is none,
    or if it left ``main`` elsewhere."""
    for branch in _family(repository, family):
        tip = repository.lookup_branch(branch)
        facts = facts_of(repository, tip)
        if facts.get("base") == base:
            return tip, (*facts.get("continues", ()), str(facts["attempt"]))
    return "", ()


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
