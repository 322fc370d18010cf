"""A busy server is asked again when it says so, and not much later; what will not pass is not asked for again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from bad_http import BadServer, Fault, bad_server
from pystac_client.exceptions import APIError

from difffusr.pipeline.scenes import requests
from difffusr.pipeline.scenes.requests import PatientIO, no_answer


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadServer]:
    monkeypatch.setattr(requests, "_FIRST_PAUSE_S", 0.01)
    (tmp_path / "a.json").write_text("{}")
    with bad_server(tmp_path) as server:
        yield server


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that servers asked for, which are not made."""
    found: list[float] = []
    monkeypatch.setattr(requests, "time", SimpleNamespace(sleep=found.append))
    return found


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("3600", 30, 30),
        (20, 10, 20),
        (7200, 30, 30),
        (-60, 0, 0),
        ("soon", 0, 0),
        ("", 0, 0),
    ],
    ids=["seconds", "at once", "too long", "a date", "a date too far", "a date that has passed", "nonsense", "nothing"],
)
def test_a_busy_server_is_given_the_time_it_asks_for_within_reason(
    slept: list[float], status: int, asked: str | int, least: float, most: float
) -> None:
    if isinstance(asked, int):  # a date so many seconds from now
        asked = format_datetime(datetime.now(UTC) + timedelta(seconds=asked), usegmt=True)
    requests._pause_as_told(SimpleNamespace(status_code=status, headers={"Retry-After": asked}))
    assert least <= sum(slept) <= most


@pytest.mark.parametrize("status", [200, 404, 500])
def test_other_answers_are_not_waited_upon(slept: list[float], status: int) -> None:
    requests._pause_as_told(SimpleNamespace(status_code=status, headers={"Retry-After": "7"}))
    assert slept == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_four_times(served: BadServer, status: int) -> None:
    served.misbehave("/a.json", Fault("status", status))
    with pytest.raises(APIError) as caught:
        PatientIO(1.0).fetch(f"{served.url}/a.json")
    assert caught.value.status_code == status
    assert served.times_asked("/a.json") == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_what_will_not_pass_is_tried_once(served: BadServer, status: int) -> None:
    served.misbehave("/a.json", Fault("status", status))
    with pytest.raises(APIError):
        PatientIO(1.0).fetch(f"{served.url}/a.json")
    assert served.times_asked("/a.json") == 1


@pytest.mark.parametrize("kind", ["truncated", "stall halfway", "reset", "stall"])
@pytest.mark.parametrize("method", ["fetch", "request"])
def test_an_answer_that_breaks_off_is_asked_for_again(served: BadServer, kind: str, method: str) -> None:
    served.misbehave("/a.json", Fault(kind, times=2))  # type: ignore[arg-type]
    assert getattr(PatientIO(0.3), method)(f"{served.url}/a.json") in ("{}", b"{}")
    assert served.times_asked("/a.json") == 3


def test_no_try_begins_once_patience_is_over(served: BadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(requests, "_ATTEMPTS", 100)
    served.misbehave("/a.json", Fault("status", 503))
    began = time.monotonic()
    with pytest.raises(APIError):
        PatientIO(1.0).fetch(f"{served.url}/a.json")
    assert time.monotonic() - began < 3
    assert 1 < served.times_asked("/a.json") < 100


def test_no_answer_is_explained_in_few_words(served: BadServer) -> None:
    served.misbehave("/a.json", Fault("stall"))
    with pytest.raises(APIError) as caught:
        PatientIO(0.1).fetch(f"{served.url}/a.json?sig=SECRET")
    assert no_answer(caught.value) == "Read timed out. (read timeout=0.1)"
