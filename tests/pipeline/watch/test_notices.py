"""However a run ends, who wants to know is told: one signed message without secrets; the run does not depend on it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from configs import written
from hook_server import HookServer, hook_server

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import BudgetError, CatalogError, StoreError
from difffusr.pipeline.run import execution
from difffusr.pipeline.run.result import RunResult
from difffusr.pipeline.run.stop import Stopped
from difffusr.pipeline.watch import hook as hooks
from difffusr.pipeline.watch import notices


class Silent:
    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def advance(self, stage: str) -> None: ...


@pytest.fixture
def server(monkeypatch) -> Iterator[HookServer]:
    monkeypatch.setattr(hooks, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(notices, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(notices, "_STOPPED_PATIENCE_S", 0.3)
    monkeypatch.setenv("HOOK_SECRET", "SIGNING-SECRET")
    with hook_server() as server:
        yield server


#: Where secrets stand in a configuration: none of them may be told.
STORE = {"url": "out/cube.zarr", "storage_options": {"key": "STORE-SECRET", "endpoint_url": "https://s3.example"}}


@pytest.fixture
def ends(monkeypatch, tmp_path: Path, server: HookServer) -> Callable[..., BaseException | RunResult]:
    """Execute a run that ends as it is told to; what it ended with."""

    def run(end: BaseException | RunResult, **notify: Any) -> BaseException | RunResult:
        def carried_out(run: Any) -> RunResult:
            run.pulse.holds(2, 8, 0.9, 0.04, "EUR")
            run.pulse.update(chips=100, chips_done=97, chips_failed=3, shards=4, shards_done=4)
            if isinstance(end, BaseException):
                raise end
            return end

        monkeypatch.setattr(execution, "_carry_out", carried_out)
        keys = {"url": server.url, "secret_env": "HOOK_SECRET", **notify}
        config = load_config(written(tmp_path, name="luxembourg", store=STORE, notify=keys))
        try:
            return execution.execute(config, Silent())
        except BaseException as error:
            return error

    return run


def result(**changes: Any) -> RunResult:
    return RunResult(SimpleNamespace(chips=[], shards=[]), **changes)  # type: ignore[arg-type]


PUBLISHED: Any = SimpleNamespace(number=3)
FAILED = {"32632/1_2": "B02 cannot be read", "32632/1_3": "B02 cannot be read"}


@pytest.mark.parametrize(
    ("end", "event", "code", "said"),
    [
        (result(publication=PUBLISHED), "published", 0, "luxembourg, 2020-02: published; publication 3; chips 97 of"),
        (result(publication=PUBLISHED, failed=FAILED), "incomplete", 3, "finished, but chips failed; failed 2 ("),
        (result(failed=FAILED), "incomplete", 3, "luxembourg, 2020-02: finished, but chips failed; failed 2 ("),
        (result(stopped=True), "stopped", 0, "luxembourg, 2020-02: stopped, the same command continues; chips 97 of"),
        (result(stopped=True, failed=FAILED), "stopped", 0, "stopped, the same command continues; failed 2 ("),
        (Stopped(), "stopped", 0, "luxembourg, 2020-02: stopped, the same command continues"),
        (KeyboardInterrupt(), "stopped", 130, "luxembourg, 2020-02: stopped, the same command continues"),
        (CatalogError("no scene found"), "failed", 1, "luxembourg, 2020-02: failed: no scene found; chips 97 of 100"),
        (ZeroDivisionError("a bug\nin two lines"), "failed", 1, "luxembourg, 2020-02: failed: a bug in two lines"),
        (BudgetError("budget: too dear"), "over_budget", 1, "luxembourg, 2020-02: over budget: budget: too dear"),
        (
            StoreError("s3://me:STORE-SECRET@bucket/x?sig=STORE-SECRET: STORE-SECRET is refused"),
            "failed",
            1,
            "luxembourg, 2020-02: failed: s3://bucket/x",
        ),
    ],
)
def test_every_end_is_told_once_signed_and_without_secrets(ends, server, caplog, end, event, code, said):
    with caplog.at_level("DEBUG"):
        assert ends(end) is end
    (got,) = server.got
    message = got.message
    assert (message["event"], message["exit_code"]) == (event, code)
    assert said in message["text"]
    assert "\n" not in message["text"]
    assert got.signed_with(b"SIGNING-SECRET")
    assert message["id"] == got.headers["webhook-id"]
    assert "SECRET" not in got.body.decode()
    told = "".join(record.getMessage() for record in caplog.records if record.name.startswith("difffusr"))
    assert "HOOKSECRET" not in told
    assert "SIGNING-SECRET" not in told


def test_a_message_says_which_run_how_far_and_at_what_cost(ends, server, tmp_path):
    ends(result(publication=PUBLISHED))
    (message,) = server.messages
    assert (message["run"], message["period"]) == ("luxembourg", "2020-02")
    assert message["store"] == str(tmp_path / "out/cube.zarr")
    assert message["chips"] == {"planned": 100, "done": 97, "failed": 3}
    assert message["shards"] == {"planned": 4, "done": 4}
    assert message["publication"] == 3
    assert message["currency"] == "EUR"
    assert message["gpu_hours"] >= 0
    assert message["version"] == notices.package_version("difffusr")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", message["time"])
    ends(result(publication=PUBLISHED))
    assert server.messages[1]["id"] != message["id"]


@pytest.mark.parametrize("end", [result(), result(mended=["a"])])
def test_where_nothing_new_is_published_nobody_is_told(ends, server, end):
    assert ends(end) is end
    assert server.got == []


@pytest.mark.parametrize("events", [["failed"], ["failed", "over_budget"]])
def test_only_the_events_that_are_asked_for_are_told(ends, server, events):
    ends(result(publication=PUBLISHED), events=events)
    ends(Stopped(), events=events)
    assert server.got == []
    ends(CatalogError("no scene found"), events=events)
    assert [message["event"] for message in server.messages] == ["failed"]


@pytest.mark.parametrize("end", [result(publication=PUBLISHED), CatalogError("no scene found"), Stopped()])
@pytest.mark.parametrize("answer", [500, 404, 302, 0, -1])
def test_a_notice_that_is_not_taken_changes_nothing_but_says_so_once(ends, server, caplog, end, answer):
    server.answers = [(answer, {"location": "https://other.example/HOOKSECRET"})] * 1000
    with caplog.at_level("WARNING", "difffusr.notify"):
        assert ends(end) is end
    (record,) = [record for record in caplog.records if record.name == "difffusr.notify"]
    assert re.match(r"notify: 127\.0\.0\.1:\d+ was not told \(.+\): (it |no )", record.getMessage())
    assert "HOOKSECRET" not in record.getMessage()


def test_ctrl_c_ends_the_waiting_not_the_run(ends, server, monkeypatch, caplog):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(notices, "post", interrupted)
    end = result(publication=PUBLISHED)
    with caplog.at_level("WARNING", "difffusr.notify"):
        assert ends(end) is end
    assert "interrupted" in caplog.text


@pytest.mark.parametrize("keys", [{"url": None, "url_env": "UNSET_HOOK"}, {"secret_env": "UNSET_SECRET"}])
def test_a_variable_that_is_not_set_is_said_at_the_beginning_and_nothing_is_sent(ends, server, caplog, keys):
    with caplog.at_level("WARNING", "difffusr"):
        assert isinstance(ends(result(publication=PUBLISHED), **keys), RunResult)
    (record,) = [record for record in caplog.records if record.name == "difffusr.notify"]
    assert "is not set in the environment; nobody is told how this run ends" in record.getMessage()
    assert server.got == []


def test_the_url_may_come_from_the_environment(ends, server, monkeypatch):
    monkeypatch.setenv("HOOK", server.url)
    ends(result(publication=PUBLISHED), url=None, url_env="HOOK")
    assert [got.path for got in server.got] == ["/services/T0/HOOKSECRET"]


@pytest.mark.parametrize("sections", [{}, {"notify": None}, {"notify": {}}, {"notify": {"events": ["failed"]}}])
def test_by_default_nobody_is_told(monkeypatch, tmp_path: Path, sections: dict[str, Any]) -> None:
    def asked(*_: Any) -> None:
        raise AssertionError("a message was sent")

    monkeypatch.setattr(notices, "post", asked)
    monkeypatch.setattr(execution, "_carry_out", lambda _run: result(publication=PUBLISHED))
    config = load_config(written(tmp_path, **sections))
    assert execution.execute(config, Silent()).exit_code == 0


def test_neither_keys_nor_plans_nor_what_is_shown_depend_on_it(tmp_path: Path) -> None:
    def loaded(**sections: Any) -> RunConfig:
        return load_config(written(tmp_path, **sections))

    quiet, told = loaded(), loaded(notify={"url": "https://hooks.example/HOOKSECRET", "events": ["failed"]})
    assert json.dumps(told.canonical()) == json.dumps(quiet.canonical())
    assert "HOOKSECRET" not in f"{told!r} {told}"
    derived = loaded(
        notify={"url_env": "HOOK"}, derived=[{"name": "europe", "crs": "EPSG:3035", "url": "europe.zarr"}]
    ).of_derived("europe")
    assert derived.notify.url_env == "HOOK"


def test_the_log_as_json_does_not_hold_the_url(ends, server, tmp_path: Path) -> None:
    from difffusr.pipeline.watch.log import json_lines

    lines = json_lines(tmp_path / "log.jsonl", "luxembourg")
    logger = logging.getLogger("difffusr")
    logger.addHandler(lines)
    before, logger.level = logger.level, logging.INFO
    try:
        ends(result(publication=PUBLISHED))
    finally:
        logger.level = before
        logger.removeHandler(lines)
        lines.close()
    text = (tmp_path / "log.jsonl").read_text()
    assert '"ended"' in text
    assert "SECRET" not in text
