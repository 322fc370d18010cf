"""The one door to both kinds of store: a target for a draft, the history of a cube, and the way back."""

from __future__ import annotations

from dataclasses import replace

from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.layout import ENCODINGS
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.publish.plain import PlainTarget, put_in_place
from difffusr.pipeline.publish.publications import Publication, next_number, next_revision, now, records
from difffusr.pipeline.publish.target import Target
from difffusr.pipeline.storage.icechunk import is_repository
from difffusr.pipeline.storage.objects import Storage


def open_target(storage: Storage, staging: Storage, draft: CubeDraft, label: str) -> Target:
    """Where a draft comes into being.

    Args:
        storage: the cube's place.
        staging: the cube's staging folder.
        label: of the run's period.
    """
    if is_repository(storage):
        from difffusr.pipeline.publish.icechunk import IcechunkTarget

        return IcechunkTarget(storage, staging, draft, label)
    return PlainTarget(storage, staging, draft, label)


def revision_to_come(storage: Storage, staging: Storage, draft: CubeDraft, epsg: int) -> int:
    """A new revision for a zone of a draft. Icechunk keeps versions apart by itself, and knows the first keys alone."""
    number = next_revision(staging, epsg, draft.zones[epsg].lineage)
    return -(-number // len(ENCODINGS)) * len(ENCODINGS) if is_repository(storage) else number


def finish_publishing(storage: Storage, staging: Storage) -> None:
    """Finish a publication whose driver died in the middle of it: everything that it needs was there already.

    Raises:
        StoreError: the store refuses.
    """
    last = max(records(staging), key=lambda record: record.number, default=None)
    if last is not None and last.state != "published" and not is_repository(storage):
        put_in_place(storage, staging, last)


def history(staging: Storage) -> list[Publication]:
    """What readers of a cube have seen, the newest first; one of them is current.

    Raises:
        StoreError: the history cannot be read.
    """
    done = [record for record in records(staging) if record.state == "published"]
    return [replace(record, current=record is done[-1]) for record in reversed(done)]


def rollback(storage: Storage, staging: Storage, to: int | None = None) -> Publication:
    """Let readers see an earlier publication again. Only one driver may work on the store meanwhile.

    Args:
        to: its number; None for the one before what is seen now.

    Returns:
        the new publication that this is.

    Raises:
        DifffusrError: there is none to go back to, or its objects are gone.
        StoreError: the store refuses.
    """
    finish_publishing(storage, staging)
    seen = history(staging)
    if not seen:
        raise DifffusrError(f"{storage.url}: nothing was published yet, or {staging.url}/history is gone")
    wanted = _before(seen) if to is None else next((record for record in seen if record.number == to), None)
    if wanted is None:
        known = ", ".join(str(record.number) for record in seen)
        what = "there is nothing before what readers see now" if to is None else f"there is no publication {to}"
        raise DifffusrError(f"{storage.url}: {what}; `difffusr history` lists them ({known})")
    if wanted.gone:
        raise DifffusrError(
            f"{storage.url}: the objects of publication {wanted.number} have been deleted; store.keep_revisions says "
            "how many earlier revisions are kept"
        )
    restored = replace(
        wanted, number=next_number(staging), when=now(), kind="rollback", restores=_original(wanted), state="publishing"
    )
    if is_repository(storage):
        from difffusr.pipeline.publish.icechunk import restore

        restored = restore(storage, staging, restored)
    else:
        put_in_place(storage, staging, restored)
    return replace(restored, state="published", current=True)


def _before(seen: list[Publication]) -> Publication | None:
    """The publication before the one that readers see: going back twice goes back two, not back and forth."""
    here = _original(seen[0])
    earlier = [record for record in seen if record.number < here and record.kind != "rollback"]
    return earlier[0] if earlier else None


def _original(record: Publication) -> int:
    return record.restores or record.number
