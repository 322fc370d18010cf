"""A message arrives signed; it is sent again while that helps, within its time; no failure shows the URL."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from beside import ROOT
from hook_server import HookServer, hook_server
from stac_server import free_port

from difffusr.pipeline.config.notify import NotifySection
from difffusr.pipeline.watch import hook as hooks
from difffusr.pipeline.watch.hook import Hook, UntoldError, post

MESSAGE = {"id": "msg_1", "text": "luxembourg, 2023-06: published, größer"}


@pytest.fixture
def server(monkeypatch) -> Iterator[HookServer]:
    monkeypatch.setattr(hooks, "_FIRST_PAUSE_S", 0.01)
    with hook_server() as server:
        yield server


def sent(server: HookServer, secret: str | None = "SIGNING", patience_s: float = 5.0) -> None:
    post(Hook(server.url, secret), MESSAGE, "difffusr/test", patience_s)


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("SIGNING", b"SIGNING"),
        ("größer, mit Leerzeichen", "größer, mit Leerzeichen".encode()),
        ("x" * 200, b"x" * 200),
        (f"whsec_{base64.b64encode(b'sixteen bytes...').decode()}", b"sixteen bytes..."),
    ],
)
def test_a_message_is_signed_with_the_secret_and_its_time(server: HookServer, secret: str, key: bytes) -> None:
    sent(server, secret)
    (got,) = server.got
    assert got.message == MESSAGE
    assert got.signed_with(key)
    assert not got.signed_with(b"other")
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 5
    assert (got.headers["content-type"], got.headers["webhook-id"]) == ("application/json", "msg_1")


def test_without_a_secret_it_is_not_signed(server: HookServer) -> None:
    sent(server, None)
    assert "webhook-signature" not in server.got[0].headers


@pytest.mark.parametrize("answer", [500, 502, 503, 504, 429, 408, 0])
def test_it_is_sent_again_where_that_may_help(server: HookServer, answer: int) -> None:
    server.answers = [(answer, {}), (answer, {})]
    sent(server)
    assert [got.message for got in server.got] == [MESSAGE] * 3
    assert all(got.signed_with(b"SIGNING") for got in server.got)
    assert len({got.headers["webhook-id"] for got in server.got}) == 1


@pytest.mark.parametrize("answer", [400, 401, 403, 404, 410, 413, 303, 304])
def test_an_answer_that_will_not_change_is_the_last(server: HookServer, answer: int) -> None:
    server.answers = [(answer, {})]
    with pytest.raises(UntoldError, match=f"^it answers with HTTP {answer}$"):
        sent(server)
    assert len(server.got) == 1


def test_an_hour_s_pause_is_not_waited_for(server: HookServer) -> None:
    server.answers = [(429, {"retry-after": "3600"})]
    began = time.monotonic()
    with pytest.raises(UntoldError, match="HTTP 429"):
        sent(server)
    assert time.monotonic() - began < 2
    assert len(server.got) == 1


@pytest.mark.parametrize(
    ("asked", "at_least"),
    [("0", 0), ("1", 1), ("", 0), ("soon", 0), ("-5", 0), ("Sun, 01 Jan 2023 00:00:00 GMT", 0)],
)
def test_the_pause_is_the_one_that_is_asked_for(server: HookServer, asked: str, at_least: float) -> None:
    server.answers = [(429, {"retry-after": asked})]
    began = time.monotonic()
    sent(server)
    assert at_least <= time.monotonic() - began < at_least + 0.8
    assert len(server.got) == 2


def test_a_pause_may_be_a_date() -> None:
    asked = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    assert 18 < hooks._asked_pause({"retry-after": asked}) <= 20


def test_a_server_that_never_answers_is_not_waited_for(server: HookServer) -> None:
    server.answers = [(-1, {})]
    began = time.monotonic()
    with pytest.raises(UntoldError, match="no answer within"):
        sent(server, patience_s=0.3)
    assert time.monotonic() - began < 1


def test_a_server_that_stays_broken_is_given_up(server: HookServer) -> None:
    server.answers = [(503, {})] * 1000
    with pytest.raises(UntoldError, match="HTTP 503"):
        sent(server, patience_s=0.2)
    asked = len(server.got)
    assert 2 < asked < 10
    time.sleep(0.2)
    assert len(server.got) == asked, "nothing is sent once it is given up"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_followed_on_the_same_server_alone(server: HookServer, status: int) -> None:
    server.answers = [(status, {"location": "/elsewhere"})]
    sent(server)
    assert [got.path for got in server.got] == ["/services/T0/HOOKSECRET", "/elsewhere"]
    assert server.got[1].signed_with(b"SIGNING")
    with hook_server() as other:
        server.answers = [(status, {"location": other.url})]
        with pytest.raises(
            UntoldError, match=r"^it redirects to 127\.0\.0\.1:[0-9]+; if that is right, name that URL$"
        ):
            sent(server)
        assert other.got == []


def test_redirects_have_an_end(server: HookServer) -> None:
    server.answers = [(307, {"location": "/on"})] * 100
    with pytest.raises(UntoldError, match="without end"):
        sent(server)
    assert len(server.got) == 4


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/HOOKSECRET", "https://user:HOOKSECRET@127.0.0.1:{port}/a?b=HOOKSECRET"]
)
def test_nobody_listens_and_nothing_secret_is_said(monkeypatch, url: str) -> None:
    monkeypatch.setattr(hooks, "_FIRST_PAUSE_S", 0.01)
    hook = Hook(url.format(port=free_port()), "HOOKSECRET")
    with pytest.raises(UntoldError, match=r"^no connection$") as caught:
        post(hook, MESSAGE, "difffusr/test", 0.1)
    assert "HOOKSECRET" not in f"{caught.value!r} {hook!r} {hook.host}"


def test_a_server_without_tls_is_refused_at_once(server: HookServer) -> None:
    with pytest.raises(UntoldError, match="certificate"):
        post(Hook(server.url.replace("http:", "https:"), None), MESSAGE, "difffusr/test", 5)
    assert server.got == []


def test_the_readme_s_lines_tell_a_genuine_message_from_others(server: HookServer) -> None:
    (lines,) = re.findall(
        r"```python\n(import base64, hmac.*?)```", (ROOT / "pipeline/config/README.md").read_text(), re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(lines, names)
    is_genuine = names["is_genuine"]
    sent(server)
    (got,) = server.got
    assert is_genuine(got.headers, got.body, "SIGNING")
    assert not is_genuine(got.headers, got.body, "OTHER")
    assert not is_genuine(got.headers, got.body + b" ", "SIGNING")
    late = {**got.headers, "webhook-timestamp": str(int(got.headers["webhook-timestamp"]) - 1000)}
    assert not is_genuine(late, got.body, "SIGNING")


def section(**keys: object) -> NotifySection:
    return NotifySection.model_validate(keys)


def test_url_and_secret_come_from_the_environment() -> None:
    hook = Hook.of(section(url_env="HOOK", secret_env="KEY"), {"HOOK": " https://a.example/x\n", "KEY": "s3cret"})
    assert hook == Hook("https://a.example/x", "s3cret")
    assert Hook.of(section(url="https://a.example/x"), {}) == Hook("https://a.example/x", None)
    assert Hook.of(section(), {}) is None


@pytest.mark.parametrize(
    ("keys", "environment", "said"),
    [
        ({"url_env": "HOOK"}, {}, "HOOK (notify.url_env) is not set in the environment"),
        ({"url_env": "HOOK"}, {"HOOK": " "}, "HOOK (notify.url_env) is not set in the environment"),
        ({"url_env": "HOOK"}, {"HOOK": "http://a.example/X"}, "HOOK (notify.url_env) does not hold an https:// URL"),
        ({"url_env": "HOOK"}, {"HOOK": "https:///X"}, "HOOK (notify.url_env) does not hold an https:// URL"),
        (
            {"url": "https://a.example", "secret_env": "KEY"},
            {},
            "KEY (notify.secret_env) is not set in the environment",
        ),
        (
            {"url": "https://a.example", "secret_env": "KEY"},
            {"KEY": "whsec_%%X"},
            "KEY (notify.secret_env) is not base64 after whsec_",
        ),
    ],
)
def test_a_variable_that_does_not_hold_it_is_named(keys: dict, environment: dict, said: str) -> None:
    with pytest.raises(UntoldError) as caught:
        Hook.of(section(**keys), environment)
    assert str(caught.value) == said
