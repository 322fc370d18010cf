"""When failed chips end a run."""

from __future__ import annotations

from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.run.context import Run
from difffusr.pipeline.run.result import RunResult

#: A run never stops for fewer failed chips than this, however few it has in all.
_FEW_FAILED = 10


def stop_at_too_many(run: Run, result: RunResult) -> None:
    """Request a stop where more chips failed than `failures.max_failed` allows."""
    failed, chips, allowed = len(result.failed), len(result.plan.chips), run.config.failures.max_failed
    if failed <= max(allowed * chips, _FEW_FAILED):
        return
    run.stop.request(
        DifffusrError(
            f"{failed} of {chips} chips failed ({failed / chips:.0%}, failures.max_failed is {allowed:.0%}), nothing "
            f"was published; {_first(result)}"
        )
    )


def judge_failures(run: Run, result: RunResult) -> None:
    """Raise DifffusrError where chips failed and the cube must not be published without them."""
    if run.stop.why is not None:
        raise run.stop.why
    if run.stop.requested or not result.failed:
        return
    failed, chips = len(result.failed), len(result.plan.chips)
    if failed == chips:
        raise DifffusrError(f"all {chips} chips failed, nothing was published; {_first(result)}")
    if run.config.failures.on_failed == "refuse":
        raise DifffusrError(
            f"{failed} of {chips} chips failed and failures.on_failed is 'refuse': nothing was published; run again to "
            f"try them again; {_first(result)}"
        )


def _first(result: RunResult) -> str:
    chip, reason = next(iter(result.failed.items()))
    return f"the first, {chip}: {reason}"
