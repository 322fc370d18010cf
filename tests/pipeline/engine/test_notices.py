"""Who gives notice that a machine is taken away: a file, and stand-ins of AWS's and Google's metadata services."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from difffusr.pipeline.engine import notices
from difffusr.pipeline.engine.notices import (
    FILE_VARIABLE,
    MOST_ERRORS,
    USUAL_S,
    AwsSource,
    FileSource,
    GcpSource,
    Notice,
    Watch,
    hear_sigterm,
    sources_of,
)


class Metadata:
    """A metadata service on this machine: what it answers, and what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Callable[[str, str, Any], tuple[int, str, dict[str, str]]]] = []
        self.asked: list[tuple[str, str]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.asked.append((self.command, self.path))
                status, text, headers = outer.answer(self.command, self.path, self.headers)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = answer  # noqa: N815

            def log_message(self, *_: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        raise NotImplementedError


class Aws(Metadata):
    token, action = "one", ""

    def answer(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        if (method, path) == ("PUT", "/latest/api/token"):
            return (200, self.token, {}) if headers["X-aws-ec2-metadata-token-ttl-seconds"] else (400, "", {})
        if headers["X-aws-ec2-metadata-token"] != self.token:
            return 401, "", {}
        there = path == "/latest/meta-data/spot/instance-action" and self.action
        return (200, self.action, {}) if there else (404, "", {})


class Gcp(Metadata):
    state, etag, flavor = "FALSE", "ab1", "Google"

    def answer(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        if headers["Metadata-Flavor"] != "Google":
            return 403, "", {}
        found = path.split("?")[0] == "/computeMetadata/v1/instance/preempted"
        return (200 if found else 404), self.state, {"ETag": self.etag, "Metadata-Flavor": self.flavor}


@pytest.fixture
def aws() -> Iterator[Aws]:
    service = Aws()
    yield service
    service.server.shutdown()


@pytest.fixture
def gcp() -> Iterator[Gcp]:
    service = Gcp()
    yield service
    service.server.shutdown()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in (FILE_VARIABLE, "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_DISABLED", "GCE_METADATA_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", USUAL_S), ("12", 12), ("0.5", 0.5), ("soon", USUAL_S), ("-3", USUAL_S), ("nan", USUAL_S), ("1e99", USUAL_S)],
)
def test_a_file_gives_notice_by_being_there_and_may_say_when(tmp_path, text, seconds):
    file = FileSource(str(tmp_path / "notice"))
    assert file.look() is None
    (tmp_path / "notice").write_text(text)
    notice = file.look()
    assert notice is not None
    assert notice.seconds == pytest.approx(seconds, abs=0.3)


def test_seconds_count_from_when_the_file_was_written(tmp_path):
    file = tmp_path / "notice"
    file.write_text("100")
    os.utime(file, (time.time() - 60, time.time() - 60))
    assert FileSource(str(file)).look().seconds == pytest.approx(40, abs=0.5)


def test_one_folder_serves_many_machines(tmp_path):
    (tmp_path / socket.gethostname()).touch()
    assert FileSource(f"{tmp_path}/{{host}}").look() is not None


@pytest.mark.parametrize(
    ("action", "written"),
    [("terminate", "%Y-%m-%dT%H:%M:%SZ"), ("stop", "%Y-%m-%dT%H:%M:%SZ"), ("hibernate", "%Y-%m-%dT%H:%M:%S+00:00")],
)
def test_aws_says_what_it_does_and_when(aws, action, written):
    source = AwsSource(aws.base)
    assert source.look() is None
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=120)
    aws.action = json.dumps({"action": action, "time": ends.strftime(written)})
    notice = source.look()
    assert notice is not None
    assert notice.source == f"aws: {action}"
    assert notice.seconds == pytest.approx(120, abs=1.5)


def test_aws_is_asked_for_a_token_once_and_again_when_that_has_run_out(aws):
    source = AwsSource(aws.base)
    assert [source.look() for _ in range(3)] == [None] * 3
    aws.token = "two"
    assert [source.look() for _ in range(2)] == [None] * 2
    assert [method for method, _ in aws.asked].count("PUT") == 2


@pytest.mark.parametrize(
    "said", ["", "no JSON", "[]", '{"action": "terminate"}', '{"time": "tomorrow"}', '{"time": null}', '"x"']
)
def test_what_aws_would_never_say_is_no_notice(aws, said):
    aws.action = said or " "
    with pytest.raises((ValueError, KeyError)):
        AwsSource(aws.base).look()


def test_google_is_first_asked_how_it_is_and_then_what_changes(gcp):
    source = GcpSource(gcp.base)
    assert source.look() is None
    gcp.state, gcp.etag = "TRUE", "ab2"
    notice = source.look()
    assert notice is not None
    assert notice.seconds == pytest.approx(30, abs=1)
    first, second = (path for _, path in gcp.asked)
    assert "wait_for_change" not in first  # else a notice that was given before would never be heard
    assert "wait_for_change=true" in second
    assert "last_etag=ab1" in second


@pytest.mark.parametrize(("state", "flavor"), [("<html>", "Google"), ("", "Google"), ("TRUE", "Portal"), ("TRUE", "")])
def test_who_is_not_google_s_metadata_server_gives_no_notice(gcp, state, flavor):
    gcp.state, gcp.flavor = state, flavor
    with pytest.raises(ValueError, match=r"neither TRUE nor FALSE|not of Google's"):
        GcpSource(gcp.base).look()


def test_no_proxy_is_asked_about_this_machine(aws, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert AwsSource(aws.base).look() is None


def machine(folder: Path, **files: str) -> Path:
    """A description of a machine as the system gives it."""
    for name, text in files.items():
        file = folder / {"uuid": "hypervisor/uuid"}.get(name, f"class/dmi/id/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "variables", "found"),
    [
        ({}, {}, []),
        ({"sys_vendor": "QEMU\n", "product_name": "Standard PC\n"}, {}, []),
        ({"sys_vendor": "Amazon EC2\n", "product_name": "g5.xlarge\n"}, {}, [AwsSource]),
        ({"uuid": "ec2ab345-0000\n"}, {}, [AwsSource]),
        ({"sys_vendor": "Amazon EC2\n"}, {"AWS_EC2_METADATA_DISABLED": "true"}, []),
        ({"sys_vendor": "Google\n", "product_name": "Google Compute Engine\n"}, {}, [GcpSource]),
        ({}, {FILE_VARIABLE: "/run/notice"}, [FileSource]),
        ({}, {"GCE_METADATA_HOST": "127.0.0.1:1"}, [GcpSource]),
        ({}, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"}, [AwsSource]),
    ],
)
def test_only_who_may_take_this_machine_away_is_asked(tmp_path, monkeypatch, files, variables, found):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert [type(source) for source in sources_of("auto", machine(tmp_path, **files))] == found
    assert sources_of("none", machine(tmp_path, **files)) == []


@pytest.mark.parametrize(("wanted", "found"), [("aws", AwsSource), ("gcp", GcpSource), ("none", None), ("file", None)])
def test_who_is_named_is_asked_on_any_machine(tmp_path, wanted, found):
    assert [type(source) for source in sources_of(wanted, tmp_path)] == ([found] if found else [])


class Told:
    """Answers one after the other; the last one again and again."""

    name, pause_s = "test", 0.0

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), 0

    def look(self) -> Notice | None:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def heard(*sources: Told, within_s: float = 5.0) -> list[Notice]:
    found: list[Notice] = []
    came = threading.Event()
    watch = Watch(sources, lambda notice: (found.append(notice), came.set()))
    came.wait(within_s)
    watch.stop()
    time.sleep(0.02)
    return found


def test_a_notice_is_heard_once_whoever_gives_it(monkeypatch):
    monkeypatch.setattr(notices, "_AFTER_ERROR_S", 0.0)
    notice = Notice("test", time.time() + 30)
    assert heard(Told(None, None, notice)) == [notice]
    assert heard(Told(OSError("no route"), ValueError("odd"), KeyError("time"), notice)) == [notice]
    assert heard(Told(notice), Told(notice), Told(None)) == [notice]


def test_who_never_answers_is_asked_no_more_and_that_is_said(monkeypatch, caplog):
    monkeypatch.setattr(notices, "_AFTER_ERROR_S", 0.0)
    silent = Told(OSError("no route"))
    assert heard(silent, within_s=0.3) == []
    assert silent.asked == MOST_ERRORS
    (said,) = caplog.messages
    assert said.startswith("no notice of preemption will be heard from test here, it failed")
    assert f" {MOST_ERRORS} times in a row (no route); " in said


def test_who_answers_in_the_end_is_warned_of_by_nobody(monkeypatch, caplog):
    monkeypatch.setattr(notices, "_AFTER_ERROR_S", 0.0)
    late = Told(*[OSError("no route")] * (MOST_ERRORS - 1), None)
    assert heard(late, within_s=0.3) == []
    assert late.asked > MOST_ERRORS
    assert not caplog.messages


def test_a_file_that_nobody_has_named_is_said(monkeypatch, caplog):
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    assert sources_of("file") == []
    assert f"{FILE_VARIABLE} is not set here" in caplog.text
    caplog.clear()
    sources_of("auto", Path("/nowhere"))
    assert not caplog.messages


def test_where_nobody_may_give_notice_nothing_is_started():
    before = threading.active_count()
    Watch([], lambda _: None)
    assert threading.active_count() == before


def test_a_signal_is_a_notice():
    before = signal.getsignal(signal.SIGTERM)
    found: list[Notice] = []
    came = threading.Event()
    try:
        hear_sigterm(lambda notice: (found.append(notice), came.set()))
        os.kill(os.getpid(), signal.SIGTERM)
        assert came.wait(5)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found[0].source == "SIGTERM"
    assert 20 < found[0].seconds <= USUAL_S
