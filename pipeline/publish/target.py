"""Where a draft comes into being, out of readers' sight: what every kind of store offers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

from zarr.abc.store import Store

from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.layout import AnyShard
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.publish.publications import Publication
from difffusr.pipeline.storage.objects import Storage


@dataclass(frozen=True)
class Receipt:
    """What writing a shard returns.

    Attributes:
        objects: sha256 of each object's bytes, by its path in the store.
        token: what the store needs to make the shard durable; None where it is.
    """

    objects: Mapping[str, str]
    token: Any = None


class ShardWriter(Protocol):
    """Writes shards from wherever it is sent to.

    Attributes:
        draft: the cube as it will be.
    """

    @property
    def draft(self) -> CubeDraft: ...

    def store(self) -> Store:
        """What was in place when the writer was made, to read from; its arrays are `draft.array`'s."""

    def write(self, epsg: int, shard: AnyShard, data: ShardData) -> Receipt:
        """Write one whole shard, and read it back.

        Raises:
            StoreError: the store refuses, or returns other bytes than were written.
        """


class Target(Protocol):
    """Where a draft comes into being, out of readers' sight.

    Attributes:
        draft: the cube as it will be.
    """

    @property
    def draft(self) -> CubeDraft: ...

    def begin(self) -> None:
        """Make ready for shards. What an earlier attempt at the same state has written stays."""

    def writer(self) -> ShardWriter:
        """To be sent to where shards are written."""

    def accept(self, receipts: Sequence[Receipt]) -> None:
        """When it returns, these shards will survive whatever happens."""

    def state(self, epsg: int) -> str:
        """What the ledger calls the state that a zone's shards were last accepted into."""

    def lineage(self, epsg: int) -> Mapping[str, int]:
        """The states that led to the target's, each with its place among them."""

    def published(self, epsg: int) -> Mapping[str, int]:
        """The states that led to what readers see of the draft's period; empty where they do not see it."""

    def present(self) -> AbstractSet[str]:
        """Paths of the objects of the draft's period that are there."""

    def settle(self, planned: Collection[tuple[int, AnyShard]], rewritten: Collection[tuple[int, AnyShard]]) -> None:
        """Bring over what stays as readers see it, and drop what is no longer planned. May be done again.

        Args:
            planned: zone and place of every shard of the period, those of overviews, too.
            rewritten: those of them that were written for this state.
        """

    def publish(self, *, shards_written: int, keep: int) -> Publication:
        """Let readers see the draft.

        Args:
            keep: earlier revisions whose objects stay.

        Raises:
            StoreError: the store refuses; readers see the old state.
        """


class Publisher(Protocol):
    """Publishes into one kind of store. All but `revision_from` raise StoreError where the store refuses."""

    def target(self, staging: Storage, draft: CubeDraft, label: str) -> Target:
        """Where a draft comes into being; `label` is that of the run's period."""

    def revision_from(self, number: int) -> int:
        """The first revision from a number on whose keys the store knows."""

    def finish(self, staging: Storage, publication: Publication) -> None:
        """Finish the last publication of the history, whose driver died in the middle of it, where that is due now."""

    def restore(self, staging: Storage, publication: Publication) -> Publication:
        """Let readers see the state of an earlier publication again.

        Args:
            publication: the rollback that this is, not yet kept.
        """
