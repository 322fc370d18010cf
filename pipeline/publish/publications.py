"""The history of a cube: one document in the staging folder for every publication, in every kind of store.

A publication changes all that readers see at once, and can be rolled back.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage import Lease, Storage, read_document

if TYPE_CHECKING:  # listing the history must not load Zarr and NumPy
    from difffusr.pipeline.cube import CubeDraft

_FOLDER = "history"

#: Names of its documents; whatever else lies in the folder is a stranger's.
_NUMBERED = re.compile(r"\d{6,9}\.json", re.ASCII)


@dataclass(frozen=True)
class Publication:
    """One change of what readers see.

    Attributes:
        number: counts from 1.
        when: ISO 8601, UTC.
        kind: `period` (a new one), `revision` (of a published one) or `rollback`.
        period: its label.
        zones: revision by zone.
        steps: length of the time axis by zone.
        shards_written: their number.
        restores: number of the publication that a rollback brought back.
        snapshot: Icechunk's id, else empty.
        parts: digest of the documents of each part of the cube, on a plain store: see `keep_documents`.
        revisions: by zone, the revisions that readers had seen by then and that were kept, each with the most steps of
            time; None in histories of earlier versions.
        documents: text of every metadata document of the cube by its path, in histories of earlier versions.
        steps_of_time: base64 of the objects of `time` and `time_bnds` by their path, in histories of earlier versions.
        state: `publishing` until all is in place, then `published`.
        gone: whether objects that it needs were deleted.
        attempt: number of the lease under which it was published; 0 in histories of earlier versions.
        dropped: paths of documents that there were before and are no longer.
        current: whether readers see it now.
    """

    number: int
    when: str
    kind: str
    period: str
    zones: Mapping[int, int]
    steps: Mapping[int, int]
    shards_written: int
    restores: int | None = None
    snapshot: str = ""
    parts: Mapping[str, str] = field(default_factory=dict, repr=False)
    revisions: Mapping[int, Mapping[int, int]] | None = field(default=None, repr=False)
    documents: Mapping[str, str] = field(default_factory=dict, repr=False)
    steps_of_time: Mapping[str, str] = field(default_factory=dict, repr=False)
    state: str = "publishing"
    gone: bool = False
    current: bool = False
    attempt: int = 0
    dropped: Sequence[str] = ()

    def facts(self) -> dict[str, Any]:
        """What there is to tell of it, as JSON-able values: all but the texts that a rollback needs."""
        kept = {"documents", "steps_of_time", "dropped", "parts", "revisions"}
        told = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in kept}
        return {**told, "zones": dict(self.zones), "steps": dict(self.steps), "where": self.where}

    @property
    def where(self) -> str:
        """Snapshot or revisions, to be displayed."""
        if self.snapshot:
            return f"snapshot {self.snapshot}"
        numbers = sorted(set(self.zones.values()))
        return f"revision {', '.join(map(str, numbers))}"

    def to_json(self) -> bytes:
        """As an object of the staging folder."""
        document = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "current"}
        for name in ("documents", "steps_of_time"):
            if not document[name]:
                del document[name]
        return json.dumps(document, indent=1, sort_keys=True).encode()


def attempt_of(lease: Lease | None) -> int:
    """Number of a driver's lease; 0 without one."""
    return 0 if lease is None else lease.number


def now() -> str:
    """The current time in the format of `Publication.when`."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class End:
    """The end of a history.

    Attributes:
        latest: the publication that readers see; None before the first.
        begun: one after it that was begun and not finished, or None.
    """

    latest: Publication | None
    begun: Publication | None

    @property
    def next_number(self) -> int:
        """Number of the next publication: the last one's is reused if that was never finished."""
        if self.begun is not None:
            return self.begun.number
        return 1 if self.latest is None else self.latest.number + 1


def end_of(staging: Storage) -> End:
    """The end of a history: reads one or two of its documents.

    Raises:
        StoreError: a document cannot be read.
    """
    begun = None
    for name in reversed(_names(staging)):
        record = _record(staging, name)
        if record.state == "published":
            return End(record, begun)
        begun = begun or record
    return End(None, begun)


def revisions_seen(staging: Storage, latest: Publication | None) -> Mapping[int, Mapping[int, int]]:
    """By zone, the revisions that readers have seen and whose objects are kept, each with the most steps of time.

    Args:
        latest: the publication that readers see.

    Raises:
        StoreError: the history is of an earlier version, and a document of it cannot be read.
    """
    if latest is None:
        return {}
    return kept_revisions(list(records(staging))) if latest.revisions is None else latest.revisions


def kept_revisions(there: Sequence[Publication]) -> dict[int, dict[int, int]]:
    """As `revisions_seen`, from all publications of a history."""
    found: dict[int, dict[int, int]] = {}
    for record in there:
        if record.state == "published":
            found = with_revisions(found, record.zones, record.steps)
    kept = {(epsg, revision) for record in there if not record.gone for epsg, revision in record.zones.items()}
    return {
        epsg: {revision: steps for revision, steps in of_zone.items() if (epsg, revision) in kept}
        for epsg, of_zone in found.items()
    }


def with_revisions(
    seen: Mapping[int, Mapping[int, int]], zones: Mapping[int, int], steps: Mapping[int, int]
) -> dict[int, dict[int, int]]:
    """What `revisions_seen` is once readers see these revisions of zones with so many steps."""
    out = {epsg: dict(revisions) for epsg, revisions in seen.items()}
    for epsg, revision in zones.items():
        of_zone = out.setdefault(epsg, {})
        of_zone[revision] = max(of_zone.get(revision, 0), steps.get(epsg, 0))
    return out


def new_publication(staging: Storage, end: End, draft: CubeDraft, shards_written: int, **more: Any) -> Publication:
    """The next publication of a draft, not yet in the history, whose end is given."""
    first, last = next(iter(draft.zones.values())).period_days
    revises = any(zone.seen for zone in draft.zones.values())
    zones = {epsg: zone.revision for epsg, zone in draft.zones.items()}
    steps = {epsg: len(zone.periods) for epsg, zone in draft.zones.items()}
    return Publication(
        number=end.next_number,
        when=now(),
        kind="revision" if revises else "period",
        period=f"{first} – {last}",
        zones=zones,
        steps=steps,
        shards_written=shards_written,
        revisions=with_revisions(revisions_seen(staging, end.latest), zones, steps),
        **more,
    )


def enter(staging: Storage, publication: Publication) -> None:
    """Write a new publication into the history, in place of an unfinished one of the same number at most.

    Raises:
        StoreError: the store refuses, or another driver has taken the number.
    """
    name, data = _name(publication.number), publication.to_json()
    if staging.create(name, data):
        return
    tag, there = staging.tag(name), _record(staging, name)
    if there.to_json() == data:
        return  # the answer to a first attempt was lost
    if there.state == "published" or there.attempt > publication.attempt or not staging.exchange(name, data, tag):
        raise StoreError(
            f"{staging.url}/{name}: another driver publishes there (publication {there.number} of {there.period}); "
            "run again: what is staged is kept"
        )


def mark(staging: Storage, number: int, **changes: Any) -> Publication:
    """Change attributes of a publication in the history; returns it.

    Raises:
        StoreError: the store refuses.
    """
    name = _name(number)
    while True:
        tag, there = staging.tag(name), _record(staging, name)
        changed = replace(there, **changes)
        if changed == there or staging.exchange(name, changed.to_json(), tag):
            return changed


def records(staging: Storage) -> Iterator[Publication]:
    """All publications in the history, oldest first, unfinished ones included.

    Raises:
        StoreError: a document cannot be read.
    """
    yield from (_record(staging, name) for name in _names(staging))


def _name(number: int) -> str:
    return f"{_FOLDER}/{number:06d}.json"


def _names(staging: Storage) -> list[str]:
    """Names of all records, the oldest first."""
    return sorted(f"{_FOLDER}/{name}" for name in staging.names(_FOLDER) if _NUMBERED.fullmatch(name))


def _record(staging: Storage, name: str) -> Publication:
    return read_document(staging, name, Publication, "restore it from a copy, or delete it")


def history(staging: Storage) -> list[Publication]:
    """Finished publications of a cube, newest first; one of them is current.

    Raises:
        StoreError: the history cannot be read.
    """
    done = [record for record in records(staging) if record.state == "published"]
    return [replace(record, current=record is done[-1]) for record in reversed(done)]


def latest_number(staging: Storage) -> int:
    """Number of the publication that readers see, 0 before the first: reads one or two documents of the history.

    Raises:
        StoreError: a document cannot be read.
    """
    latest = end_of(staging).latest
    return 0 if latest is None else latest.number


def latest_since(staging: Storage, number: int, period: str) -> Publication | None:
    """The latest finished publication of a period after a number, rollbacks aside; None if there is none.

    Raises:
        StoreError: a document cannot be read.
    """
    later = (name for name in reversed(_names(staging)) if int(name.rpartition("/")[2][:-5]) > number)
    found = map(partial(_record, staging), later)
    ours = (one for one in found if (one.period, one.state) == (period, "published") and one.kind != "rollback")
    return next(ours, None)
