"""The history of a cube keeps documents by their content: a publication costs what it changes, however many came
before, and what earlier versions have left is continued."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from earlier_history import make_earlier
from grown_cubes import Growth
from plain_cubes import BOTH, JANUARY, appended, opened, revised
from small_cubes import EPSG, GROUP, drafted, label, published, seen

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.documents import documents_of, objects_of
from difffusr.pipeline.publish.door import open_target, rollback
from difffusr.pipeline.publish.kept import lost_publications
from difffusr.pipeline.publish.publications import history, mark, records
from difffusr.pipeline.publish.revisions import next_revision, was_seen
from difffusr.pipeline.storage.objects import Storage

Places = tuple[Storage, Storage]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cubes that many tests begin with, of this version and an earlier one."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("two", "earlier"):
        places = Storage(f"{folder}/{name}/cube.zarr"), Storage(f"{folder}/{name}/cube.staging")
        appended(*places, 1, 11)
        appended(*places, 2, 12)
        if name == "earlier":
            revised(*places, 1, 13)
            make_earlier(*places)
    return folder


@pytest.fixture
def two_months(made: Path, tmp_path: Path, on_disk: Places) -> Places:
    """January and February."""
    shutil.copytree(made / "two", tmp_path, dirs_exist_ok=True)
    return on_disk


@pytest.fixture
def earlier(made: Path, tmp_path: Path, on_disk: Places) -> Places:
    """January and February, January revised, by an earlier version."""
    shutil.copytree(made / "earlier", tmp_path, dirs_exist_ok=True)
    return on_disk


@pytest.mark.parametrize("kind", ["plain", "icechunk"])
def test_a_month_costs_the_same_after_four_and_after_twelve(tmp_path, kind, monkeypatch):
    """What tests/bench/test_history.py measures of ten years."""
    growth = Growth(tmp_path, kind, zones=2, monkeypatch=monkeypatch)
    months = [growth.month() for _ in range(12)]
    early, late = months[3], months[11]
    for name in ("requests", "read", "written"):
        assert getattr(late, name) <= 1.25 * getattr(early, name), name
    assert late.of_reader <= early.of_reader
    assert late.history <= 3.2 * early.history


def test_a_run_looks_at_no_more_after_twelve_months_than_after_four(tmp_path, monkeypatch):
    growth = Growth(tmp_path, "plain", zones=2, monkeypatch=monkeypatch)
    looks = []
    for number in range(1, 13):
        growth.month(as_reader=False)
        if number in (4, 12):
            looks.append((growth.looked_at(), growth.looked_at(everything=True)))
    (early, all_early), (late, all_late) = looks
    assert late[0] == early[0] < all_early[0] < all_late[0]
    assert late[1] <= 1.1 * early[1]


def test_a_record_is_small_and_names_what_it_shares_with_others(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 1, 21, zones=(EPSG + 1,))
    appended(storage, staging, 2, 12)
    first, second, third = records(staging)
    assert all(len(record.to_json()) < 3000 for record in (first, second, third))
    assert first.parts.keys() == {"root", "scenes", str(EPSG)}
    assert second.parts.keys() == third.parts.keys() == {"root", "scenes", str(EPSG), str(EPSG + 1)}
    assert second.parts[str(EPSG)] == first.parts[str(EPSG)] != third.parts[str(EPSG)]
    assert second.parts[str(EPSG + 1)] == third.parts[str(EPSG + 1)]


def test_zones_of_other_runs_are_not_written_again(on_disk, monkeypatch):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    written: list[str] = []
    exchange = Storage.exchange
    monkeypatch.setattr(
        Storage, "exchange", lambda self, name, *more: written.append(name) or exchange(self, name, *more)
    )
    appended(storage, staging, 1, 21, zones=(EPSG + 1,))
    assert f"{EPSG + 1}/0/quality/zarr.json" in written
    assert not [name for name in written if name.startswith(f"{EPSG}/")]
    assert zarr.open_consolidated(storage.url)[f"{EPSG}/0/source"].shape[0] == 1


def test_what_no_publication_needs_is_deleted_and_all_that_one_needs_is_there(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    for value in range(12, 16):
        revised(storage, staging, 1, value)
        kept = [record for record in records(staging) if not record.gone]
        assert len(kept) == min(value - 10, 2)
        needed = {digest for record in kept for digest in record.parts.values()}
        pages = {path for record in kept for path in documents_of(staging, record) if path.startswith("scenes/")}
        there = {name.removesuffix(".json.gz") for name in staging.names("documents")}
        assert there == needed | {path.removeprefix("scenes/") for path in pages}
        assert {f"scenes/{name.split('/')[0]}" for name in storage.names("scenes")} - {"scenes/zarr.json"} == pages
        for record in kept:
            assert objects_of(staging, record)
    rollback(storage, staging)
    assert seen(opened(storage)) == {"2023-01": {14}}


def test_strangers_files_among_the_documents_stay(on_disk):
    storage, staging = on_disk
    strange = [".DS_Store", "a.json.gz", "notes.txt", f"{'g' * 64}.json.gz"]
    for name in strange:
        staging.write(f"documents/{name}", b"?")
    storage.write("scenes/mine/c", b"?")
    for value in range(11, 15):
        (revised if value > 11 else appended)(storage, staging, 1, value)
    assert staging.names("documents") >= set(strange)
    assert storage.read("scenes/mine/c") == b"?"


@pytest.mark.parametrize("data", [None, b"", b"{}", b"\x1f\x8b", b"?" * 99])
@pytest.mark.parametrize("part", ["root", "scenes", str(EPSG)])
def test_documents_that_are_damaged_are_one_line_and_are_never_put_before_readers(two_months, part, data):
    storage, staging = two_months
    name = f"documents/{next(iter(records(staging))).parts[part]}.json.gz"
    assert lost_publications(storage, staging) == {}
    staging.delete(name) if data is None else staging.write(name, data)
    with pytest.raises(StoreError, match="restore the history from a copy, or go back to another publication") as said:
        rollback(storage, staging)
    assert lost_publications(storage, staging) == {1: str(said.value)}  # `verify` says it before
    assert str(said.value).startswith(f"{staging.url}/{name}")
    assert "\n" not in str(said.value)
    assert seen(opened(storage)) == BOTH
    assert len(history(staging)) == 2
    appended(storage, staging, 3, 13)
    assert seen(opened(storage)) == {**BOTH, "2023-03": {13}}


def test_documents_of_another_publication_under_a_name_are_noticed(two_months):
    storage, staging = two_months
    one, other = (record.parts[str(EPSG)] for record in records(staging))
    staging.write(f"documents/{one}.json.gz", staging.read(f"documents/{other}.json.gz"))
    with pytest.raises(StoreError, match="another one than its name says"):
        rollback(storage, staging)


def test_readers_of_a_later_state_keep_their_months_while_an_earlier_one_is_brought_back(on_disk, monkeypatch):
    """Whoever opened the cube before the root was written finds every month where it was."""
    storage, staging = on_disk
    for number in (1, 2, 3):
        appended(storage, staging, number, 10 + number)
    before = zarr.open_consolidated(storage.url, path="")[f"{GROUP}/time"]
    for to in (1, 2):
        rollback(storage, staging, to=to)
        assert np.asarray(before[...]).tolist() == [19358, 19389, 19417]
    assert seen(opened(storage)) == BOTH


# What earlier versions have left --------------------------------------------------------------------------------------


def continued(places: Places) -> dict[str, Any]:
    appended(*places, 3, 14)
    return {"2023-01": {13}, "2023-02": {12}, "2023-03": {14}}


def revised_again(places: Places) -> dict[str, Any]:
    revised(*places, 2, 15)
    return {"2023-01": {13}, "2023-02": {15}}


def another_zone(places: Places) -> dict[str, Any]:
    appended(*places, 1, 16, zones=(EPSG + 1,))
    return {"2023-01": {13}, "2023-02": {12}}


def back_by_one(places: Places) -> dict[str, Any]:
    rollback(*places)
    return BOTH


def back_to_the_first(places: Places) -> dict[str, Any]:
    rollback(*places, to=1)
    return JANUARY


def back_and_forth(places: Places) -> dict[str, Any]:
    for to in (1, 3, 2, 3):
        rollback(*places, to=to)
    return {"2023-01": {13}, "2023-02": {12}}


def continued_and_back(places: Places) -> dict[str, Any]:
    appended(*places, 3, 14)
    rollback(*places)
    return {"2023-01": {13}, "2023-02": {12}}


def back_and_another_month(places: Places) -> dict[str, Any]:
    rollback(*places, to=1)
    appended(*places, 3, 14)
    return {**JANUARY, "2023-03": {14}}


@pytest.mark.parametrize(
    "what",
    [
        continued, revised_again, another_zone, back_by_one, back_to_the_first, back_and_forth, continued_and_back,
        back_and_another_month,
    ],
)  # fmt: skip
def test_a_cube_of_an_earlier_version_is_continued_and_rolled_back(earlier, what: Callable[[Places], dict[str, Any]]):
    storage, staging = earlier
    wanted = what(earlier)
    assert seen(opened(storage)) == wanted
    new = list(records(staging))[3:]
    assert new
    assert all(record.parts and not record.documents for record in new)
    for path, data in objects_of(staging, new[-1]).items():
        assert storage.read(path) == data, path
    cube = Cube(storage)
    assert {facts["id"] for facts in cube.scenes.values()} >= {f"scene of {label(1)}"}
    shown = int(np.asarray(cube.array(EPSG, "source")[0]).max())
    assert shown in (11, 13)


def test_the_first_publication_after_an_earlier_version_knows_all_revisions(earlier):
    storage, staging = earlier
    assert [next_revision(staging, EPSG, lineage) for lineage in ((1,), (0,))] == [2, 2]
    assert [was_seen(staging, EPSG, *place) for place in ((0, 0), (0, 1), (0, 2), (1, 1), (2, 0))] == [
        True, True, False, True, False,
    ]  # fmt: skip
    appended(storage, staging, 3, 14)
    assert list(records(staging))[-1].revisions == {EPSG: {0: 2, 1: 3}}


def test_a_publication_that_an_earlier_version_died_in_is_finished(two_months):
    storage, staging = two_months
    make_earlier(storage, staging)
    before = json.loads(storage.read("zarr.json"))["attributes"]["difffusr:scenes"]
    mark(staging, 2, state="publishing")
    rollback(storage, staging)  # finishes it first
    assert [(record.number, record.kind, record.restores) for record in history(staging)] == [
        (3, "rollback", 1), (2, "period", None), (1, "period", None),
    ]  # fmt: skip
    assert seen(opened(storage)) == JANUARY
    rollback(storage, staging, to=2)
    assert seen(opened(storage)) == BOTH
    assert json.loads(storage.read("zarr.json"))["attributes"]["difffusr:scenes"] == before


# What the latest record knows of all others ---------------------------------------------------------------------------


def test_the_latest_record_knows_which_revisions_are_kept(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    kept = []
    for value in range(13, 17):
        revised(storage, staging, 1, value, keep=2)
        last = list(records(staging))[-1]
        assert last.revisions is not None
        kept.append(sorted(last.revisions[EPSG]))
        for revision in range(value - 12):
            assert was_seen(staging, EPSG, revision, 1)
        assert not was_seen(staging, EPSG, value - 12, 2)
    assert kept == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_a_zone_that_was_rolled_away_begins_in_a_revision_that_nobody_has_seen(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 1, 21, zones=(EPSG + 1,))
    for value in (22, 23, 24):
        published(
            storage, staging, 1, value, zones=(EPSG + 1,),
            revise=next_revision(staging, EPSG + 1, drafted(storage, 1, zones=(EPSG + 1,)).zones[EPSG + 1].lineage),
        )  # fmt: skip
    rollback(storage, staging, to=1)
    zone = drafted(storage, 1, zones=(EPSG + 1,)).zones[EPSG + 1]
    assert (zone.revision, zone.seen) == (0, ())
    assert was_seen(staging, EPSG + 1, 0, 0)
    assert next_revision(staging, EPSG + 1, zone.lineage) >= 4


def test_a_new_month_reads_no_other_record(on_disk, monkeypatch):
    storage, staging = on_disk
    for number in range(1, 5):
        appended(storage, staging, number, 10 + number)
    asked: list[str] = []
    read = Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, name: asked.append(name) or read(self, name))
    appended(storage, staging, 5, 15)
    assert {name for name in asked if name.startswith("history/0")} == {"history/000004.json", "history/000005.json"}
    assert asked.count("zarr.json") <= 4


def test_the_page_of_a_month_that_is_missing_is_written_again_by_a_rollback(two_months):
    storage, staging = two_months
    page = next(path for path in documents_of(staging, history(staging)[1]) if path.startswith("scenes/"))
    Path(storage.url, page, "c").unlink()
    Path(storage.url, page, "zarr.json").unlink()
    with pytest.raises(StoreError, match=f"{page}: cannot be understood"):
        print(Cube(storage).scenes)
    rollback(storage, staging, to=2)
    assert {facts["id"] for facts in Cube(storage).scenes.values()} == {f"scene of {label(n)}" for n in (1, 2)}
    open_target(storage, staging, drafted(storage, 1), label(1))
