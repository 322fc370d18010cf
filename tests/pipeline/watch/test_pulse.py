"""A run's status is written while it runs, read from anywhere, and adds up what the run held."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.watch import pulse as module
from difffusr.pipeline.watch.pulse import Pulse, RunStatus, read_status


@pytest.fixture
def staging(tmp_path) -> Storage:
    return Storage(str(tmp_path))


def test_progress_is_written_and_read_from_anywhere(staging):
    pulse = Pulse(staging, RunStatus("country", "2024-06", chips=10, shards=2))
    pulse.holds(gpus=4, cpus=32, gpu_hour=2.0, cpu_hour=0.1, currency="EUR")
    pulse.chip_done(3)
    for name in ("a", "b"):
        pulse.chip_failed(name, "http_404", f"{name} is not there")
    pulse.shard_done()
    pulse.end("stopped", "asked to")
    said = read_status(staging)
    assert (said.chips_done, said.chips_failed, said.shards_done, said.state) == (3, 2, 1, "stopped")
    assert said.failures == {"http_404": 2}
    assert said.reasons == {"a": "a is not there", "b": "b is not there"}
    assert said.cost == pytest.approx(said.gpu_hours * 2.0 + said.cpu_hours * 0.1)


def test_hours_add_up_over_attempts(staging):
    for _ in range(3):
        pulse = Pulse(staging, RunStatus("country", "2024-06"))
        pulse.holds(gpus=3600.0, cpus=0, gpu_hour=0, cpu_hour=0, currency="EUR")
        time.sleep(0.2)
        pulse.end("stopped")
    assert 0.6 <= read_status(staging).gpu_hours < 3


def test_what_is_left_is_known_once_there_is_a_rate():
    assert RunStatus("r", "p", chips=10).seconds_left is None
    assert RunStatus("r", "p", chips=10, chips_done=4, chips_failed=1, rate=0.5).seconds_left == 10
    assert RunStatus("r", "p", chips=10, chips_done=10).seconds_left == 0


def test_a_store_that_is_away_does_not_end_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    pulse = Pulse(Storage(str(tmp_path / "file" / "below")), RunStatus("country", "2024-06"))
    pulse.chip_done()
    pulse.end("published")
    assert pulse.now.chips_done == 1


def test_hours_are_of_what_the_cluster_had_at_the_time(staging, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    beat = Pulse(staging, RunStatus("run", "2023-06"))
    beat.holds(0, 4, 2.0, 0.5, "EUR")
    now += 3600
    beat.holds(8, 68, 2.0, 0.5, "EUR")
    now += 1800
    beat.end("published")
    assert (beat.now.gpu_hours, beat.now.cpu_hours) == (4.0, 4 + 34)
    assert beat.now.cost == 4 * 2.0 + 38 * 0.5
