"""What ends a run in good order: deadline, budget, a machine that is taken away."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from configs import written

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.engine.notices import FILE_VARIABLE
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.run import limits
from difffusr.pipeline.run.limits import DEADLINE, MACHINE, ended_by, limited
from difffusr.pipeline.run.pace import Pace, deadline_of
from difffusr.pipeline.run.stop import Stop, Stopped
from difffusr.pipeline.watch.pulse import RunStatus


class Pulse:
    def __init__(self) -> None:
        self.watchers: list[Any] = []

    def watch(self, watcher: Any) -> None:
        self.watchers.append(watcher)


def run_of(folder: Any, ends: float | None = None, pace: Pace | None = None, **sections: Any) -> Any:
    config = load_config(written(folder, **sections))
    return SimpleNamespace(config=config, stop=Stop(), ends=ends, pace=pace or Pace(), pulse=Pulse())


def batch(resolve_s: float, stage_s: float, chips: int = 4) -> Any:
    return {"resolve_s": np.full(chips, resolve_s / chips), "stage_s": np.full(chips, stage_s / chips)}


def soon(is_so: Any, within_s: float = 3.0) -> bool:
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    ("batches", "shards", "lead_s"),
    [
        ([], [], 5),
        ([(8, 1)], [], 5 + 17),
        ([(8, 1), (2, 3), (7, 0)], [4], 5 + 19),
        ([(1, 1)], [30, 2], 5 + 30),
    ],
)
def test_a_run_stops_so_early_that_what_is_in_flight_comes_to_rest(batches, shards, lead_s):
    pace = Pace()
    for one in batches:
        pace.chips(batch(*one))
    for seconds in shards:
        pace.shard(seconds)
    assert pace.lead_s == pytest.approx(lead_s)


@pytest.fixture
def _looks_often(monkeypatch):
    monkeypatch.setattr(limits, "_LOOK_S", 0.01)


@pytest.mark.usefixtures("_looks_often")
@pytest.mark.parametrize(("left_s", "batch_s", "stops"), [(60, 0, False), (60, 40, True), (-1, 0, True), (4, 0, True)])
def test_before_the_deadline_nothing_new_is_taken(tmp_path, caplog, left_s, batch_s, stops):
    pace = Pace()
    pace.chips(batch(batch_s, 0))
    run = run_of(tmp_path, time.time() + left_s, pace)
    with caplog.at_level("WARNING", "difffusr"), limited(run):
        assert soon(lambda: run.stop.requested, 1.0 if stops else 0.1) == stops
    if stops:
        assert (run.stop.why, run.stop.reason) == (None, DEADLINE)
        (record,) = caplog.records
        assert record.getMessage().startswith("the deadline ")
        assert record.event == "deadline"


@pytest.mark.usefixtures("_looks_often")
def test_a_run_that_was_asked_to_stop_before_says_nothing_of_its_deadline(tmp_path, caplog):
    run = run_of(tmp_path, time.time() - 1)
    run.stop.request()
    with caplog.at_level("WARNING", "difffusr"), limited(run):
        time.sleep(0.05)
    assert run.stop.reason == "asked to"
    assert not caplog.records


@pytest.mark.parametrize(("spent", "stops"), [(0.0, False), (9.99, False), (10.0, True), (12.0, True)])
def test_hours_that_have_cost_the_budget_end_a_run_with_an_error(tmp_path, spent, stops):
    run = run_of(tmp_path, costs={"calibration": "calibration.json", "currency": "CHF"}, budget=10)
    with limited(run):
        (watcher,) = run.pulse.watchers
        watcher(RunStatus("run", "2020-02", spent=spent, currency="CHF"))
    assert run.stop.requested == stops
    if stops:
        assert isinstance(run.stop.why, DifffusrError)
        assert f"have cost {spent:,.2f} CHF, the budget is 10.00 CHF" in str(run.stop.why)
        assert "raise budget and run again to continue" in str(run.stop.why)


def test_without_limits_nothing_is_watched(tmp_path, monkeypatch):
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    run = run_of(tmp_path, compute={"preemption": "file"})
    with limited(run):
        assert run.pulse.watchers == []
    assert not run.stop.requested


def test_a_run_stops_when_its_driver_s_machine_is_taken_away(tmp_path, monkeypatch, caplog):
    notice = tmp_path / "notice"
    monkeypatch.setenv(FILE_VARIABLE, str(notice))
    notice.write_text("60")
    run = run_of(tmp_path, compute={"preemption": "file"})
    with caplog.at_level("WARNING", "difffusr"), limited(run):
        assert soon(lambda: run.stop.requested)
    assert run.stop.reason == MACHINE
    assert run.stop.machine_ends == pytest.approx(time.time() + 60, abs=5)
    assert "this machine is about to go, in " in caplog.text
    assert "(file)" in caplog.text


@pytest.mark.parametrize("left_s", [-5.0, 0.0, 0.05])
def test_a_plan_that_is_not_made_in_time_ends_at_once(left_s):
    began = time.monotonic()
    with pytest.raises(Stopped, match=DEADLINE), ended_by(time.time() + left_s):
        time.sleep(5)
    assert time.monotonic() - began < 2


def test_a_plan_that_is_made_in_time_is_let_be():
    for ends in (None, time.time() + 0.05):
        with ended_by(ends):
            pass
    time.sleep(0.1)


@pytest.mark.parametrize("deadline", [None, "1h", "2199-01-01T00:00Z"])
def test_a_duration_counts_from_the_start(tmp_path, deadline):
    ends = deadline_of(load_config(written(tmp_path, deadline=deadline)))
    assert ends is None if deadline is None else ends is not None and ends > time.time() + 3000
    if deadline == "1h":
        assert ends == pytest.approx(time.time() + 3600, abs=2)
