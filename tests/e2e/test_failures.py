"""Workers that die, stall or run out of memory; chips that cannot be made; a run that is asked to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import ray
import torch
import xarray as xr
from ray import cloudpickle

from difffusr.pipeline.chips.batch import Batch
from difffusr.pipeline.chips.resolver import PinnedResolver
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.engine.board import Pin, start_board
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.run.execution import execute
from difffusr.pipeline.run.pace import Pace
from difffusr.pipeline.storage.places import staging_of
from difffusr.pipeline.watch.pulse import read_status

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.usefixtures("_ray")

GROUP = "32632/0"


class Silent:
    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def advance(self, stage: str) -> None: ...


class Fragile(PinnedResolver):
    """Dies, sleeps, or finds no memory at one chip, so many times; a file counts them."""

    chip: ClassVar[str] = "32632/-7347_694"
    counter: ClassVar[str] = ""
    times: ClassVar[int] = 1
    sleeps: ClassVar[bool] = False
    too_large: ClassVar[bool] = False

    def super_resolve(self, batch: Batch, chosen: list[int]) -> Batch:
        if self.chip in [str(batch["name"][i]) for i in chosen]:
            count = Path(self.counter)
            before = int(count.read_text() or 0) if count.exists() else 0
            if before < self.times:
                count.write_text(str(before + 1))
                if self.sleeps:
                    time.sleep(600)
                if self.too_large:
                    raise torch.OutOfMemoryError("out of memory")
                os.kill(os.getpid(), signal.SIGKILL)
        return super().super_resolve(batch, chosen)


def fragile(folder: Path, **changes: Any) -> type[PinnedResolver]:
    return type("Fragile", (Fragile,), {"counter": str(folder / "count"), **changes})


def pixels(path: Path) -> xr.Dataset:
    return xr.open_zarr(path.with_suffix(".zarr"), group=GROUP, mask_and_scale=False).load()


@pytest.mark.slow  # the chip that no worker survives, below, kills two actors; the drills kill many
def test_an_actor_that_dies_is_started_anew_and_the_cube_is_the_same(configure, finished_run, tmp_path):
    path = configure()
    result = execute(load_config(path), Silent(), fragile(tmp_path))
    assert (tmp_path / "count").read_text() == "1"
    assert result.exit_code == 0
    assert pixels(path).identical(pixels(finished_run))


def test_a_worker_that_stalls_is_named_and_restarted(configure, finished_run, tmp_path, caplog):
    path = configure(failures={"stall_minutes": 0.12})
    with caplog.at_level("WARNING", "difffusr"):
        result = execute(load_config(path), Silent(), fragile(tmp_path, sleeps=True))
    (said,) = [record.getMessage() for record in caplog.records if "no progress" in record.getMessage()]
    assert said.startswith("super_resolve: no progress for 0.")
    assert Fragile.chip in said
    assert "process " in said
    assert result.exit_code == 0
    assert pixels(path).identical(pixels(finished_run))


class Preempted(Fragile):
    """Hears that its machine is taken away at one chip, so many times."""

    def super_resolve(self, batch: Batch, chosen: list[int]) -> Batch:
        count = Path(self.counter)
        before = int(count.read_text()) if count.exists() else 0
        if self.chip in [str(batch["name"][i]) for i in chosen] and before < self.times:
            count.write_text(str(before + 1))
            os.kill(os.getpid(), signal.SIGTERM)
        return PinnedResolver.super_resolve(self, batch, chosen)


def test_an_actor_whose_machine_is_taken_away_ends_what_it_is_at_and_another_goes_on(
    configure, finished_run, tmp_path, caplog
):
    path = configure()
    resolver = type("Preempted", (Preempted,), {"counter": str(tmp_path / "count"), "attempts": 1})
    with caplog.at_level("INFO", "difffusr"):
        result = execute(load_config(path), Silent(), resolver)
    assert (tmp_path / "count").read_text() == "1"
    said = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "preempted"]
    assert len(said) == 1
    assert "(SIGTERM)" in said[0]
    status = read_status(staging_of(load_config(path)))
    assert status is not None
    assert (status.preempted, status.given_back, result.exit_code) == (1, 0, 0)
    assert pixels(path).identical(pixels(finished_run))


@pytest.mark.slow  # the rule itself is shown in tests/pipeline/run
def test_a_run_stops_before_its_deadline_and_the_next_one_goes_on(configure, finished_run, monkeypatch):
    path = configure()
    # as if what is in flight took so long, once the first chips have shown it
    monkeypatch.setattr(Pace, "lead_s", property(lambda pace: 4000.0 if pace._resolve else 0.0))
    result = execute(load_config(path, {"deadline": "1h"}), Silent())
    assert (result.state, result.exit_code, result.why) == ("stopped", 0, "before its deadline")
    staged = len(staging_of(load_config(path)).names("chips"))
    assert staged >= result.computed > 0
    status = read_status(staging_of(load_config(path)))
    assert status is not None
    assert (status.state, status.why) == ("stopped", "before its deadline")
    result = execute(load_config(path, {"deadline": "10h"}), Silent())
    assert result.state == "published"
    assert pixels(path).identical(pixels(finished_run))


@pytest.mark.slow  # the rule itself is shown in tests/pipeline/run
def test_a_run_stops_when_its_hours_have_cost_its_budget_and_goes_on_with_a_larger_one(
    configure, finished_run, monkeypatch
):
    path = configure(costs={"calibration": "calibration.json", "prices": {"cpu_hour": 3600.0}}, budget=4.0)
    monkeypatch.setattr("difffusr.pipeline.run.execution.enforce_budget", lambda *_: None)
    monkeypatch.setattr("difffusr.pipeline.watch.pulse.PULSE_S", 0.1)
    with pytest.raises(
        DifffusrError, match=r"budget: the hours that this run has held have cost .*, the budget is 4.00"
    ):
        execute(load_config(path), Silent())
    status = read_status(staging_of(load_config(path)))
    assert status is not None
    assert status.spent >= 4.0
    result = execute(load_config(path, {"budget": 1e6}), Silent())
    assert result.state == "published"
    assert pixels(path).identical(pixels(finished_run))


def test_a_reader_tells_what_lasts_and_falls_silent_with_its_board():
    board = start_board()

    @ray.remote(num_cpus=0)
    class Reader:
        def __init__(self, board: Any) -> None:
            self.pin = Pin(board)

        def at(self, *chips: str) -> None:
            self.pin.at("read", chips)

        def done(self) -> None:
            self.pin.done()

        def stopping(self) -> bool:
            return self.pin.stopping()

        def tells(self) -> bool:
            return any(thread.name == "pin" for thread in threading.enumerate())

    def seen(chips: list[tuple[str, ...]]) -> bool:
        return [doing.chips for doing in ray.get(board.look.remote())] == chips

    reader = Reader.remote(board)
    ray.get(reader.at.remote("a"))
    assert seen([])  # as yet it may be done at once
    ray.get(reader.at.remote("b"))
    assert soon(lambda: seen([("b",)]))
    (doing,) = ray.get(board.look.remote())
    assert (doing.stage, doing.seconds >= 1) == ("read", True)
    ray.get(reader.done.remote())
    assert soon(lambda: seen([]))
    assert not ray.get(reader.stopping.remote())
    board.stop.remote()
    assert soon(lambda: ray.get(reader.stopping.remote()))
    assert ray.get(reader.tells.remote())
    ray.kill(board)
    assert soon(lambda: not ray.get(reader.tells.remote()))


def soon(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_chip_that_no_worker_survives_is_given_up_flagged_and_made_by_the_next_run(configure, finished_run, tmp_path):
    path = configure()
    config = load_config(path)
    result = execute(config, Silent(), fragile(tmp_path, times=2, attempts=2))
    assert result.exit_code == 3
    assert list(result.failed) == [Fragile.chip]
    assert "given up after 2 workers" in result.failed[Fragile.chip]
    gap, whole = pixels(path), pixels(finished_run)
    flagged = gap.quality == Quality.FAILED
    assert 0.01 < float(flagged.mean()) < 0.2
    assert (gap.reflectance.where(flagged, 0) == 0).all()
    # the rest of it is there: what neighbours reach into the gap has their blend
    elsewhere = (gap.quality != Quality.FAILED) & (gap.source == whole.source)
    assert float(elsewhere.mean()) > 0.75
    again = execute(config, Silent())
    assert (again.exit_code, again.computed) == (0, 1)
    assert pixels(path).equals(whole)


@pytest.mark.slow  # a whole run; the rule itself is shown in tests/pipeline/run
def test_a_cube_with_gaps_is_not_published_where_that_is_refused(configure, tmp_path):
    path = configure(failures={"on_failed": "refuse"})
    config = load_config(path)
    with pytest.raises(DifffusrError, match=r"1 of 12 chips failed and failures.on_failed is 'refuse'"):
        execute(config, Silent(), fragile(tmp_path, too_large=True))
    assert not (path.with_suffix(".zarr") / "zarr.json").exists()
    result = execute(config, Silent())
    assert (result.exit_code, result.computed) == (0, 1)
    assert (path.with_suffix(".zarr") / "zarr.json").exists()


def test_a_run_that_is_asked_to_stop_finishes_what_is_in_flight_and_says_how_to_resume(configure, finished_run):
    path = configure()
    command = [Path(sys.executable).with_name("difffusr"), "run", path]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    chips = staging_of(load_config(path))
    deadline = time.monotonic() + 120
    while not chips.names("chips") and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    assert "resume with: difffusr run" in out
    assert "Traceback" not in out + err
    assert not (path.with_suffix(".zarr") / "zarr.json").exists()
    staged = chips.names("chips")
    assert 0 < len(staged) < 12
    path = configure(compute={"batch": 3, "cpus_per_actor": 2})  # resumed elsewhere
    result = execute(load_config(path), Silent())
    assert result.exit_code == 0
    assert result.computed <= 12 - len(staged)
    assert pixels(path).identical(pixels(finished_run))


def test_a_run_that_is_asked_to_stop_while_it_plans_ends_at_once(configure):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a catalogue that accepts and never answers
        path = configure(source={"stac_api": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        command = [Path(sys.executable).with_name("difffusr"), "run", path]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        silent.settimeout(60)
        with silent.accept()[0]:
            driver.send_signal(signal.SIGTERM)
            out, err = driver.communicate(timeout=30)
    assert driver.returncode == 0, err
    assert "resume with: difffusr run" in out
    assert "Traceback" not in out + err
    status = read_status(staging_of(load_config(path)))
    assert status is not None
    assert status.state == "stopped"
