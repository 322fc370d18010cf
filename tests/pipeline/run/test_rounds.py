"""What becomes of chips in the rounds of a run: made, failed, or to be planned anew without what cannot be read."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from difffusr.pipeline.chips.batch import LEFT, TO_STAGE, Batch
from difffusr.pipeline.run.compute import _Notes
from difffusr.pipeline.run.pace import Pace
from difffusr.pipeline.run.result import RunResult
from difffusr.pipeline.scenes.chip import Unread
from difffusr.pipeline.watch.metrics import Meters

BROKEN = Unread("S2A", "B05", "scene S2A, B05: cut short")


class Told:
    """Takes note of what shards, progress and pulse are told."""

    def __init__(self) -> None:
        self.staged_chips: list[int] = []
        self.failed_chips: list[int] = []
        self.advanced = 0

    def staged(self, positions: np.ndarray) -> None:
        self.staged_chips += positions.tolist()

    def failed(self, positions: np.ndarray) -> None:
        self.failed_chips += positions.tolist()

    def advance(self, _: str) -> None:
        self.advanced += 1

    def chip_done(self, _: int) -> None: ...

    def chip_failed(self, *_: str) -> None: ...

    def follow(self) -> None: ...


def batch(*rows: tuple[str, str, list[Unread]], fate: int = TO_STAGE) -> Batch:
    names, errors, unread = zip(*rows, strict=True)
    columns: dict[str, Any] = {
        "name": names,
        "error": errors,
        "unread": [json.dumps(some) if some else "" for some in unread],
    }
    seconds = dict.fromkeys(("read_s", "resolve_s", "stage_s"), np.zeros(len(rows)))
    positions = np.arange(len(rows))
    flags = {"position": positions, "fate": np.full(len(rows), fate), "skipped": np.zeros(len(rows), bool)}
    return {name: np.array(column, object) for name, column in columns.items()} | flags | seconds


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def result() -> RunResult:
    return RunResult(plan=SimpleNamespace(chips=range(100)))  # type: ignore[arg-type]


@pytest.fixture
def notes(told: Told, result: RunResult) -> _Notes:
    failures = SimpleNamespace(max_failed=0.01)
    run = SimpleNamespace(config=SimpleNamespace(failures=failures), progress=told, pulse=told, pace=Pace())
    return _Notes(run, result, Meters("june", "2024-06"), told, told)  # type: ignore[arg-type]


def test_a_chip_with_a_scene_that_cannot_be_read_waits_for_another_plan(notes, told, result) -> None:
    notes.take(batch(("1/0_0", "", []), ("1/0_1", BROKEN.why, [BROKEN]), ("1/0_2", "no memory", [])))
    assert result.unread == {"1/0_1": [BROKEN]}
    assert result.failed == {"1/0_2": "no memory"}
    assert (told.staged_chips, told.failed_chips, told.advanced, result.computed) == ([0], [2], 2, 1)


def test_a_chip_without_other_scenes_has_failed(notes, told, result) -> None:
    result.given_up.add("1/0_1")
    notes.take(batch(("1/0_1", BROKEN.why, [BROKEN])))
    assert (result.unread, result.failed) == ({}, {"1/0_1": BROKEN.why})
    assert (told.failed_chips, told.advanced) == ([0], 1)


def test_a_chip_that_is_made_in_a_later_round_has_not_failed(notes, told, result) -> None:
    notes.take(batch(("1/0_2", "its server is busy", [])))
    notes.take(batch(("1/0_2", "", [])))
    assert (result.failed, result.computed, told.staged_chips) == ({}, 1, [0])


def test_chips_that_wait_are_never_too_many(notes, told, result) -> None:
    notes.take(batch(*((f"1/0_{col}", BROKEN.why, [BROKEN]) for col in range(90))))
    assert len(result.unread) == 90
    assert not result.failed
    assert told.advanced == 0


def test_a_chip_that_was_not_begun_is_nothing_yet(notes, told, result) -> None:
    notes.take(batch(("1/0_0", "", []), fate=LEFT))
    assert (result.computed, told.staged_chips, told.advanced) == (0, [], 0)
