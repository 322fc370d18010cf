"""What others leave in a folder is not read and not deleted; what killed writers leave is swept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_cubes import drafted, label, published

from difffusr.pipeline.assemble.ledger import Entry, Ledger
from difffusr.pipeline.chips.staging import done_chips
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.publications import history, latest_number, records
from difffusr.pipeline.storage import versions
from difffusr.pipeline.storage.lease import Lease, holder_of
from difffusr.pipeline.storage.objects import Storage

STRANGERS = (
    ".DS_Store", "._00000001.json", "._000001.json", "desktop.ini", "Thumbs.db", "00000001.json.tmp", "000001.json~",
    "000001 (copy).json", "000001 2.json", ".000001.json.swp", "#000001.json#", "99999999999999999999999.json",
    "000001.bak", "-1.json", "٠٠٠٠٠٠٠١.json", "lost+found/00000009.json", "notes.txt", "0x000009.json",
)  # fmt: skip


@pytest.fixture
def staging(tmp_path) -> Storage:
    return Storage(str(tmp_path / "staging"))


def visited(staging: Storage, folder: str) -> list[Path]:
    places = [Path(staging.url, folder, name) for name in STRANGERS]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"\x00not ours")
    return places


def test_a_lease_is_taken_among_strangers_who_stay(staging):
    places = visited(staging, "lease")
    lease = Lease.acquire(staging, "mine")
    found = holder_of(staging)
    lease.release()
    assert found is not None
    assert found.run == "mine"
    assert all(place.read_bytes() == b"\x00not ours" for place in places)


def test_history_is_read_among_strangers(staging, tmp_path):
    cube = Storage(str(tmp_path / "cube.zarr"))
    published(cube, staging, 1, 11)
    visited(staging, "history")
    published(cube, staging, 2, 12)
    assert [record.number for record in history(staging)] == [2, 1]
    assert [record.number for record in records(staging)] == [1, 2]
    assert latest_number(staging) == 2


def test_a_cube_is_written_among_strangers(staging, tmp_path):
    cube = Storage(str(tmp_path / "cube.zarr"))
    published(cube, staging, 1, 11)
    for folder in ("32648/0/reflectance", "32648/0/reflectance/c", "32648/1/source"):
        visited(cube, folder)
    published(cube, staging, 2, 12)
    zone = drafted(cube, 2).zones[32648]
    assert len(zone.periods) == 2
    assert label(2) == "2023-02"


@pytest.mark.parametrize("folder", ["shards", "shards/32648", "overviews/32648/1"])
def test_the_ledger_has_no_strangers(staging, folder):
    own = Entry("32648/-2_5", "0123456789abcdef0123", "r0")
    staging.write(own.object_name, b"{}")
    for name in ("-2_5-0123456789abcdef0123.r0.json.tmp", "-2_5-xyz.r0.json", "._-2_5-0123456789abcdef0123.r0.json"):
        staging.write(f"{folder}/{name}", b"{}")
    visited(staging, folder)
    assert list(Ledger.read(staging).entries) == ["32648/-2_5"]
    assert not Ledger.read(staging, "overviews").entries


def test_staged_chips_are_no_strangers(staging):
    visited(staging, "chips")
    visited(staging, "chips/32648")
    staging.write("chips/32648/-2_5-0123456789abcdef0123.chip", b"")
    staging.write("chips/32648/-2_5-0123456789abcdef0123.chip.tmp", b"")
    assert done_chips(staging) == {"32648/-2_5-0123456789abcdef0123.chip"}


def test_what_killed_writers_left_is_swept_and_nothing_else(staging):
    staging.write("a/b.json", b"1")
    partials = [Path(staging.url, folder, f".partial-{os.urandom(4).hex()}") for folder in ("", "a", "a/b", "c/d/e")]
    for place in partials:
        place.parent.mkdir(parents=True, exist_ok=True) if place.parent.suffix == "" else None
        place.write_bytes(b"half")
    linked = Path(staging.url, "a", ".partial-folder")
    linked.mkdir()
    (linked / "0").write_bytes(b"half")
    strangers = visited(staging, "a")
    assert staging.sweep() == len(partials) + 1
    assert staging.names("") >= {"a/b.json"}
    assert not [place for place in Path(staging.url).rglob(".partial-*")]
    assert all(place.exists() for place in strangers)
    assert staging.sweep() == 0


@pytest.mark.parametrize(
    "place",
    [
        lambda staging, name: staging.write(name, b"1"),
        lambda staging, name: staging.put(name, Path(__file__)),
        lambda staging, name: staging.create(name, b"1"),
        lambda staging, name: staging.exchange(name, b"1", ""),
        lambda staging, name: staging.write(name, b"0") or staging.exchange(name, b"1", staging.tag(name)),
    ],
    ids=["write", "put", "create", "exchange", "exchange another"],
)
def test_what_is_swept_while_it_is_written_is_written_again(staging, monkeypatch, place):
    written, swept = versions._written_beside, []

    def sweeping(path, data, **how):
        partial = written(path, data, **how)
        if data != b"0" and not swept:
            swept.append(staging.sweep())
        return partial

    monkeypatch.setattr(versions, "_written_beside", sweeping)
    assert place(staging, "a.json") is not False
    assert swept == [1]
    assert staging.read("a.json") in (b"1", Path(__file__).read_bytes())
    assert staging.names("") == {"a.json"}


def test_what_is_swept_again_and_again_ends_in_words(staging, monkeypatch):
    written = versions._written_beside

    def sweeping(path, data, **how):
        partial = written(path, data, **how)
        staging.sweep()
        return partial

    monkeypatch.setattr(versions, "_written_beside", sweeping)
    with pytest.raises(StoreError, match="cannot be written"):
        staging.write("a.json", b"1")
