"""Where a draft is written, unseen by readers: the protocol of every kind of store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Protocol

from zarr.abc.store import Store

from difffusr.pipeline.cube import AnyShard, CubeDraft, ShardData
from difffusr.pipeline.publish.publications import Publication
from difffusr.pipeline.storage import Lease, Storage


@dataclass(frozen=True)
class Receipt:
    """What writing a shard returns.

    Attributes:
        objects: sha256 of each object's bytes, by its path in the store; empty if nothing was written.
        token: what the store needs to make the shard durable; None if it is durable already.
        sizes: how many bytes each object has, by its path.
    """

    objects: Mapping[str, str]
    token: Any = None
    sizes: Mapping[str, int] = field(default_factory=dict)


class ShardWriter(Protocol):
    """Writes shards; can be sent to any worker.

    Attributes:
        draft: the cube as it will be.
    """

    @property
    def draft(self) -> CubeDraft: ...

    def store(self) -> Store:
        """The store as it was when the writer was made, to read from with `draft.array`."""

    def write(self, epsg: int, shard: AnyShard, data: ShardData) -> Receipt:
        """Write one whole shard, and read it back.

        Raises:
            StoreError: the store refuses, or returns other bytes than were written.
            OvertakenError: somebody else has written there since the writer was made.
        """


class Target(Protocol):
    """Where a draft is written, unseen by readers.

    Attributes:
        draft: the cube as it will be.
    """

    @property
    def draft(self) -> CubeDraft: ...

    def begin(self) -> None:
        """Prepare for shards. Shards that an earlier attempt at the same state has written stay."""

    def writer(self, level: int | None = None) -> ShardWriter:
        """A writer to send to the workers.

        Args:
            level: the only one that it will write to, 0 for that of the shards themselves; None for any.
        """

    def accept(self, receipts: Sequence[Receipt]) -> None:
        """Make shards durable: once it returns, they survive any crash."""

    def state(self, epsg: int) -> str:
        """Name in the ledger of the state that a zone's shards are accepted into."""

    def lineage(self, epsg: int) -> Mapping[str, int]:
        """The states that led to the target's, each with its position."""

    def published(self, epsg: int) -> Mapping[str, int]:
        """The states that led to the period as readers see it; empty if they do not see it."""

    def present(self) -> Mapping[str, int | None]:
        """Size in bytes of the existing objects of the draft's period, by path; None where the store does not tell."""

    def is_free(self, epsg: int, revision: int | None = None) -> bool:
        """Whether no writer of an earlier attempt may still change what the draft will hold of a zone: else the zone
        has to be written as another revision.

        Args:
            revision: the one to write it as; the draft's by default.
        """

    def replaced(self, epsg: int) -> AbstractSet[str]:
        """The states whose entries of a shard do not hold any more once the shard is written."""

    def close(self) -> None:
        """No writer is at work any more. `begin` opens the target again."""

    def settle(self, planned: Collection[tuple[int, AnyShard]], rewritten: Collection[tuple[int, AnyShard]]) -> None:
        """Copy what stays the same for readers, and delete what is no longer planned. May be repeated.

        Args:
            planned: zone and place of every shard of the period, overviews included.
            rewritten: those of them written for this state.
        """

    def publish(self, *, shards_written: int, keep: int) -> Publication:
        """Let readers see the draft.

        Args:
            keep: number of earlier revisions whose objects stay.

        Raises:
            StoreError: the store refuses; readers see the old state.
            LeaseError: another driver has taken over; readers see its state.
        """

    def tidy(self, *, keep: int, again: bool = False) -> None:
        """Delete what is no longer kept after a publication.

        Args:
            again: even if that looks done: the driver that did it may have died.
        """


class Publisher(Protocol):
    """Publishes into one kind of store. Its methods raise StoreError if the store refuses, and LeaseError if another
    driver has taken over."""

    def target(
        self, staging: Storage, draft: CubeDraft, label: str, lease: Lease | None, pixels: Mapping[int, str]
    ) -> Target:
        """The target of a draft; see `open_target`."""

    def revision_from(self, number: int) -> int:
        """The first revision from this number on whose keys the store supports."""

    def states_seen(self) -> Callable[[Sequence[int]], Mapping[str, int]]:
        """See `states_seen`."""

    def finish(self, staging: Storage, publication: Publication, lease: Lease | None) -> Publication | None:
        """Finish the last publication of the history, whose driver died in the middle of it; None if readers do not see
        it and it cannot be finished."""

    def restore(self, staging: Storage, publication: Publication, lease: Lease | None) -> Publication:
        """Let readers see the state of an earlier publication again.

        Args:
            publication: the rollback, not yet in the history.
        """
