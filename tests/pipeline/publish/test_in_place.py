"""Published shards are written again under their own keys with the bytes that they had, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from months import run_month
from small_cubes import EPSG, SHARDS, drafted, label, pixels, published
from store_requests import Drivers

from difffusr.pipeline.publish.claims import Claim
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.publish.in_place import written_in_place
from difffusr.pipeline.publish.target import Target
from difffusr.pipeline.storage.objects import Storage

Places = tuple[Storage, Storage]


def january(places: Places, drivers: Drivers | None = None) -> tuple[Target, dict[str, bytes]]:
    """A published month as a target, and what a shard of it holds, by path."""
    published(*places, 1, 11)
    lease = None if drivers is None else drivers.lease(places[1])
    target = open_target(*places, drafted(places[0], 1), label(1), lease)
    return target, {path: places[0].read(path) for path in target.draft.shard_objects(EPSG, SHARDS[0])}


def sums(places: Places, before: dict[str, bytes]) -> dict[str, str]:
    import hashlib

    return {path: hashlib.sha256(data).hexdigest() for path, data in before.items()}


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_the_same_pixels_make_the_same_objects(on_disk, damage):
    target, before = january(on_disk)
    for path in before:
        file = Path(on_disk[0].url, path)
        file.unlink() if damage is None else file.write_bytes(damage)
    again = written_in_place(target, sums(on_disk, before))
    assert again is not None
    again.begin()
    receipt = again.writer().write(EPSG, SHARDS[0], pixels(11))
    assert {path: on_disk[0].read(path) for path in before} == before
    assert dict(receipt.sizes) == {path: len(data) for path, data in before.items()}
    assert again.replaced(EPSG) == set()


@pytest.mark.parametrize("value", [10, 12, 0])
def test_other_pixels_are_not_written(on_disk, value):
    target, before = january(on_disk)
    again = written_in_place(target, sums(on_disk, before))
    assert again is not None
    again.begin()
    assert not again.writer().write(EPSG, SHARDS[0], pixels(value)).objects
    assert {path: on_disk[0].read(path) for path in before} == before


def test_the_keys_are_claimed_while_somebody_may_write_there_late(on_disk):
    drivers = Drivers()
    try:
        target, before = january(on_disk, drivers)
        again = written_in_place(target, sums(on_disk, before))
        assert again is not None
        again.begin()
        other = open_target(*on_disk, drafted(on_disk[0], 1), label(1), drivers.lease(on_disk[1]), {EPSG: "other"})
        assert not other.book.is_free(EPSG, Claim(4, 0, label(1), "other", revised=True))  # type: ignore[attr-defined]
        assert other.is_free(EPSG, 1)
        again.close()
    finally:
        drivers.end()


def test_a_snapshot_is_never_changed(tmp_path):
    places = Storage(f"icechunk+{tmp_path}/cube"), Storage(str(tmp_path / "staging"))
    run_month(*places, 1, 11, None)
    assert written_in_place(open_target(*places, drafted(places[0], 1), label(1)), {}) is None
