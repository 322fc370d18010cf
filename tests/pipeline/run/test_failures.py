"""When failed chips end a run, and what it says then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.run.failures import judge_failures, stop_at_too_many
from difffusr.pipeline.run.result import RunResult
from difffusr.pipeline.run.stop import Stop


def run(max_failed: float = 0.1, on_failed: str = "fill") -> Any:
    failures = SimpleNamespace(max_failed=max_failed, on_failed=on_failed)
    return SimpleNamespace(config=SimpleNamespace(failures=failures), stop=Stop())


def result(failed: int, chips: int) -> RunResult:
    plan: Any = SimpleNamespace(chips=range(chips))
    return RunResult(plan, failed={f"chip {i}": "no such file" for i in range(failed)})


def test_a_run_stops_where_more_chips_failed_than_it_allows():
    going_on, stopping = run(), run()
    stop_at_too_many(going_on, result(20, 200))
    assert not going_on.stop.requested
    stop_at_too_many(stopping, result(21, 200))
    with pytest.raises(DifffusrError) as caught:
        judge_failures(stopping, result(21, 200))
    assert str(caught.value) == (
        "21 of 200 chips failed (10%, failures.max_failed is 10%), nothing was published; "
        "the first, chip 0: no such file"
    )


def test_a_few_failed_chips_stop_no_run_however_small_it_is():
    small = run(max_failed=0.0)
    stop_at_too_many(small, result(10, 11))
    assert not small.stop.requested


def test_a_cube_of_failed_chips_alone_is_not_published():
    with pytest.raises(DifffusrError, match="all 4 chips failed, nothing was published"):
        judge_failures(run(), result(4, 4))
    judge_failures(run(), result(3, 4))
    judge_failures(run(), result(0, 4))


def test_a_cube_with_gaps_may_be_refused():
    with pytest.raises(DifffusrError, match=r"1 of 4 chips failed and failures\.on_failed is 'refuse'"):
        judge_failures(run(on_failed="refuse"), result(1, 4))


def test_a_run_that_was_asked_to_stop_is_not_judged():
    stopped = run(on_failed="refuse")
    stopped.stop.request()
    judge_failures(stopped, result(4, 4))
