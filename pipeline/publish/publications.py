"""The history of a cube: one document in the staging folder for every publication, in every kind of store.

A publication changes all that readers see at once, and can be rolled back.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from difffusr.pipeline.storage import Storage, read_document

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
        documents: text of every metadata document of the cube by its path, on a plain store.
        steps_of_time: base64 of the objects of `time` and `time_bnds` by their path, on a plain store.
        state: `publishing` until all is in place, then `published`.
        gone: whether objects that it needs were deleted.
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
    documents: Mapping[str, str] = field(default_factory=dict, repr=False)
    steps_of_time: Mapping[str, str] = field(default_factory=dict, repr=False)
    state: str = "publishing"
    gone: bool = False
    current: bool = False

    def facts(self) -> dict[str, Any]:
        """What there is to tell of it, as JSON-able values: all but the texts that a rollback needs."""
        kept = {"documents", "steps_of_time"}
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
        return json.dumps(document, indent=1, sort_keys=True).encode()


def now() -> str:
    """The current time in the format of `Publication.when`."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def new_publication(staging: Storage, draft: CubeDraft, shards_written: int, **more: Any) -> Publication:
    """The next publication of a draft, not yet in the history."""
    start, end = next(iter(draft.zones.values())).period_days
    revises = any(zone.seen for zone in draft.zones.values())
    return Publication(
        number=next_number(staging),
        when=now(),
        kind="revision" if revises else "period",
        period=f"{start} – {end}",
        zones={epsg: zone.revision for epsg, zone in draft.zones.items()},
        steps={epsg: len(zone.periods) for epsg, zone in draft.zones.items()},
        shards_written=shards_written,
        **more,
    )


def keep(staging: Storage, publication: Publication) -> None:
    """Write a publication into the history, or replace it there."""
    staging.write(f"{_FOLDER}/{publication.number:06d}.json", publication.to_json())


def records(staging: Storage) -> Iterator[Publication]:
    """All publications in the history, oldest first, unfinished ones included.

    Raises:
        StoreError: a document cannot be read.
    """
    yield from (_record(staging, name) for name in _names(staging))


def _names(staging: Storage) -> list[str]:
    """Of its documents, in order."""
    return sorted(name for name in staging.names(_FOLDER) if _NUMBERED.fullmatch(name))


def _record(staging: Storage, name: str) -> Publication:
    return read_document(staging, f"{_FOLDER}/{name}", Publication, "restore it from a copy, or delete it")


def next_number(staging: Storage) -> int:
    """Number of the next publication; the last one's number is reused if it was never finished."""
    last = max(records(staging), key=lambda record: record.number, default=None)
    return 1 if last is None else last.number + (last.state == "published")


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
    names = reversed(_names(staging))
    return next((record.number for record in map(partial(_record, staging), names) if record.state == "published"), 0)
