"""Publishing into any kind of store: targets for drafts, unfinished publications, rollback."""

from __future__ import annotations

from dataclasses import replace

from difffusr.pipeline.cube import CubeDraft, PlainStore, store_of
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.publish.plain import PlainPublisher
from difffusr.pipeline.publish.publications import Publication, history, next_number, now, records
from difffusr.pipeline.publish.revisions import next_revision
from difffusr.pipeline.publish.target import Publisher, Target
from difffusr.pipeline.storage import Storage


def publisher_of(storage: Storage) -> Publisher:
    """The publisher for the store at a URL.

    Raises:
        ConfigError: the store's package is not installed.
    """
    if isinstance(store_of(storage), PlainStore):
        return PlainPublisher(storage)
    from difffusr.pipeline.publish.icechunk import IcechunkPublisher

    return IcechunkPublisher(storage)


def open_target(storage: Storage, staging: Storage, draft: CubeDraft, label: str) -> Target:
    """The target that a draft is written to.

    Args:
        storage: the cube.
        staging: the cube's staging folder.
        label: of the run's period.
    """
    return publisher_of(storage).target(staging, draft, label)


def revision_to_come(storage: Storage, staging: Storage, draft: CubeDraft, epsg: int) -> int:
    """A new revision for a zone of a draft."""
    return publisher_of(storage).revision_from(next_revision(staging, epsg, draft.zones[epsg].lineage))


def finish_publishing(storage: Storage, staging: Storage) -> None:
    """Finish a publication whose driver died in the middle of it: all that it needs is stored already.

    Raises:
        StoreError: the store refuses.
    """
    last = max(records(staging), key=lambda record: record.number, default=None)
    if last is not None and last.state != "published":
        publisher_of(storage).finish(staging, last)


def rollback(storage: Storage, staging: Storage, to: int | None = None) -> Publication:
    """Let readers see an earlier publication again. The caller holds the store's lease.

    Args:
        to: its number; None for the one before the current one.

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
    return publisher_of(storage).restore(staging, restored)


def _before(seen: list[Publication]) -> Publication | None:
    """The publication before the current one: rolling back twice goes back two, not back and forth."""
    here = _original(seen[0])
    earlier = [record for record in seen if record.number < here and record.kind != "rollback"]
    return earlier[0] if earlier else None


def _original(record: Publication) -> int:
    return record.restores or record.number
