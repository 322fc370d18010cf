"""Revisions of a zone: the next one, and those that readers may still be reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from difffusr.pipeline.cube import ENCODINGS
from difffusr.pipeline.publish.publications import end_of, revisions_seen
from difffusr.pipeline.storage import Storage


def next_revision(staging: Storage, epsg: int, lineage: Sequence[int]) -> int:
    """A revision of a zone that readers have never seen, and whose keys differ from those they read now."""
    spaces = len(ENCODINGS)
    number = max([*_seen(staging, epsg), *lineage]) + 1
    return number + (number % spaces == lineage[-1] % spaces)


def was_seen(staging: Storage, epsg: int, revision: int, step: int) -> bool:
    """Whether readers have ever seen this step of a zone in this revision; they may still be reading it. Of those whose
    objects were deleted it is not known which steps they had, nor whether an older one was ever seen: then they were.
    """
    seen = _seen(staging, epsg)
    return seen[revision] > step if revision in seen else revision < max(seen, default=0)


def _seen(staging: Storage, epsg: int) -> Mapping[int, int]:
    return revisions_seen(staging, end_of(staging).latest).get(epsg, {})
