"""A run's life is told in lines that people read and in fields that programs read, without secrets."""

from __future__ import annotations

import io
import json
import logging
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from difffusr.pipeline.watch import life
from difffusr.pipeline.watch.log import json_lines
from difffusr.pipeline.watch.pulse import RunStatus


class Told:
    """What the logger of a run was told: lines of text, and of JSON."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def only(self, event: str) -> dict[str, Any]:
        (line,) = [line for line in self.json if line["event"] == event]
        assert line["level"] == "info"
        return line


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    told = Told()
    handler = json_lines(told.stream, "june")
    logger = logging.getLogger("difffusr.run")
    logger.addHandler(handler)
    with caplog.at_level("INFO", "difffusr.run"):
        yield told
    logger.removeHandler(handler)


def configured(store: str = "/data/cube.zarr", staging: str = "/data/cube.staging", address: str | None = None) -> Any:
    return SimpleNamespace(
        name="june",
        period=SimpleNamespace(label="2024-06"),
        store=SimpleNamespace(url=store, staging=staging),
        compute=SimpleNamespace(address=address),
    )


def test_a_run_starts_with_its_configuration_versions_and_places(told):
    life.tell_started(configured(), Path("runs/june.yaml"))
    line = told.only("started")
    assert (line["config"], line["name"], line["period"]) == ("runs/june.yaml", "june", "2024-06")
    assert (line["store"], line["staging"], line["address"]) == (
        "/data/cube.zarr",
        "/data/cube.staging",
        "this machine",
    )
    assert line["versions"]["python"] == platform.python_version()
    assert {"difffusr", "ray", "torch"} <= set(line["versions"])
    for words in ("runs/june.yaml", "difffusr 0.", "ray 2.", "torch 2.", "python 3.", "store /data/cube.zarr"):
        assert words in line["message"]


@pytest.mark.parametrize(
    "url",
    [
        "s3://me:hidden1@bucket/cube.zarr",
        "https://hidden1@host.example/cube.zarr",
        "https://host.example/cube.zarr?sig=hidden1&se=2",
        "icechunk+s3://me:hidden1@bucket/cube",
        "abfs://box@account.dfs.core.windows.net/cube.zarr?sv=hidden1",
    ],
)
def test_no_address_shows_a_secret(told, url):
    life.tell_started(configured(store=url, staging=url), None)
    assert "hidden1" not in told.stream.getvalue()
    assert told.only("started")["store"].startswith(url.partition("://")[0])
    assert told.only("started")["config"] is None


def test_a_stage_says_when_it_begins_and_how_long_it_took(told):
    with life.stage_told("chips"):
        assert [line["event"] for line in told.json] == ["stage_begun"]
    done = told.only("stage_done")
    assert done["stage"] == "chips"
    assert 0 <= done["seconds"] < 5
    assert done["message"] == "chips: done in 0 s"


def test_a_stage_that_fails_is_not_said_to_be_done(told):
    with pytest.raises(ZeroDivisionError), life.stage_told("publish"):
        raise ZeroDivisionError
    assert [line["event"] for line in told.json] == ["stage_begun", "stage_broken_off"]


@pytest.mark.parametrize(
    ("status", "says", "fields"),
    [
        ({}, "planning for ", {"stage": "plan"}),
        ({"shards": 37, "shards_done": 4}, "alive: shards 4 of 37 for ", {"shards_done": 4, "shards": 37}),
        ({"shards": 2_037}, "alive: shards 0 of 2,037 for ", {"shards_done": 0, "shards": 2037}),
        (
            {"chips": 1200, "chips_done": 300, "shards": 40, "shards_done": 7, "rate": 0.5},
            "chips 300 of 1,200 (25%), shards 7 of 40; 30.0 chips a minute, about 30.0 min left; failed 0",
            {"done": 300, "total": 1200, "rate": 0.5, "eta_seconds": 1800, "failed": 0, "shards_done": 7},
        ),
        (
            {"chips": 10, "shards": 1},
            "chips 0 of 10 (0%), shards 0 of 1; rate not known yet, time left not known yet; failed 0",
            {"done": 0, "rate": 0, "eta_seconds": None},
        ),
        (
            {"chips": 10, "chips_done": 8, "chips_failed": 2, "shards": 1, "failures": {"crs": 2}},
            "chips 8 of 10 (80%), shards 0 of 1; rate not known yet, about 0 s left; failed 2",
            {"failed": 2, "failures": {"crs": 2}, "eta_seconds": 0},
        ),
        (
            {"chips": 5, "chips_done": 5, "shards": 2, "shards_done": 2, "rate": 2.0},
            "chips 5 of 5 (100%), shards 2 of 2; 120.0 chips a minute, about 0 s left",
            {"done": 5, "total": 5, "shards_done": 2},
        ),
    ],
)
def test_a_sign_of_life_says_how_much_how_fast_how_long_and_what_failed(told, status, says, fields):
    life._tell_alive(RunStatus("june", "2024-06", began=time.time(), **status))
    line = told.only("alive")
    assert says in line["message"]
    assert {name: line[name] for name in fields} == fields


def test_signs_of_life_come_regularly_until_the_run_ends(told, monkeypatch):
    monkeypatch.setattr(life, "HEARTBEAT_S", 0.05)
    status = RunStatus("june", "2024-06", began=time.time(), chips=4)
    with life.heartbeat(lambda: status):
        deadline = time.monotonic() + 10
        while len(told.json) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    count = len(told.json)
    assert count >= 3
    time.sleep(0.15)
    assert len(told.json) == count


def test_a_run_ends_with_its_state_and_its_failures_by_reason(told):
    failed = {
        "a": "scene S, B11: /x.tif cannot be opened (HTTP response code: 404)",
        "b": "scene S, B04: /y.tif cannot be opened (HTTP response code: 404)",
        "c": "scene S, B04: /z.tif has CRS EPSG:4326, its item says EPSG:32632",
    }
    life.tell_ended("published", 125.0, "", failed, exit_code=3, publication=7)
    line = told.only("ended")
    assert line["message"] == "ended after 2.1 min: published; chips failed 3 (http_404 2, crs 1)"
    assert (line["failed"], line["failures"], line["exit_code"], line["publication"]) == (
        3, {"http_404": 2, "crs": 1}, 3, 7,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "why", "said"),
    [
        ("failed", "no scene found", "ended after 5 s: failed: no scene found"),
        ("stopped", "asked to", "ended after 5 s: stopped: asked to"),
        ("unchanged", "", "ended after 5 s: unchanged"),
    ],
)
def test_why_a_run_ended_is_said(told, state, why, said):
    life.tell_ended(state, 5.0, why)
    assert told.only("ended")["message"] == said


def test_facts_do_not_replace_what_every_line_has_and_hide_secrets_however_deep(told):
    life.tell(
        "odd", "odd", run="other", level="none", places=["https://a/x?sig=s3cr3t", {"b": "token=s3cr3t", "n": None}]
    )
    line = told.only("odd")
    assert (line["run"], line["level"]) == ("june", "info")
    assert "s3cr3t" not in told.stream.getvalue()
    assert line["places"][1]["n"] is None
