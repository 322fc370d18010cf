"""However a run ends, its log and its status say so."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from configs import written

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.run import execution
from difffusr.pipeline.run.stop import Stopped
from difffusr.pipeline.storage.places import staging_of
from difffusr.pipeline.watch.pulse import read_status


class Silent:
    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def advance(self, stage: str) -> None: ...


def told(caplog: pytest.LogCaptureFixture, event: str) -> logging.LogRecord:
    (record,) = [record for record in caplog.records if getattr(record, "event", None) == event]
    return record


@pytest.mark.parametrize(
    ("trouble", "raised", "state", "message"),
    [
        (CatalogError("no scene found"), CatalogError, "failed", "ended after 0 s: failed: no scene found"),
        (ZeroDivisionError("a bug"), ZeroDivisionError, "failed", "ended after 0 s: failed: a bug"),
        (KeyboardInterrupt(), KeyboardInterrupt, "stopped", "ended after 0 s: stopped: asked to"),
        (Stopped(), Stopped, "stopped", "ended after 0 s: stopped: asked to"),
        (SystemExit(15), Stopped, "stopped", "ended after 0 s: stopped: asked to"),  # Ray's answer to SIGTERM
        (
            OSError("s3://me:hidden1@bucket/x?sig=hidden1 cannot be read"),
            OSError,
            "failed",
            "ended after 0 s: failed: s3://bucket/x cannot be read",
        ),
    ],
)
def test_a_run_that_does_not_finish_says_why(monkeypatch, caplog, tmp_path: Path, trouble, raised, state, message):
    def broken(_run: Any) -> Any:
        raise trouble

    monkeypatch.setattr(execution, "_carry_out", broken)
    config = load_config(written(tmp_path))
    with caplog.at_level("INFO", "difffusr"), pytest.raises(raised):
        execution.execute(config, Silent(), file=tmp_path / "config.yaml")
    assert f"({tmp_path}/config.yaml)" in told(caplog, "started").getMessage()
    assert told(caplog, "ended").getMessage() == message
    status = read_status(staging_of(config))
    assert status is not None
    assert status.state == state


class Engine:
    """What became of Ray, in place of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, ended_before: bool = False, budget: float | None = None):
        self.told: list[str] = []

        @contextmanager
        def cluster(*_: Any):
            self.told.append("started")
            yield
            self.told.append("ended")

        def ask(*_: Any) -> Any:
            self.told.append("asked")
            return lambda: self.told.append("taken back")

        monkeypatch.setattr(execution, "cluster", cluster)
        monkeypatch.setattr(execution, "ask_ahead", ask)
        monkeypatch.setattr(execution, "has_report", lambda _: ended_before)
        self.of_run = execution._Engine(
            SimpleNamespace(config=SimpleNamespace(budget=budget, source=SimpleNamespace(cube=None)))
        )


def test_ray_starts_and_actors_are_asked_for_once_scenes_are_found(monkeypatch):
    engine = Engine(monkeypatch)
    with engine.of_run.held:
        engine.of_run.found(3)
        engine.of_run.planned(SimpleNamespace(wanted=np.array([True])))
        engine.of_run.start()
        assert engine.told == ["started", "asked"]
    assert engine.told[2:] == ["ended"]


def test_actors_are_taken_back_where_no_chip_is_wanted(monkeypatch):
    engine = Engine(monkeypatch)
    engine.of_run.found(3)
    engine.of_run.planned(SimpleNamespace(wanted=np.array([False])))
    assert engine.told == ["started", "asked", "taken back"]


def test_no_actor_is_asked_for_before_a_budget_is_checked(monkeypatch):
    engine = Engine(monkeypatch, budget=100.0)
    engine.of_run.found(3)
    assert engine.told == ["started"]


@pytest.mark.parametrize(("scenes", "ended_before"), [(0, False), (5, True)])
def test_ray_is_not_started_where_there_may_be_nothing_to_do(monkeypatch, scenes, ended_before):
    engine = Engine(monkeypatch, ended_before=ended_before)
    engine.of_run.found(scenes)
    assert engine.told == []
    engine.of_run.start()
    assert engine.told == ["started"]
