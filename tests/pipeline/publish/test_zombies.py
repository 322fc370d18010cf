"""A driver that was frozen and taken over writes nothing that is ever read, at whichever request it was frozen."""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import zarr
from months import month_target, run_month, shown, told
from small_cubes import EPSG, GRID, GROUP, SHARDS, WINDOW, drafted, finish, label, month, pixels
from store_requests import Drivers, Requests

from difffusr.pipeline.cube.draft import OvertakenError
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.publish import placing
from difffusr.pipeline.publish.claims import Claim
from difffusr.pipeline.publish.documents import objects_of
from difffusr.pipeline.publish.door import open_target, rollback
from difffusr.pipeline.publish.kept import damaged_documents, mend_documents
from difffusr.pipeline.publish.publications import records
from difffusr.pipeline.storage.lease import LeaseError
from difffusr.pipeline.storage.objects import Storage

Places = tuple[Storage, Storage]

LATE_DOCUMENTS = f"{EPSG}/zarr.json", f"{EPSG}/0/zarr.json", f"{EPSG}/0/source/zarr.json"


@pytest.fixture
def drivers() -> Iterator[Drivers]:
    drivers = Drivers()
    yield drivers
    drivers.end()


@pytest.fixture(params=["on_disk", "on_s3", "in_icechunk"])
def places(request: pytest.FixtureRequest) -> Places:
    """One after the other."""
    places: Places = request.getfixturevalue(request.param)
    return places


@pytest.fixture
def in_icechunk(tmp_path) -> Places:
    return Storage(f"icechunk+{tmp_path}/cube.icechunk"), Storage(str(tmp_path / "cube.staging"))


def frozen_while(requests: Requests, at: int, do: Callable[[], object], others: Callable[[], object]) -> str:
    """Do something, be frozen in its n-th request while others work, and go on; returns how it ended: empty where it
    was done but for the last requests."""
    requests.watch(at, others)
    try:
        do()
    except DifffusrError as error:
        said = str(error)
    else:
        said = ""
    requests.rest()
    assert len(requests.made) >= at, f"it was over after {len(requests.made)} requests"
    return said


def alone(storage: Storage) -> set[int]:
    """What somebody finds in a level's group who does not ask the root."""
    group = zarr.open_consolidated(storage.url, path=GROUP, storage_options=dict(storage.options) or None)
    return set(np.unique(np.asarray(group["source"])).tolist())


def whole(places: Places) -> None:
    """What is stored is what the history's last publication says, document by document."""
    storage, staging = places
    last = list(records(staging))[-1]
    assert last.state == "published"
    kept = objects_of(staging, last)
    assert len(kept) > 30
    for path, data in kept.items():
        assert storage.read(path) == data, path


@pytest.mark.parametrize(
    ("places", "part"),
    [
        *(("on_disk", part) for part in (0.0, 0.65, 0.93)),
        *(("in_icechunk", part) for part in (0.0, 0.93)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("on_disk", 0.35), ("on_disk", 0.8), ("in_icechunk", 0.5), ("on_s3", 0.65))
        ),
    ],
    indirect=["places"],
)
def test_who_was_frozen_amid_publishing_june_does_not_take_july_away(places, part, drivers, monkeypatch):
    storage, staging = places
    run_month(*places, 5, 15, None)
    requests = Requests(monkeypatch)
    if "icechunk" in storage.url:
        requests.of_icechunk(monkeypatch)
    slow = drivers.lease(staging, "june")
    june = month_target(storage, staging, 6, 16, slow)
    june.begin()
    june.accept([june.writer().write(EPSG, shard, pixels(16)) for shard in SHARDS])
    finish(june, staging, {(EPSG, shard) for shard in SHARDS}, {(EPSG, shard) for shard in SHARDS})

    def july() -> None:
        quick = drivers.lease(staging, "july")
        run_month(*places, 7, 17, quick)
        quick.check()

    at = 1 + int(part * (15 if "icechunk" in storage.url else 100))
    ended = frozen_while(requests, at, lambda: june.publish(shards_written=4, keep=1), july)
    assert "\n" not in ended
    assert "has taken over" in ended or (not ended and part > 0.75)
    seen = shown(storage)
    assert seen.pop(label(6), {16}) == {16}
    assert seen == {label(5): {15}, label(7): {17}}
    if "icechunk" not in storage.url:
        whole(places)
        assert alone(storage) == {15, 17} | ({16} if label(6) in shown(storage) else set())
    with pytest.raises(LeaseError, match=r"july .* has taken over"):
        slow.check()
    # and whoever comes next finds all in order
    run_month(*places, 6, 16, drivers.lease(staging))
    assert shown(storage) == {label(5): {15}, label(6): {16}, label(7): {17}}


@pytest.mark.parametrize(
    ("places", "started"),
    [
        *itertools.product(["on_disk", "in_icechunk"], ["nothing", "a month", "a revision"]),
        ("on_s3", "nothing"),
        *(pytest.param("on_s3", started, marks=pytest.mark.slow) for started in ("a month", "a revision")),
    ],
    indirect=["places"],
)
def test_a_shard_that_comes_late_is_not_what_others_have_published(places, started, drivers, monkeypatch):
    """Every process of the first driver is frozen inside its writing, while a second one publishes other pixels."""
    storage, staging = places
    if started != "nothing":
        run_month(*places, 6 if started == "a revision" else 5, 15, None)
    slow = drivers.lease(staging, "june")
    target = month_target(storage, staging, 6, 16, slow)
    target.begin()
    writer = target.writer()
    target.accept([writer.write(EPSG, SHARDS[0], pixels(16))])
    quick = drivers.lease(staging, "june, planned anew")
    run_month(*places, 6, 26, quick)
    published = told(staging)
    # Thawed: its workers' writes arrive at last, its driver stops.
    receipts = [writer.write(EPSG, shard, pixels(16)) for shard in SHARDS]
    for step in (slow.check, target.begin, lambda: target.publish(shards_written=4, keep=1)):
        with pytest.raises(DifffusrError):
            step()
    if "icechunk" in storage.url:
        with pytest.raises(DifffusrError):
            target.accept(receipts)
    assert shown(storage)[label(6)] == {26}
    assert told(staging) == published
    run_month(*places, 6, 26, drivers.lease(staging))
    assert shown(storage)[label(6)] == {26}


def with_gaps(value: int) -> ShardData:
    """A shard of which a chip has failed."""
    data = pixels(value)
    for values in (data.reflectance, data.quality, data.source):
        values[..., : GRID.shard_px // 2, :] = 0
    return data


@pytest.mark.parametrize(
    ("places", "before", "who_has_gaps", "at"),
    [
        ("on_disk", "nothing", "the first", 1),
        ("on_disk", "a month", "the second", 3),
        ("on_disk", "a revision", "the first", 5),
        ("on_disk", "the same shard", "the first", 3),
        ("on_disk", "the same shard", "the second", 1),
        pytest.param("on_s3", "nothing", "the first", 3, marks=pytest.mark.slow),
        ("on_s3", "the same shard", "the second", 1),
    ],
    indirect=["places"],
)
def test_a_shard_that_comes_late_under_the_same_plan_replaces_nothing(
    places, before, who_has_gaps, at, drivers, monkeypatch
):
    """Frozen inside a write, before the object of each variable, while who takes over writes to the same keys."""
    storage, staging = places
    if before in ("a month", "a revision"):
        run_month(*places, 6 if before == "a revision" else 5, 15, None)
    mine, theirs = (with_gaps(16), pixels(16)) if who_has_gaps == "the first" else (pixels(16), with_gaps(16))
    slow = drivers.lease(staging)
    target = month_target(storage, staging, 6, 16, slow)
    target.begin()
    if before == "the same shard":
        target.writer().write(EPSG, SHARDS[0], pixels(9))
    writer, sums = target.writer(), {}

    def others() -> None:
        quick = month_target(storage, staging, 6, 16, drivers.lease(staging))
        assert quick.state(EPSG) == target.state(EPSG)
        quick.begin()
        for shard in SHARDS:
            sums.update(quick.writer().write(EPSG, shard, theirs).objects)
        finish(quick, staging, {(EPSG, shard) for shard in SHARDS}, {(EPSG, shard) for shard in SHARDS})
        quick.publish(shards_written=4, keep=1)

    requests = Requests(monkeypatch)
    said = frozen_while(requests, at, lambda: writer.write(EPSG, SHARDS[0], mine), others)
    assert "somebody else has written it meanwhile" in said
    with pytest.raises(OvertakenError):  # nor by another worker of its own
        pickle.loads(pickle.dumps(writer)).write(EPSG, SHARDS[1], mine)
    with pytest.raises(LeaseError):  # and who was taken over gets no other writer
        target.writer()
    assert len(sums) == 12
    for path, wanted in sums.items():
        assert hashlib.sha256(storage.read(path)).hexdigest() == wanted, path


@pytest.mark.parametrize("places", ["on_disk", "on_s3"], indirect=True)
def test_an_overview_that_comes_late_replaces_nothing(places, drivers):
    storage, staging = places
    target = month_target(storage, staging, 6, 16, drivers.lease(staging))
    at = target.draft.zones[EPSG].position(SHARDS[0], GRID).parent
    target.begin()
    writer = target.writer()
    target.accept([writer.write(EPSG, shard, with_gaps(16)) for shard in SHARDS])
    late = target.writer()
    quick = month_target(storage, staging, 6, 16, drivers.lease(staging))
    quick.begin()
    quick.accept([quick.writer().write(EPSG, shard, pixels(16)) for shard in SHARDS])
    finish(quick, staging, {(EPSG, shard) for shard in SHARDS}, {(EPSG, shard) for shard in SHARDS})
    before = {path: storage.read(path) for path in quick.draft.shard_objects(EPSG, at)}
    with pytest.raises(OvertakenError):
        late.write(EPSG, at, with_gaps(16))
    assert {path: storage.read(path) for path in before} == before


def test_what_a_driver_wrote_itself_it_may_write_again(on_disk, drivers):
    """Ray begins a task anew where its worker has died, and another round writes with what was missing."""
    storage, staging = on_disk
    target = month_target(storage, staging, 6, 16, drivers.lease(staging))
    target.begin()
    writer = target.writer()
    receipts = [writer.write(EPSG, SHARDS[0], with_gaps(16)) for _ in range(2)]
    assert receipts[0] == receipts[1]
    again = target.writer().write(EPSG, SHARDS[0], pixels(16))
    assert again.objects != receipts[0].objects


def test_who_writes_the_same_goes_on_where_the_driver_before_was(on_disk, drivers):
    storage, staging = on_disk
    run_month(storage, staging, 5, 15, None)
    before = month_target(storage, staging, 6, 16, drivers.lease(staging))
    before.begin()
    again = month_target(storage, staging, 6, 16, drivers.lease(staging))
    assert again.state(EPSG) == before.state(EPSG) == "r0"
    other = month_target(storage, staging, 6, 26, drivers.lease(staging))
    assert other.state(EPSG) == "r1"


def test_whose_writers_have_ended_is_in_nobody_s_way(on_disk, drivers):
    storage, staging = on_disk
    run_month(storage, staging, 5, 15, None)
    before = month_target(storage, staging, 6, 16, drivers.lease(staging))
    before.begin()
    before.close()
    other = month_target(storage, staging, 6, 26, drivers.lease(staging))
    assert other.state(EPSG) == "r0"


def test_every_zombie_has_keys_of_its_own_as_long_as_there_are_any(on_disk, drivers):
    storage, staging = on_disk
    run_month(storage, staging, 5, 15, None)
    states = []
    for value in range(20, 26):
        target = month_target(storage, staging, 6, value, drivers.lease(staging))
        target.begin()
        states.append(target.state(EPSG))
    assert states[:4] == ["r0", "r1", "r2", "r3"]
    assert set(states) == {"r0", "r1", "r2", "r3"}


def test_what_the_driver_before_has_finished_is_brought_over(on_disk, drivers):
    storage, staging = on_disk
    slow = month_target(storage, staging, 6, 16, drivers.lease(staging))
    slow.begin()
    writer = slow.writer()
    slow.accept([writer.write(EPSG, shard, pixels(16)) for shard in SHARDS[:2]])
    assert not open_target(storage, staging, drafted(storage, 6), label(6), drivers.lease(staging)).is_free(EPSG)
    draft = draft_cube(storage, GRID, {EPSG: WINDOW}, month(6), [{"id": "a"}], {}, revise={EPSG: 1}, begun={EPSG})
    assert draft.zones[EPSG].lineage == (0, 1)
    quick = open_target(storage, staging, draft, label(6), drivers.lease(staging), {EPSG: "other"})
    quick.begin()
    quick.accept([quick.writer().write(EPSG, shard, pixels(26)) for shard in SHARDS[2:]])
    finish(quick, staging, {(EPSG, shard) for shard in SHARDS}, {(EPSG, shard) for shard in SHARDS[2:]})
    late = writer.write(EPSG, SHARDS[2], pixels(16))
    quick.publish(shards_written=2, keep=1)
    assert late.objects
    assert shown(storage) == {label(6): {16, 26}}


@pytest.mark.parametrize("at", [3, 60, *(pytest.param(at, marks=pytest.mark.slow) for at in (15, 40, 70))])
def test_a_frozen_rollback_takes_nothing_away(on_disk, at, drivers, monkeypatch):
    storage, staging = on_disk
    for number in (5, 6):
        run_month(storage, staging, number, 10 + number, None)
    requests = Requests(monkeypatch)
    slow = drivers.lease(staging, "rollback")

    def july() -> None:
        run_month(storage, staging, 7, 17, drivers.lease(staging, "july"))

    ended = frozen_while(requests, at, lambda: rollback(storage, staging, None, slow), july)
    assert "has taken over" in ended or (not ended and at > 60)
    assert shown(storage).items() >= {label(7): {17}, label(5): {15}}.items()
    whole((storage, staging))


@pytest.mark.parametrize(
    ("mine", "other", "meet"),
    [
        (Claim(0, 3, "june"), Claim(0, 3, "july"), True),
        (Claim(0, 3, "june"), Claim(0, 4, "july"), False),
        (Claim(1, 3, "june", revised=True), Claim(1, 4, "july", revised=True), True),
        (Claim(1, 3, "june", revised=True), Claim(2, 3, "june", revised=True), False),
        (Claim(5, 3, "june", revised=True), Claim(1, 4, "july"), True),
        (Claim(4, 3, "june"), Claim(0, 2, "may"), False),
        (Claim(4, 3, "june"), Claim(0, 3, "june"), True),
    ],
)
def test_claims_meet_where_they_may_write_one_key(mine: Claim, other: Claim, meet: bool) -> None:
    assert mine.meets(other) == other.meets(mine) == meet


def test_notes_of_an_earlier_version_count(on_disk: Any, drivers: Drivers) -> None:
    storage, staging = on_disk
    run_month(storage, staging, 5, 15, None)
    target = month_target(storage, staging, 6, 16, None)
    target.begin()
    target.accept([target.writer().write(EPSG, SHARDS[0], pixels(16))])
    staging.delete("claims/00000000.json")
    staging.write("claims.json", b'{"%d": [0, 1, "2023-06"]}' % EPSG)
    again = month_target(storage, staging, 6, 16, drivers.lease(staging))
    assert again.present().keys() == set(target.draft.shard_objects(EPSG, SHARDS[0]))
    again.begin()
    assert again.present().keys() == set(target.draft.shard_objects(EPSG, SHARDS[0]))
    assert not staging.exists("claims.json")
    other = month_target(storage, staging, 7, 17, drivers.lease(staging))
    assert other.present().keys() == set()


@pytest.mark.parametrize(
    ("places", "name"),
    [
        *(("on_disk", name) for name in LATE_DOCUMENTS),
        ("on_s3", LATE_DOCUMENTS[0]),
        *(pytest.param("on_s3", name, marks=pytest.mark.slow) for name in LATE_DOCUMENTS[1:]),
    ],
    indirect=["places"],
)
def test_a_document_that_comes_after_a_rollback_to_the_bytes_it_was_to_replace_is_named_and_mended(
    places, name, drivers, monkeypatch
):
    """Files have versions; S3 knows an object by its bytes alone, so there a late request may still replace it."""
    storage, staging = places
    run_month(*places, 5, 15, None)
    before = storage.read(name)
    slow = drivers.lease(staging)
    june = month_target(storage, staging, 6, 16, slow)
    june.begin()
    june.accept([june.writer().write(EPSG, shard, pixels(16)) for shard in SHARDS])
    finish(june, staging, {(EPSG, shard) for shard in SHARDS}, {(EPSG, shard) for shard in SHARDS})
    monkeypatch.setattr(placing, "_REQUESTS", 1)  # frozen as a whole
    exchange = Storage.exchange
    frozen: list[str] = []

    def late(self: Storage, path: str, data: bytes, tag: str) -> bool:
        if path == name and not frozen:
            frozen.append(path)
            rollback(storage, staging, None, drivers.lease(staging))  # finishes June, and takes it away again
            assert storage.read(name) == before
            slow._term_s = 0  # so long ago that its own clock tells
        return exchange(self, path, data, tag)

    monkeypatch.setattr(Storage, "exchange", late)
    with pytest.raises(LeaseError, match="has taken over"):
        june.publish(shards_written=4, keep=1)
    assert frozen
    assert shown(storage) == {label(5): {15}}
    damaged = damaged_documents(storage, staging)
    assert set(damaged) == ({name} if "s3:" in storage.url else set())
    assert (storage.read(name) == before) == (not damaged)
    assert mend_documents(storage, staging, drivers.lease(staging)) == sorted(damaged)
    assert storage.read(name) == before
    assert not damaged_documents(storage, staging)
