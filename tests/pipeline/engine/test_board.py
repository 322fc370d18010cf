"""What workers are at, how often a chip was begun, and what the run's progress says of it."""

from __future__ import annotations

import time

import pytest

from difffusr.pipeline.engine.board import ATTEMPTS, Board, Worker
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.watch.pulse import Pulse
from difffusr.pipeline.watch.pulse import RunStatus as Progress
from difffusr.pipeline.watch.pulse import read_status as read_progress

ONE, OTHER = (Worker(name, "node", "10.0.0.1", pid) for name, pid in (("one", 1), ("other", 2)))


def test_a_worker_is_at_what_it_began_last():
    board = Board()
    board.begin(ONE, "read", ["a"])
    board.begin(ONE, "read", ["b"])
    board.begin(OTHER, "super_resolve", ["c", "d"])
    assert [(doing.worker, doing.stage, doing.chips) for doing in board.look()] == [
        (ONE, "read", ("b",)),
        (OTHER, "super_resolve", ("c", "d")),
    ]
    assert all(0 <= doing.seconds < 5 for doing in board.look())
    board.end(ONE)
    board.forget(OTHER.id)
    assert board.look() == []


def test_a_chip_that_is_begun_and_never_ended_is_counted():
    board = Board()
    assert [board.begin(ONE, "super_resolve", ["a", "b"]) for _ in range(ATTEMPTS + 1)][-1] == [ATTEMPTS + 1] * 2
    board.end(ONE, ["a"])
    # it came through before: whoever gets it again must look whether it is staged
    assert board.begin(OTHER, "super_resolve", ["a", "b"]) == [0, ATTEMPTS + 2]


def test_reading_counts_nothing():
    board = Board()
    board.begin(ONE, "read", ["a"])
    assert board.begin(ONE, "super_resolve", ["a"]) == [1]


def test_a_stop_is_heard():
    board = Board()
    assert not board.stopping()
    board.stop()
    assert board.stopping()


@pytest.fixture
def staging(tmp_path) -> Storage:
    return Storage(str(tmp_path))


def test_progress_is_written_and_read_from_anywhere(staging):
    pulse = Pulse(staging, Progress("country", "2024-06", chips=10, shards=2))
    pulse.holds(gpus=4, cpus=32, gpu_hour=2.0, cpu_hour=0.1, currency="EUR")
    pulse.chip_done(3)
    for name in ("a", "b"):
        pulse.chip_failed(name, "http_404", f"{name} is not there")
    pulse.shard_done()
    pulse.end("stopped", "asked to")
    said = read_progress(staging)
    assert (said.chips_done, said.chips_failed, said.shards_done, said.state) == (3, 2, 1, "stopped")
    assert said.failures == {"http_404": 2}
    assert said.reasons == {"a": "a is not there", "b": "b is not there"}
    assert said.cost == pytest.approx(said.gpu_hours * 2.0 + said.cpu_hours * 0.1)


def test_hours_add_up_over_attempts(staging):
    for _ in range(3):
        pulse = Pulse(staging, Progress("country", "2024-06"))
        pulse.holds(gpus=3600.0, cpus=0, gpu_hour=0, cpu_hour=0, currency="EUR")
        time.sleep(0.2)
        pulse.end("stopped")
    assert 0.6 <= read_progress(staging).gpu_hours < 3


def test_what_is_left_is_known_once_there_is_a_rate():
    assert Progress("r", "p", chips=10).seconds_left is None
    assert Progress("r", "p", chips=10, chips_done=4, chips_failed=1, rate=0.5).seconds_left == 10
    assert Progress("r", "p", chips=10, chips_done=10).seconds_left == 0


def test_a_store_that_is_away_does_not_end_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    pulse = Pulse(Storage(str(tmp_path / "file" / "below")), Progress("country", "2024-06"))
    pulse.chip_done()
    pulse.end("published")
    assert pulse.now.chips_done == 1
