"""The ledger of a run: the names of small objects say which shards are written.

An entry's name is ``shards/{epsg}/{row}_{col}-{digest}.{state}.json``, that of a shard of an overview
``overviews/{epsg}/{level}/{row}_{col}-{digest}.{state}.json``. The digest covers everything a shard's pixels
depend on; the state names the version of the cube that it was written to (a revision, a snapshot). So one listing shows
what is done, and entries of states that did not lead to the current one are ignored.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.geo import NAME_DIGITS
from difffusr.pipeline.plan import Chips, Shards
from difffusr.pipeline.publish import Receipt, Target
from difffusr.pipeline.storage import Storage, read_document

SHARDS = "shards"

OVERVIEWS = "overviews"

#: Requests to the staging folder at a time.
REQUESTS = 8

#: The states that led to the current one, each with its position: shards not rewritten in a later state stay valid.
Lineage = Mapping[str, int]


#: Names of entries; whatever else lies in the folder is a stranger's.
_NAMED = re.compile(r"(\d+(?:/\d+)?/-?\d+_-?\d+)-([0-9a-f]+)\.([\w.-]+)\.json", re.ASCII)


class Entry(NamedTuple):
    """What the name of an entry holds: shard (as `PlaceName` writes it), digest, state; and its folder."""

    shard: str
    digest: str
    state: str
    folder: str = SHARDS

    @property
    def object_name(self) -> str:
        """Its object in the run's folder."""
        return f"{self.folder}/{self.shard}-{self.digest}.{self.state}.json"

    @classmethod
    def parse(cls, folder: str, name: str) -> Entry | None:
        """The entry that an object's name below a folder stands for; None for any other object."""
        found = _NAMED.fullmatch(name)
        return cls(found[1], found[2], found[3], folder) if found else None


@dataclass(frozen=True)
class Ledger:
    """Entries, as found by one listing.

    Attributes:
        entries: by shard, unordered.
    """

    entries: Mapping[str, Sequence[Entry]]

    @classmethod
    def read(cls, staging: Storage, folder: str = SHARDS) -> Ledger:
        """The ledger of shards or of overviews in a run's folder."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for name in staging.names(folder):
            entry = Entry.parse(folder, name)
            if entry is not None:
                found[entry.shard].append(entry)
        return cls(found)

    def latest(self, shard: str, lineage: Lineage) -> Entry | None:
        """The entry of a shard that is valid in the last state of a lineage: of the latest state it was written in."""
        here = [entry for entry in self.entries.get(shard, ()) if entry.state in lineage]
        return max(here, key=lambda entry: lineage[entry.state], default=None)

    def in_states(self, shard: str, states: Set[str]) -> list[Entry]:
        """Entries of a shard in some states; several in one only if a driver died between writing and deleting."""
        return [entry for entry in self.entries.get(shard, ()) if entry.state in states]


def shard_digests(shards: Shards, numbers: NDArray[np.int32], failed: NDArray[np.bool_]) -> list[str]:
    """Digest of each shard of a plan: of its content key, its missing chips, and its scenes' numbers.

    Args:
        numbers: the cube's number of each scene, in the order of `chips.scene_ids`.
        failed: (chips,) whether a chip is missing.
    """
    return [shard_digest(shards, i, numbers, failed) for i in range(len(shards))]


def shard_digest(shards: Shards, i: int, numbers: NDArray[np.int32], failed: NDArray[np.bool_]) -> str:
    """As `shard_digests`, for the i-th."""
    members = shards.members[shards.first[i] : shards.first[i + 1]]
    scenes = shards.chips.scenes[members]
    content = shards.key[i].tobytes() + np.where(scenes >= 0, numbers[scenes], 0).astype("<i4").tobytes()
    return hashlib.sha256(content + failed[members].tobytes()).hexdigest()[:NAME_DIGITS]


def write_entry(staging: Storage, entry: Entry, facts: Mapping[str, Any]) -> None:
    """Write an entry.

    Args:
        facts: `objects` (sha256 by path in the store), `missing` (names of chips), `valid_share`.
    """
    staging.write(entry.object_name, json.dumps(facts, indent=1, sort_keys=True).encode())


@dataclass(frozen=True)
class Facts:
    """The content of an entry.

    Attributes:
        objects: sha256 by path in the store.
        missing: names of the chips that it was made without.
    """

    objects: Mapping[str, str]
    missing: Sequence[str] = field(default=())


class Written(NamedTuple):
    """A written shard, to be entered.

    Attributes:
        entry: its entry in the ledger.
        receipt: the store's.
        facts: content of the entry besides the receipt's `objects`.
    """

    entry: Entry
    receipt: Receipt
    facts: Mapping[str, Any]


def enter(staging: Storage, target: Target, written: Sequence[Written]) -> None:
    """Make shards durable in the target, then enter them.

    Raises:
        StoreError: the store refuses.
    """
    target.accept([one.receipt for one in written])

    def write(one: Written) -> None:
        write_entry(staging, one.entry, {"objects": one.receipt.objects, **one.facts})

    with ThreadPoolExecutor(REQUESTS, "ledger") as pool:
        for _ in pool.map(write, written):
            pass


def read_entry(staging: Storage, entry: Entry) -> Facts:
    """The content of an entry.

    Raises:
        StoreError: it cannot be read.
    """
    return read_document(staging, entry.object_name, Facts, "delete it, and `difffusr run` writes the shard again")


def chips_needed(chips: Chips, shards: Shards, unwritten: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(chips,) whether an unwritten shard needs a chip."""
    needed = np.zeros(len(chips), bool)
    needed[shards.members[np.repeat(unwritten, np.diff(shards.first))]] = True
    return needed
