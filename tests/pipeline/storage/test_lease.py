"""One driver at a time: who holds a store, who may take it over, and who must stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from difffusr.pipeline.storage.holder import Holder
from difffusr.pipeline.storage.lease import Lease, LeaseError, holder_of
from difffusr.pipeline.storage.objects import Storage

QUICK = {"beat_s": 0.05, "term_s": 1.0}


@pytest.fixture
def staging(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def left_behind(staging: Storage, number: int = 1, **changes: object) -> Holder:
    """A lease of some other machine's driver."""
    holder = replace(Holder.of_this_process("other, 2024-06"), host="elsewhere", id="other", **changes)
    staging.write(f"lease/{number:08d}.json", json.dumps(asdict(holder)).encode())
    return holder


def test_a_second_driver_is_refused_while_the_first_lives(staging):
    first = Lease.acquire(staging, "country, 2024-06", **QUICK)
    with pytest.raises(LeaseError, match=rf"country, 2024-06 \(process {os.getpid()} on "):
        Lease.acquire(staging, "country, 2024-07", **QUICK)
    first.check()
    first.release()


def test_a_released_lease_is_free_at_once(staging):
    Lease.acquire(staging, "one", **QUICK).release()
    assert holder_of(staging) is None
    begun = time.monotonic()
    Lease.acquire(staging, "two", beat_s=0.05, term_s=30).release()
    assert time.monotonic() - begun < 5


def test_a_driver_that_died_on_this_machine_is_known_to_be_dead_at_once(staging):
    code = (
        "import sys, os\nfrom difffusr.pipeline.storage.lease import Lease\n"
        "from difffusr.pipeline.storage.objects import Storage\n"
        "Lease.acquire(Storage(sys.argv[1]), 'killed')\nprint('held', flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, staging.url], capture_output=True, text=True, check=False)
    assert (killed.returncode, killed.stdout.strip()) == (-9, "held")
    assert holder_of(staging).run == "killed"
    begun = time.monotonic()
    Lease.acquire(staging, "next", beat_s=0.05, term_s=60).release()
    assert time.monotonic() - begun < 10


def test_a_driver_of_another_machine_is_watched_for_a_term_and_then_taken_for_dead(staging):
    left_behind(staging)
    said: list[str] = []
    begun = time.monotonic()
    lease = Lease.acquire(staging, "next", said.append, **QUICK)
    assert 1.0 <= time.monotonic() - begun < 5
    assert len(said) == 1
    assert "elsewhere" in said[0]
    lease.release()


def test_clocks_do_not_matter(staging):
    """A holder whose clock is a year off is judged by its beats alone."""
    other = left_behind(staging, since="1999-01-01T00:00:00Z")

    def live() -> None:
        for beat in range(1, 40):
            time.sleep(0.05)
            staging.write("lease/00000001.json", json.dumps(asdict(replace(other, beat=beat))).encode())

    alive = threading.Thread(target=live)
    alive.start()
    with pytest.raises(LeaseError, match="elsewhere"):
        Lease.acquire(staging, "next", **QUICK)
    alive.join()


def test_of_many_who_try_one_gets_it(staging):
    left_behind(staging)
    won, refused = [], []

    def attempt() -> None:
        try:
            won.append(Lease.acquire(staging, "one of many", beat_s=0.02, term_s=1.0))
        except LeaseError as error:
            refused.append(error)

    crowd = [threading.Thread(target=attempt) for _ in range(8)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert (len(won), len(refused)) == (1, 7)
    won[0].release()


def test_who_was_taken_over_hears_of_it_and_writes_no_more(staging):
    first, heard = Lease.acquire(staging, "slow", **QUICK), threading.Event()
    first.on_lost(heard.set)
    left_behind(staging, number=2)
    assert heard.wait(5)
    with pytest.raises(LeaseError, match="has taken over"):
        first.check()
    first.release()
    assert holder_of(staging).host == "elsewhere"


@pytest.mark.parametrize("frozen_s", [0.0, 100.0])
def test_a_driver_that_slept_reads_the_store_before_it_goes_on(staging, frozen_s, monkeypatch):
    """Its heart has not beaten yet: only the store knows."""
    slow = Lease.acquire(staging, "slow", beat_s=3600, term_s=30)
    try:
        slow.guard()
        left_behind(staging, number=slow.number + 1)
        monkeypatch.setattr("difffusr.pipeline.storage.lease._clock", lambda: time.monotonic() + frozen_s + 10**6)
        slow._last = time.monotonic() + 10**6
        look = slow.check if frozen_s == 0 else slow.guard  # older than its term: a step looks, too
        with pytest.raises(LeaseError, match=r"other, 2024-06 .* has taken over") as caught:
            look()
        assert "\n" not in str(caught.value)
    finally:
        slow._ended.set()


def test_a_driver_that_nobody_has_taken_over_goes_on_however_long_the_store_was_away(staging, monkeypatch):
    slow = Lease.acquire(staging, "slow", beat_s=3600, term_s=30)
    try:
        beat = holder_of(staging).beat
        slow._last -= 1000
        slow.guard()
        assert slow.age_s < 30
        assert holder_of(staging).beat == beat + 1
    finally:
        slow._ended.set()


def test_a_step_within_the_term_asks_the_store_for_nothing(staging, monkeypatch):
    lease = Lease.acquire(staging, "quick", beat_s=3600, term_s=30)
    try:
        monkeypatch.setattr(Storage, "names", lambda *_: pytest.fail("a request"))
        for _ in range(5):
            lease.guard()
    finally:
        lease._ended.set()


def test_another_holder_of_the_same_number_has_it(staging):
    """As where a store ignored that the object was there already."""
    first = Lease.acquire(staging, "first", beat_s=3600, term_s=30)
    first._ended.set()
    left_behind(staging, number=first.number)
    with pytest.raises(LeaseError, match="has taken over"):
        first.check()
    first.release()
    assert holder_of(staging).host == "elsewhere"


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, False),
        ({"pid": 2**22 + 7}, True),
        ({"started": 1}, True),  # its number was given to another process
        ({"pid": 2**22 + 7, "space": "pid:[1]"}, False),
        ({"pid": 2**22 + 7, "space": ""}, False),  # a lease of an earlier version
        ({"pid": 2**22 + 7, "boot": "another"}, False),  # another machine of the same name
        ({"pid": 2**22 + 7, "boot": ""}, False),
        ({"pid": 2**22 + 7, "host": "a container's"}, True),
    ],
)
def test_only_who_would_be_seen_if_it_were_alive_is_surely_dead(changes, dead):
    assert replace(Holder.of_this_process("a run"), **changes).is_surely_dead() is dead


def test_a_process_that_has_ended_and_is_not_reaped_is_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    mine = Holder.of_this_process("a run")
    started = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert replace(mine, pid=child.pid, started=started).is_surely_dead()
    child.wait()


def test_a_holder_of_another_version_is_understood(staging):
    holder = asdict(replace(Holder.of_this_process("later, 2024-06"), host="elsewhere"))
    for name in ("space", "started", "silent", "after"):
        del holder[name]
    staging.write("lease/00000004.json", json.dumps({**holder, "mood": "good"}).encode())
    assert holder_of(staging).run == "later, 2024-06"
    Lease.acquire(staging, "next", **QUICK).release()


@pytest.mark.parametrize("name", [".DS_Store", "._00000001.json", "00000009.json.tmp", "old/00000009.json", "9.json"])
def test_what_strangers_put_beside_a_lease_is_left_alone(staging, name):
    staging.write(f"lease/{name}", b"\x00")
    Lease.acquire(staging, "one", **QUICK).release()
    assert staging.read(f"lease/{name}") == b"\x00"


def test_who_was_silent_and_who_never_ended_is_remembered(staging):
    left_behind(staging, number=3)
    quick = {"beat_s": 3600, "term_s": 0.01}
    leases = [Lease.acquire(staging, "second", **quick)]
    leases.append(Lease.acquire(staging, "third", **quick))
    assert (leases[1].holder.silent, leases[1].holder.after) == ((3, 4), (3, 4))
    leases[1].release()
    leases.append(Lease.acquire(staging, "fourth", **quick))
    assert (leases[2].holder.silent, leases[2].holder.after) == ((3, 4), ())
    for lease in leases:
        lease._ended.set()


class Careless(Storage):
    """A store that ignores conditions."""

    def create(self, name: str, data: bytes) -> bool:
        self.write(name, data)
        return True


@pytest.mark.parametrize("drivers", [1, 2, 6])
def test_a_store_that_ignores_conditions_is_said_to_have_no_lock_and_one_driver_holds_it(tmp_path, drivers):
    staging = Careless(str(tmp_path))
    won, refused, said = [], [], []
    ready = threading.Barrier(drivers)

    def attempt() -> None:
        ready.wait()
        try:
            won.append(Lease.acquire(staging, "one of many", said.append, beat_s=0.5, term_s=5))
        except LeaseError as error:
            refused.append(error)

    crowd = [threading.Thread(target=attempt) for _ in range(drivers)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert (len(won), len(refused)) == (1, drivers - 1)
    assert any("ignores conditional writes" in text and "\n" not in text for text in said)
    won[0].check()
    won[0].release()


def test_a_lease_whose_answer_was_lost_is_held(tmp_path):
    """The client asks again, and the store says that the object is there: it is this driver's own."""

    class Lossy(Storage):
        def create(self, name: str, data: bytes) -> bool:
            super().create(name, data)
            return False

    lease = Lease.acquire(Lossy(str(tmp_path)), "one", beat_s=3600, term_s=30)
    lease.check()
    lease.release()


def test_what_is_no_lease_is_said(staging):
    staging.write("lease/00000001.json", b"{")
    with pytest.raises(Exception, match=r"cannot be understood .*delete it if no driver is running"):
        Lease.acquire(staging, "next", **QUICK)
