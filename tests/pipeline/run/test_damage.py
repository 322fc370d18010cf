"""What is damaged is noted for the next run, and nothing is published that is not as it was written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from damaged_files import OTHERS
from small_cubes import EPSG, SHARDS, drafted, label, pixels

from difffusr.pipeline.assemble.facts import Facts
from difffusr.pipeline.assemble.halving import ShardError
from difffusr.pipeline.assemble.ledger import Entry, Ledger, Written, enter
from difffusr.pipeline.assemble.overviews import plan_overviews
from difffusr.pipeline.geo.names import PlaceName
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.run.compute import _MOST_MISHAPS, _say_broken, _say_overtaken
from difffusr.pipeline.run.damage import check_shard, check_sizes, damage_to_come, forget_damage
from difffusr.pipeline.run.named import Damaged, is_damage_noted, note_damaged, read_damaged
from difffusr.pipeline.storage.objects import Storage


def test_what_verify_finds_is_there_for_the_next_run_and_goes_with_it(tmp_path):
    staging, found = Storage(str(tmp_path)), Damaged(["32648/-2_5", "32648/1/0_0"], ["a.chip"], ["zarr.json"])
    assert not is_damage_noted(staging)
    note_damaged(staging, found)
    assert read_damaged(staging) == found
    note_damaged(staging, Damaged())
    assert not is_damage_noted(staging)
    assert read_damaged(staging) == Damaged()


@pytest.mark.parametrize("data", OTHERS, ids=lambda data: repr(data[:12]))
def test_a_note_that_is_damaged_names_nothing(tmp_path, data, caplog):
    staging = Storage(str(tmp_path))
    staging.write("damaged.json", data)
    assert read_damaged(staging) == Damaged()
    assert ("`difffusr verify` writes it anew" in caplog.text) == (
        data not in (b"{}", OTHERS[-1])
    )  # objects without names


@pytest.mark.parametrize(
    ("facts", "found", "fault"),
    [
        ({"z/0/a/c/0": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}, b"1", ""),
        ({"z/0/a/0": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}, b"1", ""),
        ({"z/0/a/c/0": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}, b"2", "damaged"),
        ({"z/0/a/c/0": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}, None, "missing"),
        ({"z/0/b/c/0": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}, b"1", "damaged"),
        ({"a": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}, b"1", "damaged"),
        (None, b"1", "damaged"),
    ],
)
def test_a_shard_is_what_the_ledger_says_of_its_variables(facts, found, fault):
    known = None if facts is None else Facts(facts)
    assert check_shard(known, ["z/0/a/c/0"], lambda _: found) == fault


@pytest.fixture
def written(tmp_path) -> Any:
    """A month that is written and entered, and not published; its overviews, as the ledger has them."""
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))
    target = open_target(storage, staging, drafted(storage, 1), label(1))
    target.begin()
    entries = {(EPSG, shard): Entry(str(PlaceName(EPSG, *shard)), "0123", "r0") for shard in SHARDS}
    receipts = [target.writer().write(EPSG, shard, pixels(number)) for number, shard in enumerate(SHARDS)]
    enter(staging, target, [Written(*pair, {}) for pair in zip(entries.values(), receipts, strict=True)])
    overviews = plan_overviews(target.draft, target, staging, dict.fromkeys(entries, "0123"), frozenset(), entries)
    shards = SimpleNamespace(
        names=lambda: [entry.shard for entry in entries.values()],
        epsg=np.full(len(SHARDS), EPSG),
        place=SHARDS.__getitem__,
    )
    return SimpleNamespace(
        target=target, staging=staging, overviews=overviews, plan=SimpleNamespace(shards=shards),
        files=[Path(storage.url, path) for path in target.draft.shard_objects(EPSG, SHARDS[1])],
    )  # fmt: skip


@pytest.mark.parametrize("variable", [0, 1, 2])
@pytest.mark.parametrize("damage", ["empty", "cut", "gone"])
def test_a_shard_that_lost_bytes_is_not_published(written, damage, variable):
    places = written.overviews.entries
    check_sizes(written.target, written.staging, written.overviews, places)
    file = written.files[variable]
    file.unlink() if damage == "gone" else file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:-1])
    with pytest.raises(ShardError, match="is not as it was written; run again"):
        check_sizes(written.target, written.staging, written.overviews, places)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9] + b"x" + data[-8:]], ids=["empty", "torn"])
def test_all_that_is_to_be_published_and_is_damaged_is_forgotten_and_so_written_again(written, damage):
    written.files[0].write_bytes(damage(written.files[0].read_bytes()))
    found = damage_to_come(written.plan, written.target, written.staging, written.overviews)
    assert found.shards.tolist() == [False, True, False, False]
    assert not found.overviews
    forget_damage(written.plan, found, written.target, written.staging)
    assert len(Ledger.read(written.staging).entries) == len(SHARDS) - 1


def test_chips_that_break_again_and_again_end_the_run(tmp_path, caplog):
    run: Any = SimpleNamespace(staging=Storage(str(tmp_path)))
    for mishaps in range(1, _MOST_MISHAPS):
        _say_broken(run, {"b.chip", "a.chip"}, mishaps)
    assert caplog.text.count("2 chips were not what was written, such as a.chip; computed again") == _MOST_MISHAPS - 1
    with pytest.raises(StoreError, match=r"again and again, such as a\.chip; check that disk or store"):
        _say_broken(run, {"b.chip", "a.chip"}, _MOST_MISHAPS)


def test_shards_that_somebody_else_writes_again_and_again_end_the_run(caplog):
    asked: list[int] = []
    places, lease = SimpleNamespace(cube=Storage("s3://b/cube")), SimpleNamespace(check=lambda: asked.append(1))
    run: Any = SimpleNamespace(places=places, lease=lease)
    for mishaps in range(1, _MOST_MISHAPS):
        _say_overtaken(run, ["32632/0_1", "32632/0_0"], mishaps)
    assert caplog.text.count("2 shards, such as 32632/0_0, were written by a driver") == _MOST_MISHAPS - 1
    with pytest.raises(StoreError, match=r"^s3://b/cube: somebody else .* such as 32632/0_0; end that driver, and run"):
        _say_overtaken(run, ["32632/0_1", "32632/0_0"], _MOST_MISHAPS)
    assert len(asked) == _MOST_MISHAPS
