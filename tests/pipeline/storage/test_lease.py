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

from difffusr.pipeline.storage.lease import Holder, Lease, LeaseError, holder_of
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


def test_what_is_no_lease_is_said(staging):
    staging.write("lease/00000001.json", b"{")
    with pytest.raises(Exception, match=r"cannot be understood .*delete it if no driver is running"):
        Lease.acquire(staging, "next", **QUICK)
