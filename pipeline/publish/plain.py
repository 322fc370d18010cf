"""A plain Zarr store as a target: each revision has its own keys, and is published by replacing metadata."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store

from difffusr.pipeline.cube import (
    ENCODINGS,
    AnyShard,
    CubeDraft,
    PlainStore,
    ShardData,
    Zone,
    chunk_index,
    chunk_key,
    in_order,
)
from difffusr.pipeline.geo import OverviewIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.publish.publications import Publication, keep, new_publication, records
from difffusr.pipeline.publish.target import Receipt
from difffusr.pipeline.storage import Storage, read_document, store_failures

#: Requests to the store at a time.
_REQUESTS = 16

#: Object that says for which period a zone's keys were last claimed.
_CLAIMS = "claims.json"


@dataclass(frozen=True)
class PlainWriter:
    """Writes shards into a plain store, where they are durable at once."""

    draft: CubeDraft

    def write(self, epsg: int, shard: AnyShard, data: ShardData) -> Receipt:
        """See `ShardWriter`."""
        return Receipt(self.draft.write_shard(epsg, shard, data))

    def store(self) -> Store:
        """See `ShardWriter`."""
        return PlainStore(self.draft.storage).open()


class _Object(NamedTuple):
    """A shard's object.

    Attributes:
        path: in the store.
        chunk: index in its array.
        place: level, row and column of its shard.
    """

    path: str
    chunk: tuple[int, ...]
    place: OverviewIndex


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
    """

    storage: Storage
    staging: Storage
    draft: CubeDraft
    label: str

    def begin(self) -> None:
        """Claim the index for this period and delete what others left there; done once, not again on resuming."""
        claims = self._claims()
        for epsg, zone in self.draft.zones.items():
            claim = self._claim(zone)
            if not zone.is_written or claims.get(str(epsg)) == claim:
                continue
            claims.pop(str(epsg), None)
            self._note(claims)
            self._forget(epsg, {zone.revision - n for n in range(len(ENCODINGS), zone.revision + 1, len(ENCODINGS))})
            # In a new revision every key, else those at its index in time.
            there = self._objects(zone, zone.revision)
            self._delete(found.path for found in there if zone.revised or found.chunk[0] == zone.step)
            claims[str(epsg)] = claim
            self._note(claims)

    def writer(self) -> PlainWriter:
        """See `Target`."""
        return PlainWriter(self.draft)

    def accept(self, receipts: Sequence[Receipt]) -> None:
        """Does nothing: written shards are durable."""

    def state(self, epsg: int) -> str:
        """See `Target`."""
        return _state(self.draft.zones[epsg].revision)

    def lineage(self, epsg: int) -> Mapping[str, int]:
        """See `Target`."""
        return {_state(revision): place for place, revision in enumerate(self.draft.zones[epsg].lineage)}

    def published(self, epsg: int) -> Mapping[str, int]:
        """See `Target`."""
        return {_state(revision): place for place, revision in enumerate(self.draft.zones[epsg].seen)}

    def present(self) -> set[str]:
        """See `Target`."""
        claims = self._claims()
        return {
            found.path
            for epsg, zone in self.draft.zones.items()
            if not zone.is_written or claims.get(str(epsg)) == self._claim(zone)
            for found in self._objects(zone, zone.revision)
            if found.chunk[0] == zone.step
        }

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
        """See `Target`. Coordinates first: no reader looks at those of a new step; then the documents."""
        documents, coordinates = {}, {}
        for path in self.draft.in_order():
            data = self.draft.objects[path]
            if path.endswith("zarr.json"):
                documents[path] = data.decode()
                continue
            if path.split("/")[2].startswith("time"):
                coordinates[path] = base64.b64encode(data).decode()
            else:
                self.storage.write(path, data)
        for name in PlainStore(self.storage).consolidated():
            path = f"{name}/zarr.json"
            if path not in documents and name.split("/")[0] not in map(str, self.draft.zones):
                documents[path] = self.storage.read(path).decode()
        publication = new_publication(
            self.staging, self.draft, shards_written, documents=documents, steps_of_time=coordinates
        )
        put_in_place(self.storage, self.staging, publication)
        self._delete_unkept(keep)
        return replace(publication, state="published", current=True)

    def _delete_unkept(self, keep: int) -> None:
        """Delete the objects of revisions that are no longer kept, and note that in the history."""
        for epsg, zone in self.draft.zones.items():
            past = [r.zones[epsg] for r in records(self.staging) if epsg in r.zones and not r.gone]
            by_last_seen = list(dict.fromkeys([zone.revision, *reversed(past)]))
            kept = by_last_seen[: 1 + keep]
            spaces = {revision % len(ENCODINGS) for revision in kept}
            for revision in by_last_seen[1 + keep :]:
                self._forget(epsg, {revision})
                if revision % len(ENCODINGS) not in spaces:
                    self._delete(found.path for found in self._objects(zone, revision))

    def _forget(self, epsg: int, revisions: Collection[int]) -> None:
        """Mark publications of a zone's revisions as gone, before their objects are deleted."""
        for record in records(self.staging):
            if record.zones.get(epsg) in revisions and not record.gone:
                keep(self.staging, replace(record, gone=True))

    def _claim(self, zone: Zone) -> list[Any]:
        return [zone.revision, zone.step, self.label]

    def _claims(self) -> dict[str, list[Any]]:
        """Revision, step and period that shards were last written for, by zone."""
        if not self.staging.exists(_CLAIMS):
            return {}
        return read_document(self.staging, _CLAIMS, dict[str, list[Any]], "delete it, and run again")

    def _note(self, claims: Mapping[str, list[Any]]) -> None:
        self.staging.write(_CLAIMS, json.dumps(claims, sort_keys=True).encode())

    # -----------------------------------------------------------------------------------------------------------------

    def _objects(self, zone: Zone, revision: int) -> Iterator[_Object]:
        """Every shard object of a zone in a revision, of all levels and periods."""
        for level in zone.levels:
            for name in zone.variables:
                folder = f"{zone.level_path(level)}/{name}"
                for key in self.storage.names(folder):
                    index = chunk_index(revision, key)
                    if index is not None:
                        yield _Object(f"{folder}/{key}", index, OverviewIndex(level, *index[-2:]))

    def _bring_over(self, zone: Zone, revision: int, kept: Collection[OverviewIndex]) -> None:
        """Give every object of another revision a key in this one, except those of the run's period not in `kept`."""
        pairs = []
        for path, index, place in self._objects(zone, revision):
            if index[0] != zone.step or place in kept:
                folder = "/".join(path.split("/")[:3])
                pairs.append((path, f"{folder}/{chunk_key(zone.revision, index)}"))
        copy = self._copier()
        with ThreadPoolExecutor(_REQUESTS, "bring-over") as pool:
            for _ in pool.map(lambda pair: copy(*pair), pairs):
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
        with ThreadPoolExecutor(_REQUESTS, "delete") as pool:
            for _ in pool.map(self.storage.delete, list(paths)):
                pass


@dataclass(frozen=True)
class PlainPublisher:
    """See `Publisher`."""

    storage: Storage

    def target(self, staging: Storage, draft: CubeDraft, label: str) -> PlainTarget:
        """See `Publisher`."""
        return PlainTarget(self.storage, staging, draft, label)

    def revision_from(self, number: int) -> int:
        """See `Publisher`: all keys are supported."""
        return number

    def finish(self, staging: Storage, publication: Publication) -> None:
        """See `Publisher`: the history holds all documents."""
        put_in_place(self.storage, staging, publication)

    def restore(self, staging: Storage, publication: Publication) -> Publication:
        """See `Publisher`."""
        put_in_place(self.storage, staging, publication)
        return replace(publication, state="published", current=True)


def put_in_place(storage: Storage, staging: Storage, publication: Publication) -> None:
    """Enter a publication in the history, write its documents, the root's last, and mark it as published.

    Raises:
        StoreError: the store refuses. It can be called again.
    """
    keep(staging, publication)
    for path, text in publication.steps_of_time.items():
        storage.write(path, base64.b64decode(text))
    objects = {path: text.encode() for path, text in publication.documents.items()}
    dropped = [f"{name}/zarr.json" for name in _described(storage) if f"{name}/zarr.json" not in objects]
    for path in in_order(objects):
        storage.write(path, objects[path])
    for path in dropped:
        storage.delete(path)
    keep(staging, replace(publication, state="published"))


def _described(storage: Storage) -> Collection[str]:
    """The groups and arrays that the root describes; none where it is damaged, which writing it anew mends."""
    try:
        return PlainStore(storage).consolidated()
    except StoreError:
        return ()


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
