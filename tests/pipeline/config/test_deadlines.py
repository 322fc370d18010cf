"""When a run has to have ended: times and durations, and what neither is."""

from __future__ import annotations

import datetime as dt

import pytest
from configs import refused, written

from difffusr.pipeline.config.deadlines import deadline_at
from difffusr.pipeline.config.loading import load_config

NOON = dt.datetime(2026, 12, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("6h", NOON + dt.timedelta(hours=6)),
        ("1h30m", NOON + dt.timedelta(minutes=90)),
        ("90 min", NOON + dt.timedelta(minutes=90)),
        ("1.5H", NOON + dt.timedelta(minutes=90)),
        ("2d", NOON + dt.timedelta(days=2)),
        ("45s", NOON + dt.timedelta(seconds=45)),
        ("2026-12-01T18:00Z", NOON + dt.timedelta(hours=6)),
        ("2026-12-01T18:00:00+01:00", NOON + dt.timedelta(hours=5)),
        ("2026-12-01 18:00", NOON + dt.timedelta(hours=6)),
        (" 2026-12-01T18:00 ", NOON + dt.timedelta(hours=6)),
    ],
)
def test_a_deadline_is_a_time_or_a_duration(tmp_path, text, ends):
    assert deadline_at(text, NOON) == ends
    config = load_config(written(tmp_path, deadline=text))
    assert config.deadline is not None
    assert deadline_at(config.deadline, NOON) == ends


@pytest.mark.parametrize("written_as", ["2026-12-01T18:00:00Z", "2026-12-01 18:00:00", "2026-12-01T19:00:00+01:00"])
def test_what_yaml_takes_for_a_time_is_one(tmp_path, written_as):
    path = written(tmp_path)
    path.write_text(path.read_text() + f"deadline: {written_as}\n")
    assert deadline_at(str(load_config(path).deadline), NOON) == NOON + dt.timedelta(hours=6)


@pytest.mark.parametrize(
    "value", ["", "soon", "6", 6, "-6h", "0h", "6 hours", "2026-12-01", "18:00", "1e3h", "99999999d", "h", True, ["6h"]]
)
def test_what_is_neither_is_refused_by_name(tmp_path, value):
    said = refused(tmp_path, deadline=value)
    assert "deadline: found" in said
    assert "6h or 1h30m" in said


def test_neither_deadline_nor_preemption_is_part_of_what_a_run_is(tmp_path):
    plain = load_config(written(tmp_path))
    limited = load_config(written(tmp_path, deadline="6h", compute={"preemption": "aws"}))
    assert plain.deadline is None
    assert (limited.deadline, limited.compute.preemption) == ("6h", "aws")
    assert limited.canonical() == plain.canonical()


@pytest.mark.parametrize("value", ["azure", "", True, 5, "AWS"])
def test_who_takes_machines_away_is_one_that_is_known(tmp_path, value):
    assert "'auto' (who may take this machine away" in refused(tmp_path, compute={"preemption": value})
