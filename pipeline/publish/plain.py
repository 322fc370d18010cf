"""A plain Zarr store as a target: each revision has its own keys, and is published by replacing metadata."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store

from difffusr.pipeline.cube import (
    ENCODINGS,
    PAGES,
    AnyShard,
    CubeDraft,
    PlainStore,
    ShardData,
    Zone,
    chunk_index,
    chunk_key,
)
from difffusr.pipeline.geo import OverviewIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.publish.claims import Claim, ClaimBook
from difffusr.pipeline.publish.documents import ROOT, is_digest, keep_documents, keep_page, unused_documents
from difffusr.pipeline.publish.placing import CubeState, put_back, put_in_place
from difffusr.pipeline.publish.publications import (
    Publication,
    attempt_of,
    end_of,
    kept_revisions,
    mark,
    new_publication,
    records,
    revisions_seen,
)
from difffusr.pipeline.publish.target import Receipt
from difffusr.pipeline.storage import Lease, Storage, store_failures

log = logging.getLogger("difffusr.publish")

#: Requests to the store at a time.
_REQUESTS = 16


@dataclass(frozen=True)
class PlainWriter:
    """Writes shards into a plain store, where they are durable at once.

    Attributes:
        draft: the cube as it will be.
        tags: of the objects that may be replaced, by path: no others are, however late a request comes.
    """

    draft: CubeDraft
    tags: Mapping[str, str] | None = None

    def write(self, epsg: int, shard: AnyShard, data: ShardData) -> Receipt:
        """See `ShardWriter`."""
        stored = self.draft.write_shard(epsg, shard, data, tags=self.tags)
        return Receipt(stored.checksums, sizes=stored.sizes)

    def store(self) -> Store:
        """See `ShardWriter`."""
        return PlainStore(self.draft.storage).open()


class _Object(NamedTuple):
    """A shard's object.

    Attributes:
        path: in the store.
        chunk: index in its array.
        place: level, row and column of its shard.
        size: in bytes.
    """

    path: str
    chunk: tuple[int, ...]
    place: OverviewIndex
    size: int


@dataclass(frozen=True)
class PlainTarget:
    """See `Target`.

    A new period's objects lie at an index of the time axis where no reader looks yet. A revised zone gets the keys of
    its next revision; objects that stay the same get a second key before the metadata is replaced: by hard links on a
    local file system, elsewhere by copies that the store makes itself.

    Two unpublished periods may want the same index of the time axis. The first to write takes it: a claim in the
    staging folder names the period, and objects that another period has left there are ignored.

    Attributes:
        storage: the cube.
        staging: its staging folder.
        draft: the cube as it will be.
        label: of the run's period.
        lease: of this driver; None for who only reads, and for a driver that is alone for sure.
        pixels: by zone, a digest of what its shards will hold.
    """

    storage: Storage
    staging: Storage
    draft: CubeDraft
    label: str
    lease: Lease | None = None
    pixels: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def book(self) -> ClaimBook:
        """The claims on this cube, as found."""
        return ClaimBook(self.staging, self.lease)

    def begin(self) -> None:
        """Claim the index for this period and delete what others left there; that is done once, not on resuming."""
        wanted = {epsg: self._claim(zone) for epsg, zone in self.draft.zones.items() if zone.is_written}
        if not wanted:
            return
        unready = {epsg: claim for epsg, claim in wanted.items() if not self._is_held(epsg)}
        self.book.note({**wanted, **{epsg: replace(claim, ready=False) for epsg, claim in unready.items()}})
        for epsg, claim in unready.items():
            zone = self.draft.zones[epsg]
            self._forget_space(zone)
            # In a new revision every key, else those at its index in time.
            there = self._objects(zone, zone.revision)
            self._delete(found.path for found in there if zone.revised or found.chunk[0] == zone.step)
            self.book.note({epsg: claim})

    def writer(self, level: int | None = None) -> PlainWriter:
        """See `Target`. What others write from now on stays."""
        written = [zone for zone in self.draft.zones.values() if zone.is_written]
        tags = {path: tag for zone in written for path, tag in self._tags(zone, level)}
        self.book.check()  # after the tags: whoever takes over now leaves others behind
        return PlainWriter(self.draft, tags)

    def accept(self, receipts: Sequence[Receipt]) -> None:
        """Does nothing: written shards are durable."""

    def state(self, epsg: int) -> str:
        """See `Target`."""
        return _state(self.draft.zones[epsg].revision)

    def lineage(self, epsg: int) -> Mapping[str, int]:
        """See `Target`."""
        return _states(self.draft.zones[epsg].lineage)

    def published(self, epsg: int) -> Mapping[str, int]:
        """See `Target`."""
        return _states(self.draft.zones[epsg].seen)

    def present(self) -> dict[str, int | None]:
        """See `Target`."""
        return {
            found.path: found.size
            for epsg, zone in self.draft.zones.items()
            if not zone.is_written or self._is_held(epsg)
            for found in self._objects(zone, zone.revision)
            if found.chunk[0] == zone.step
        }

    def is_free(self, epsg: int, revision: int | None = None) -> bool:
        """See `Target`."""
        zone = self.draft.zones[epsg]
        if revision is not None:
            zone = replace(zone, lineage=(*zone.lineage, revision), revised=True)
        return not zone.is_written or self.book.is_free(epsg, self._claim(zone))

    def replaced(self, epsg: int) -> frozenset[str]:
        """See `Target`."""
        return frozenset({self.state(epsg)})

    def close(self) -> None:
        """See `Target`."""
        self.book.close()

    def settle(self, planned: Collection[tuple[int, AnyShard]], rewritten: Collection[tuple[int, AnyShard]]) -> None:
        """See `Target`."""
        for epsg, zone in self.draft.zones.items():
            here = {zone.position(shard, self.draft.grid) for at, shard in planned if at == epsg}
            new = {zone.position(shard, self.draft.grid) for at, shard in rewritten if at == epsg}
            if zone.revised and len(zone.lineage) > 1:
                self._bring_over(zone, zone.lineage[-2], here - new)
            self._delete(
                found.path
                for found in self._objects(zone, zone.revision)
                if found.chunk[0] == zone.step and found.place not in here
            )

    def publish(self, *, shards_written: int, keep: int) -> Publication:
        """See `Target`."""
        self.book.close()
        end = end_of(self.staging)
        known = {} if end.latest is None else end.latest.parts
        parts = keep_documents(self.staging, self.draft.documents, known.values())
        for path, text in self.draft.pages.items():
            keep_page(self.staging, path, text)
        # Zones of other runs, unless somebody has begun to write them.
        others = set() if end.begun else known.keys() - set(map(str, self.draft.zones)) - {ROOT, PAGES}
        left = {part for part in others if known[part] == parts.get(part)}
        publication = new_publication(
            self.staging, end, self.draft, shards_written, attempt=attempt_of(self.lease), parts=parts
        )
        done = put_in_place(self.storage, self.staging, publication, self.lease, CubeState.of(self.draft, left))
        self.tidy(keep=keep)
        return replace(done, current=True)

    def tidy(self, *, keep: int, again: bool = False) -> None:
        """Delete the objects of revisions that are no longer kept, and note that in the history before."""
        latest = end_of(self.staging).latest
        seen = revisions_seen(self.staging, latest)
        if not again and all(len(seen.get(epsg, ())) <= 1 + keep for epsg in self.draft.zones):
            return
        there = list(records(self.staging))
        unkept: dict[int, list[int]] = {}
        doomed: dict[int, set[int]] = {}
        for epsg, zone in self.draft.zones.items():
            past = [record.zones[epsg] for record in there if epsg in record.zones]
            whole = [record.zones[epsg] for record in there if epsg in record.zones and not record.gone]
            by_last_seen = list(dict.fromkeys([zone.revision, *reversed(whole)]))
            if found := by_last_seen[1 + keep :]:
                unkept[epsg] = found
            # Nor those of a revision that is still to be published.
            claim = self.book.of_zone(epsg)
            coming = [claim.revision] if claim is not None and claim.revision not in past else []
            doomed[epsg] = _spaces(past if again else found) - _spaces([*by_last_seen[: 1 + keep], *coming])
        if unkept or (again and any(doomed.values())):
            self.book.note_clearing(doomed)
            for epsg, revisions in unkept.items():
                there = self._forget(there, epsg, set(revisions))
            for epsg, spaces in doomed.items():
                for space in spaces:
                    self._delete(found.path for found in self._objects(self.draft.zones[epsg], space))
            self._sweep(there)
            self.book.close()
        if latest is not None:
            mark(self.staging, latest.number, revisions=kept_revisions(there))

    def _forget(self, there: Sequence[Publication], epsg: int, revisions: Collection[int]) -> list[Publication]:
        """Mark publications of a zone's revisions as gone, before their objects are deleted; returns all of them."""
        out = []
        for record in there:
            goes = record.zones.get(epsg) in revisions and not record.gone
            out.append(mark(self.staging, record.number, gone=True) if goes else record)
        return out

    def _forget_space(self, zone: Zone) -> None:
        """The same for the revisions before a zone's whose keys it has."""
        latest = end_of(self.staging).latest
        before = {zone.revision - n for n in range(len(ENCODINGS), zone.revision + 1, len(ENCODINGS))}
        if latest is not None and before.intersection(revisions_seen(self.staging, latest).get(zone.epsg, ())):
            there = self._forget(list(records(self.staging)), zone.epsg, before)
            mark(self.staging, latest.number, revisions=kept_revisions(there))

    def _sweep(self, there: Sequence[Publication]) -> None:
        """Delete documents and pages of scenes that no publication needs which can be gone back to."""
        pages = {f"{PAGES}/{name.split('/')[0]}" for name in self.storage.names(PAGES) if is_digest(name.split("/")[0])}
        try:
            unused, needed = unused_documents(self.staging, [record for record in there if not record.gone])
        except StoreError as error:
            log.warning("documents of earlier publications stay: %s", error)
            return
        for name in sorted(unused):
            self.book.guard()
            self.staging.delete(name)
        self._delete(f"{page}/{name}" for page in sorted(pages - needed) for name in ("c", "zarr.json"))

    def _claim(self, zone: Zone) -> Claim:
        return Claim(zone.revision, zone.step, self.label, self.pixels.get(zone.epsg, ""), zone.revised)

    def _is_held(self, epsg: int) -> bool:
        """Whether what is at this period's index was written for this period."""
        last, zone = self.book.of_zone(epsg), self.draft.zones[epsg]
        return last is not None and last.ready and last.is_for(self._claim(zone))

    # -----------------------------------------------------------------------------------------------------------------

    def _objects(self, zone: Zone, revision: int) -> Iterator[_Object]:
        """Every shard object of a zone in a revision, of all levels and periods."""
        for level, folder in _arrays(zone):
            for key, size in self.storage.sizes(folder).items():
                index = chunk_index(revision, key)
                if index is not None:
                    yield _Object(f"{folder}/{key}", index, OverviewIndex(level, *index[-2:]), size)

    def _tags(self, zone: Zone, level: int | None) -> Iterator[tuple[str, str]]:
        """Path and tag of every object of a zone at its index in time, of all levels or one."""
        for folder in (folder for at, folder in _arrays(zone) if level in (None, at)):
            for key, tag in self.storage.tags(folder).items():
                index = chunk_index(zone.revision, key)
                if index is not None and index[0] == zone.step:
                    yield f"{folder}/{key}", tag

    def _bring_over(self, zone: Zone, revision: int, kept: Collection[OverviewIndex]) -> None:
        """Give every object of another revision a key in this one, except those of the run's period not in `kept`."""
        pairs = []
        for path, index, place, _ in self._objects(zone, revision):
            if index[0] != zone.step or place in kept:
                folder = "/".join(path.split("/")[:3])
                pairs.append((path, f"{folder}/{chunk_key(zone.revision, index)}"))
        copy = self._copier()

        def bring(pair: tuple[str, str]) -> None:
            self.book.guard()
            copy(*pair)

        with ThreadPoolExecutor(_REQUESTS, "bring-over") as pool:
            for _ in pool.map(bring, pairs):
                pass

    def _copier(self) -> Callable[[str, str], None]:
        """A function that gives an object a second path, replacing atomically what has it."""
        fs, root = self.storage.filesystem()

        def copy(source: str, target: str) -> None:
            try:
                if isinstance(fs, LocalFileSystem):
                    _link(Path(root, source), Path(root, target))
                else:
                    fs.cp_file(f"{root}/{source}", f"{root}/{target}")
            except store_failures() as error:
                raise StoreError(
                    f"{self.storage.url}/{target}: cannot be copied from {source} ({first_line(error)}); run again"
                ) from None

        return copy

    def _delete(self, paths: Collection[str] | Iterator[str]) -> None:
        def delete(path: str) -> None:
            self.book.guard()
            self.storage.delete(path)

        with ThreadPoolExecutor(_REQUESTS, "delete") as pool:
            for _ in pool.map(delete, list(paths)):
                pass


@dataclass(frozen=True)
class PlainPublisher:
    """See `Publisher`."""

    storage: Storage

    def target(
        self, staging: Storage, draft: CubeDraft, label: str, lease: Lease | None, pixels: Mapping[int, str]
    ) -> PlainTarget:
        """See `Publisher`."""
        return PlainTarget(self.storage, staging, draft, label, lease, pixels)

    def revision_from(self, number: int) -> int:
        """See `Publisher`: all keys are supported."""
        return number

    def states_seen(self) -> Callable[[Sequence[int]], Mapping[str, int]]:
        """See `Publisher`."""
        return _states

    def finish(self, staging: Storage, publication: Publication, lease: Lease | None) -> Publication | None:
        """See `Publisher`: the history holds all documents."""
        return put_back(self.storage, staging, replace(publication, attempt=attempt_of(lease)), lease)

    def restore(self, staging: Storage, publication: Publication, lease: Lease | None) -> Publication:
        """See `Publisher`."""
        return replace(put_back(self.storage, staging, publication, lease), current=True)


def _arrays(zone: Zone) -> Iterator[tuple[int, str]]:
    """Level and path of every array of a zone that has pixels."""
    for level in zone.levels:
        for name in zone.variables:
            yield level, f"{zone.level_path(level)}/{name}"


def _spaces(revisions: Iterable[int]) -> set[int]:
    """Which sets of keys revisions have, each by its first revision."""
    return {revision % len(ENCODINGS) for revision in revisions}


def _states(lineage: Sequence[int]) -> dict[str, int]:
    return {_state(revision): place for place, revision in enumerate(lineage)}


def _state(revision: int) -> str:
    return f"r{revision}"


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what has it; copies where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=".partial-", dir=target.parent)
    beside = Path(folder, target.name)
    try:
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)
        os.replace(beside, target)
        # If both names are one file already, a rename does nothing and leaves the temporary name behind.
        beside.unlink(missing_ok=True)
    finally:
        Path(folder).rmdir()
