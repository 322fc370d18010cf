"""`difffusr run --deadline`: over the file's, as a time from the start, and refused where it has passed."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from configs import written

from difffusr.pipeline.commands.common import load
from difffusr.pipeline.commands.run import _stay, _with_time, show_stopped
from difffusr.pipeline.config.deadlines import deadline_at
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.run.result import RunResult


@pytest.mark.parametrize(
    ("in_file", "given", "hours"), [(None, None, None), ("6h", None, 6), (None, "2h", 2), ("6h", "90min", 1.5)]
)
def test_the_command_s_deadline_goes_before_the_file_s(tmp_path, in_file, given, hours):
    settings = _with_time(load(written(tmp_path, deadline=in_file), False, deadline=given))
    now = dt.datetime.now(dt.UTC)
    if hours is None:
        assert settings.deadline is None
        return
    assert settings.deadline is not None
    assert abs(
        deadline_at(settings.deadline, now + dt.timedelta(days=9)) - now - dt.timedelta(hours=hours)
    ) < dt.timedelta(seconds=5)


def test_cubes_made_of_it_have_the_same_deadline(tmp_path):
    derived = [{"name": "europe", "crs": "EPSG:3035", "url": str(tmp_path / "europe.zarr")}]
    settings = _with_time(load(written(tmp_path, deadline="6h", derived=derived), False))
    assert settings.of_derived("europe").deadline == settings.deadline


def test_a_deadline_that_has_passed_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="deadline: 2000-01-01T00:00Z has passed; choose a later one") as caught:
        _with_time(load(written(tmp_path), False, deadline="2000-01-01T00:00Z"))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("stopped", "left_s", "waits_s"),
    [(True, 20, 80), (True, -30, 30), (True, -90, 0), (True, 1e9, 660), (True, None, None), (False, 20, None)],
)
def test_who_tries_again_begins_when_the_machine_is_gone(monkeypatch, stopped, left_s, waits_s):
    waited: list[float] = []
    monkeypatch.setattr("difffusr.pipeline.commands.run.time.sleep", waited.append)
    result = RunResult(None, stopped=stopped, machine_ends=0.0 if left_s is None else time.time() + left_s)  # type: ignore[arg-type]
    _stay(result)
    assert waited == ([] if waits_s is None else [pytest.approx(waits_s, abs=1)])
    assert result.exit_code == (0 if waits_s is None else 1)


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("asked to", "stopped as asked, nothing is lost"),
        ("before its deadline", "stopped before its deadline, nothing is lost"),
        ("as this machine is about to go", "stopped as this machine is about to go, nothing is lost"),
    ],
)
def test_a_run_that_was_stopped_says_why_and_how_to_resume_it(capsys, why, said):
    show_stopped("difffusr run june.yaml", why)
    assert f"{said}; resume with: difffusr run june.yaml" in capsys.readouterr().out
