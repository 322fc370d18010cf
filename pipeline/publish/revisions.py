"""Revisions of a zone: the next one, and those that readers may still be reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from difffusr.pipeline.cube import ENCODINGS
from difffusr.pipeline.publish.publications import Publication, records
from difffusr.pipeline.storage import Storage


def next_revision(staging: Storage, epsg: int, lineage: Sequence[int]) -> int:
    """A revision of a zone that readers have never seen, and whose keys differ from those they read now."""
    spaces = len(ENCODINGS)
    seen = [record.zones[epsg] for record in _finished(staging) if epsg in record.zones]
    number = max([*seen, *lineage]) + 1
    return number + (number % spaces == lineage[-1] % spaces)


def was_seen(staging: Storage, epsg: int, revision: int, step: int) -> bool:
    """Whether readers have ever seen this step of a zone in this revision; they may still be reading it."""
    return any(
        record.zones.get(epsg) == revision and record.steps.get(epsg, 0) > step and not record.restores
        for record in _finished(staging)
    )


def _finished(staging: Storage) -> Iterator[Publication]:
    """The publications that readers have seen: one that was begun and could not be finished was never shown."""
    return (record for record in records(staging) if record.state == "published")
