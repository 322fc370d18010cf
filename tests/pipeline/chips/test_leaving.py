"""How an actor leaves when its machine is taken away."""

from __future__ import annotations

import threading
import time

import pytest

from difffusr.pipeline.chips import leaving
from difffusr.pipeline.chips.leaving import GoingError, Leaving
from difffusr.pipeline.engine.notices import Notice


class Actor:
    """Who leaves, what is told of it, and whether its process has ended."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.ended = threading.Event()
        self.leaving = Leaving(self, self.ended.set)

    def going(self, source: str, seconds: float) -> None:
        self.told.append(f"going: {source}, {seconds:.0f} s")

    def gone(self, source: str) -> None:
        self.told.append(f"gone: {source}")

    def hear(self, seconds: float = 30.0, source: str = "test") -> None:
        notice = Notice(source, time.time() + seconds)
        threading.Thread(target=self.leaving.hear, args=(notice,), daemon=True).start()
        wait_until(lambda: bool(self.told))


def wait_until(is_so) -> None:
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def _handed_over_soon(monkeypatch):
    monkeypatch.setattr(leaving, "HAND_OVER_S", 0.1)


def test_who_has_nothing_to_do_ends_at_once():
    actor = Actor()
    actor.hear()
    assert actor.ended.wait(0.5)
    assert actor.told == ["going: test, 30 s", "gone: test"]


def test_what_is_in_flight_is_finished_and_handed_over_and_nothing_is_begun():
    actor = Actor()
    actor.leaving.begin(1)
    actor.leaving.begin(2)
    actor.hear()
    with pytest.raises(GoingError):
        actor.leaving.begin(3)
    actor.leaving.end(3)  # it returns without having begun
    actor.leaving.end(1)
    assert not actor.ended.wait(0.05)
    actor.leaving.end(2)
    assert not actor.ended.wait(0.05)  # its result is still on its way
    assert actor.ended.wait(1)


def test_what_takes_longer_than_the_time_that_is_left_is_given_back_at_once():
    actor = Actor()
    actor.leaving.begin(1)
    time.sleep(0.3)
    actor.leaving.end(1)  # a call takes so long
    actor.leaving.begin(2)
    actor.hear(seconds=0.25)
    assert actor.ended.wait(0.15)


def test_what_takes_no_longer_than_that_is_waited_for():
    actor = Actor()
    actor.leaving.begin(1)
    time.sleep(0.1)
    actor.leaving.end(1)
    actor.leaving.begin(2)
    actor.hear(seconds=5)
    assert not actor.ended.wait(0.15)


def test_of_what_was_never_measured_is_given_back_what_has_not_ended_in_time():
    actor = Actor()
    actor.leaving.begin(1)
    actor.hear(seconds=0.4)
    assert not actor.ended.wait(0.1)
    assert actor.ended.wait(0.5)


def test_a_second_notice_changes_nothing():
    actor = Actor()
    actor.leaving.begin(1)
    actor.hear()
    actor.hear(seconds=0, source="another")
    assert not actor.ended.wait(0.1)
    assert actor.told == ["going: test, 30 s"]


def test_a_machine_that_goes_at_some_time_is_left_when_the_work_is_done():
    actor = Actor()
    actor.leaving.begin(1)
    actor.hear(seconds=float("inf"))
    assert not actor.ended.wait(0.1)
    actor.leaving.end(1)
    assert actor.ended.wait(1)
