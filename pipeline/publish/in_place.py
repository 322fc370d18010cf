"""Published shards written again under the keys that readers read: only with the very bytes that they had.

So whoever writes them late, frozen meanwhile and taken over, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zarr.abc.store import Store

from difffusr.pipeline.cube import AnyShard, CubeDraft, ShardData
from difffusr.pipeline.publish.plain import PlainTarget, PlainWriter
from difffusr.pipeline.publish.target import Receipt, Target


@dataclass(frozen=True)
class _Writer:
    """See `ShardWriter`. What comes out otherwise is not written: its receipt is empty.

    Attributes:
        sums: sha256 by path.
    """

    draft: CubeDraft
    sums: Mapping[str, str]

    def write(self, epsg: int, shard: AnyShard, data: ShardData) -> Receipt:
        """See `ShardWriter`."""
        stored = self.draft.write_shard(epsg, shard, data, only=self.sums)
        return Receipt(stored.checksums, sizes=stored.sizes)

    def store(self) -> Store:
        """See `ShardWriter`."""
        return PlainWriter(self.draft).store()


@dataclass(frozen=True)
class _InPlace(PlainTarget):
    """A published period as a target.

    Attributes:
        sums: sha256 by path, of the objects that may be written.
    """

    sums: Mapping[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        """Claim the keys: while somebody may write there late, nobody uses them for anything else."""
        self.book.note({epsg: self._claim(zone) for epsg, zone in self.draft.zones.items()})

    def writer(self, level: int | None = None) -> _Writer:  # type: ignore[override]
        """See `Target`."""
        return _Writer(self.draft, self.sums)

    def replaced(self, epsg: int) -> frozenset[str]:
        """None: entries say what has to be written."""
        return frozenset()


def written_in_place(target: Target, sums: Mapping[str, str]) -> Target | None:
    """The target to write objects of a published period again; None of a store that cannot: an Icechunk repository's
    snapshots do not change.

    Args:
        target: of the draft that readers see.
        sums: the sha256 that each object must have, by path.
    """
    if not isinstance(target, PlainTarget):
        return None
    return _InPlace(target.storage, target.staging, target.draft, target.label, target.lease, target.pixels, sums)
