"""What is done is told by names alone, and only for the state of the cube in which it was written."""

from __future__ import annotations

import numpy as np
import pytest

from difffusr.pipeline.assemble.ledger import (
    OVERVIEWS,
    SHARDS,
    Entry,
    Facts,
    Ledger,
    Written,
    chips_needed,
    enter,
    read_entry,
    shard_digests,
    write_entry,
)
from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.geo.names import PlaceName
from difffusr.pipeline.plan.tables import Chips, Shards
from difffusr.pipeline.publish.target import Receipt
from difffusr.pipeline.storage.objects import Storage

GRID = Grid(24, 6, 64, 32)


def chips(rows: int = 3, cols: int = 3, scenes: int = 2) -> Chips:
    row, col = (part.ravel().astype(np.int32) for part in np.mgrid[:rows, :cols])
    n = len(row)
    key = np.random.default_rng(0).integers(0, 256, (n, 32), np.uint8)
    used = np.stack([np.arange(n) % scenes, np.full(n, -1)], axis=1).astype(np.int32)
    share = np.ones(n, np.float32)
    return Chips(np.full(n, 32632, np.int32), row, col, used, share, share, key, tuple("ab"[:scenes]))


@pytest.fixture
def shards() -> Shards:
    return Shards.of(chips(), GRID)


NONE = np.zeros(9, bool)
NUMBERS = np.array([1, 2], np.int32)


def test_an_entry_is_found_by_listing(tmp_path):
    staging = Storage(str(tmp_path))
    entry = Entry("32632/-7348_693", "0123456789abcdef0123", "r0")
    write_entry(staging, entry, {"objects": {"x": "y"}, "missing": []})
    ledger = Ledger.read(staging)
    assert ledger.latest("32632/-7348_693", {"r0": 0}) == entry
    assert read_entry(staging, entry).objects == {"x": "y"}


@pytest.mark.parametrize("folder", [SHARDS, OVERVIEWS])
def test_an_entry_s_name_leads_back_to_it(folder):
    for place in (PlaceName(32632, -7348, 693), PlaceName(32733, 0, -2, 3)):
        entry = Entry(str(place), "0123456789abcdef0123", "r0", folder)
        assert Entry.parse(folder, entry.object_name.removeprefix(f"{folder}/")) == entry
    assert Entry.parse(folder, "notes.json") is None


class Noted:
    """A target that notes what it is asked to accept, and what the ledger held then."""

    def __init__(self, staging: Storage) -> None:
        self.staging, self.accepted = staging, []

    def accept(self, receipts: list[Receipt]) -> None:
        """As `Target.accept`."""
        self.accepted += [(receipt, self.staging.names(SHARDS)) for receipt in receipts]


def test_shards_are_durable_before_they_are_entered(tmp_path):
    staging = Storage(str(tmp_path))
    target = Noted(staging)
    entries = [Entry(f"32632/0_{col}", "ab", "r0") for col in range(20)]
    written = [Written(entry, Receipt({"path": entry.shard}), {"missing": []}) for entry in entries]
    enter(staging, target, written)
    assert target.accepted == [(one.receipt, set()) for one in written]
    ledger = Ledger.read(staging)
    for entry in entries:
        assert ledger.latest(entry.shard, {"r0": 0}) == entry
        assert read_entry(staging, entry) == Facts({"path": entry.shard}, [])


def test_the_latest_state_counts_and_states_off_the_line_do_not():
    first, second, other = (Entry("1/0_0", digest, state) for digest, state in (("a", "r0"), ("b", "r2"), ("c", "r1")))
    ledger = Ledger({"1/0_0": [second, first, other]})
    assert ledger.latest("1/0_0", {"r0": 0, "r2": 1}) == second
    assert ledger.latest("1/0_0", {"r0": 0}) == first
    assert ledger.latest("1/0_0", {}) is None
    assert ledger.latest("1/9_9", {"r0": 0}) is None


def test_a_digest_changes_with_everything_that_pixels_depend_on(shards):
    before = shard_digests(shards, NUMBERS, NONE)
    assert shard_digests(shards, NUMBERS, NONE) == before
    assert len(set(before)) == len(before)
    # another number for a scene: `source` would come out otherwise
    renamed = shard_digests(shards, np.array([1, 3], np.int32), NONE)
    with_second = [bool((shards.chips.scenes[m] == 1).any()) for m in members(shards)]
    assert [a != b for a, b in zip(before, renamed, strict=True)] == with_second
    # a chip that failed: exactly the shards that it touches
    failed = NONE.copy()
    failed[4] = True
    gaps = shard_digests(shards, NUMBERS, failed)
    assert [a != b for a, b in zip(before, gaps, strict=True)] == [4 in m for m in members(shards)]


def test_chips_are_needed_by_the_shards_that_are_to_be_written_alone(shards):
    for i, inside in enumerate(members(shards)):
        unwritten = np.zeros(len(shards), bool)
        unwritten[i] = True
        assert set(np.flatnonzero(chips_needed(shards.chips, shards, unwritten))) == set(inside)
    assert not chips_needed(shards.chips, shards, np.zeros(len(shards), bool)).any()


def members(shards: Shards) -> list[list[int]]:
    return [shards.members[shards.first[i] : shards.first[i + 1]].tolist() for i in range(len(shards))]
