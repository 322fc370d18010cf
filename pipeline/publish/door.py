"""Publishing into any kind of store: targets for drafts, unfinished publications, rollback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from difffusr.pipeline.cube import ENCODINGS, CubeDraft, PlainStore, store_of
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.publish.plain import PlainPublisher
from difffusr.pipeline.publish.publications import (
    Publication,
    attempt_of,
    end_of,
    history,
    now,
    revisions_seen,
    with_revisions,
)
from difffusr.pipeline.publish.revisions import next_revision
from difffusr.pipeline.publish.target import Publisher, Target
from difffusr.pipeline.storage import Lease, Storage


def publisher_of(storage: Storage) -> Publisher:
    """The publisher for the store at a URL.

    Raises:
        ConfigError: the store's package is not installed.
    """
    if isinstance(store_of(storage), PlainStore):
        return PlainPublisher(storage)
    from difffusr.pipeline.publish.icechunk import IcechunkPublisher

    return IcechunkPublisher(storage)


def open_target(
    storage: Storage,
    staging: Storage,
    draft: CubeDraft,
    label: str,
    lease: Lease | None = None,
    pixels: Mapping[int, str] | None = None,
) -> Target:
    """The target that a draft is written to.

    Args:
        storage: the cube.
        staging: the cube's staging folder.
        label: of the run's period.
        lease: of this driver; None for who only reads, and for a driver that is alone for sure.
        pixels: by zone, a digest of what its shards will hold: who takes over and writes just the same goes on where
            the driver before was.
    """
    return publisher_of(storage).target(staging, draft, label, lease, pixels or {})


def states_seen(storage: Storage) -> Callable[[Sequence[int]], Mapping[str, int]]:
    """A function that returns, for the revisions that led to what readers see of a zone, the states that the ledger
    names, each with its position.

    Raises:
        StoreError: the store refuses.
    """
    return publisher_of(storage).states_seen()


def revisions_to_come(storage: Storage, staging: Storage, draft: CubeDraft, epsg: int) -> list[int]:
    """New revisions for a zone of a draft, the best first: of each set of keys but the one that readers read."""
    publisher, lineage = publisher_of(storage), draft.zones[epsg].lineage
    first = publisher.revision_from(next_revision(staging, epsg, lineage))
    others = (
        number for number in range(first + 1, first + len(ENCODINGS)) if publisher.revision_from(number) == number
    )
    return [first, *(number for number in others if number % len(ENCODINGS) != lineage[-1] % len(ENCODINGS))]


def finish_publishing(storage: Storage, staging: Storage, lease: Lease | None = None) -> Publication | None:
    """Finish a publication whose driver died in the middle of it: all that it needs is stored already.

    Returns:
        the publication, if there was one to finish.

    Raises:
        StoreError: the store refuses.
        LeaseError: another driver has taken over.
    """
    begun = end_of(staging).begun
    return None if begun is None else publisher_of(storage).finish(staging, begun, lease)


def rollback(storage: Storage, staging: Storage, to: int | None = None, lease: Lease | None = None) -> Publication:
    """Let readers see an earlier publication again. The caller holds the store's lease.

    Where the driver before died of a rollback, that one is finished instead: repeated, it goes back once.

    Args:
        to: its number; None for the one before the current one.

    Returns:
        the new publication that this is.

    Raises:
        DifffusrError: there is none to go back to, or its objects are gone.
        StoreError: the store refuses.
        LeaseError: another driver has taken over.
    """
    finish_publishing(storage, staging, lease)
    seen = history(staging)
    if not seen:
        raise DifffusrError(f"{storage.url}: nothing was published yet, or {staging.url}/history is gone")
    if _is_repeated(seen[0], lease, to):
        return seen[0]
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
    end = end_of(staging)
    seen_by_then = with_revisions(revisions_seen(staging, end.latest), wanted.zones, wanted.steps)
    restored = replace(
        wanted, number=end.next_number, revisions=seen_by_then, when=now(), kind="rollback", restores=_original(wanted),
        state="publishing", attempt=attempt_of(lease), dropped=(),
    )  # fmt: skip
    return publisher_of(storage).restore(staging, restored, lease)


def _is_repeated(latest: Publication, lease: Lease | None, to: int | None) -> bool:
    """Whether the latest publication is the rollback of a driver that died before it could say so."""
    died = lease is not None and latest.attempt in (*lease.holder.after, lease.number)
    return died and latest.kind == "rollback" and to in (None, latest.restores)


def _before(seen: list[Publication]) -> Publication | None:
    """The publication before the current one: rolling back twice goes back two, not back and forth."""
    here = _original(seen[0])
    earlier = [record for record in seen if record.number < here and record.kind != "rollback"]
    return earlier[0] if earlier else None


def _original(record: Publication) -> int:
    return record.restores or record.number
