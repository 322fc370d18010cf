"""A run: plan → read → super-resolve → stage, shards as their chips come in, overviews, then publish."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from difffusr.pipeline.assemble import ShardError
from difffusr.pipeline.assemble.continent import ContinentPlan
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import OvertakenError
from difffusr.pipeline.engine import KEEP_FREED, ask_ahead, cluster, nodes_alive, resources
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.run.context import Run
from difffusr.pipeline.run.cost import enforce_budget, enforce_zone_budget
from difffusr.pipeline.run.failures import judge_failures
from difffusr.pipeline.run.kinds import planned, with_source
from difffusr.pipeline.run.limits import ended_by, limited
from difffusr.pipeline.run.mending import documents_mended, let_damage_go, mended, without_damaged
from difffusr.pipeline.run.publishing import finish_what_was_left, publish
from difffusr.pipeline.run.result import RunResult, has_report, write_report
from difffusr.pipeline.run.stop import ASKED, Stopped, end_at_once, hearing
from difffusr.pipeline.run.work import Work, find_work, why_rewritten
from difffusr.pipeline.watch import Notices, Progress, stage_told, tell_cluster, tell_ended, tell_planned, tell_started

if TYPE_CHECKING:
    from difffusr.pipeline.chips import PinnedResolver

log = logging.getLogger("difffusr.run")


def execute(
    config: RunConfig,
    progress: Progress,
    resolver: type[PinnedResolver] | None = None,
    file: Path | None = None,
) -> RunResult:
    """Run a configuration from catalogue to published cube. What is already done is not done again.

    Args:
        resolver: the actor's class where it is not the usual one.
        file: where the configuration is from, for the log.

    Raises:
        DifffusrError: the run cannot go on; everything staged so far stays for the next attempt.
        Stopped: SIGTERM came before the first chip was begun.
    """
    with Notices(config) as notices:
        result = _told(with_source(config), progress, resolver, file, notices)
        notices.ended(result.state, result.failed, result.publication.number if result.publication else None)
    return result


def _told(
    config: RunConfig,
    progress: Progress,
    resolver: type[PinnedResolver] | None,
    file: Path | None,
    notices: Notices,
) -> RunResult:
    """Execute; the log tells beginning and end."""
    began = time.monotonic()
    tell_started(config, file)
    try:
        result = _execute(config, progress, resolver, notices)
    except (KeyboardInterrupt, Stopped) as error:
        tell_ended("stopped", time.monotonic() - began, str(error) or ASKED)
        raise
    except BaseException as error:
        tell_ended("failed", time.monotonic() - began, first_line(error))
        raise
    counts = {name: count for name, count in result.counts().items() if name != "seconds"}
    number = result.publication.number if result.publication else None
    tell_ended(
        result.state, time.monotonic() - began, result.why, result.failed,
        exit_code=result.exit_code, publication=number, stages=result.seconds, **counts,
    )  # fmt: skip
    return result


def _execute(
    config: RunConfig, progress: Progress, resolver: type[PinnedResolver] | None, notices: Notices
) -> RunResult:
    progress.start("plan", 1)
    with Run.begun(config, progress, resolver) as run:
        run.pulse.watch(notices.saw)
        try:
            result = _carry_out(run)
        except (KeyboardInterrupt, Stopped):
            run.pulse.end("stopped")
            raise
        except SystemExit:  # Ray's own answer to a SIGTERM while it starts
            run.pulse.end("stopped")
            raise Stopped from None
        except BaseException as error:
            run.pulse.end("failed", first_line(error))
            raise
        why = result.why if result.why != ASKED else ""
        run.pulse.end("stopped" if result.stopped else "published", why)
        return result


def _carry_out(run: Run) -> RunResult:
    engine = _Engine(run)
    with engine.held:
        work, result = _planned(run, engine)
        if work.complete and not work.wanted.any():
            _leave_whole(run, work, result)
            return result
        with run.stop.on_signals(), limited(run), engine.held:
            engine.start()
            reasons = _compute_and_publish(run, work, result)
    if result.stopped:
        result.why, result.machine_ends = run.stop.reason, run.stop.machine_ends
    if not result.stopped:
        _note_whole(run, result)
        write_report(run, result, reasons)
    return result


def _compute_and_publish(run: Run, work: Work, result: RunResult) -> dict[str, str]:
    """All that there is to do; returns why each shard of a published period is written again."""
    from difffusr.pipeline.run.compute import compute  # the engine imports it while Ray starts

    there = resources()
    tell_cluster(nodes_alive(), there.gpus, there.cpus)
    run.lease.on_lost(run.stop.request)
    if work.todo.any() or work.wanted.any():
        if isinstance(work.plan, ContinentPlan):
            enforce_zone_budget(run.config, work.plan, int(there.cpus), work.todo)
        else:
            enforce_budget(run.config, work.plan, result.reused)
    work = mended(run, work, result)
    reasons = why_rewritten(run, work, result)
    meters = None
    if work.todo.any() or work.wanted.any():
        work, meters = compute(run, work, result)
    judge_failures(run, result)
    result.stopped = run.stop.requested
    if work.complete and not result.stopped:
        finish_what_was_left(run, work, result)
        return reasons
    result.stopped = result.stopped or not _published(run, work, result)
    run.lease.check()
    if meters is not None and result.publication is not None:
        meters.published()  # before Ray, which exports it, is left
    return reasons


#: Times that what is to be published is found damaged, until it must be the disk's fault.
_MOST_MISHAPS = 3


def _published(run: Run, work: Work, result: RunResult) -> bool:
    """As `publish`; what is found damaged is written again before."""
    from difffusr.pipeline.run.compute import compute

    for _ in range(_MOST_MISHAPS):
        try:
            return publish(run, work, result)
        except (ShardError, OvertakenError) as error:
            log.warning("%s; whatever is damaged is written again", error)
            run.lease.check()
        work = without_damaged(run, work)
        if work.todo.any():
            work, _meters = compute(run, work, result)
            judge_failures(run, result)
        if run.stop.requested:
            return False
    return publish(run, work, result)


def _leave_whole(run: Run, work: Work, result: RunResult) -> None:
    """Readers see everything already: do what an earlier driver has left to do, and report."""
    finish_what_was_left(run, work, result)
    _note_whole(run, result)
    write_report(run, result)


def _note_whole(run: Run, result: RunResult) -> None:
    """What `verify` has named is put right, unless chips have failed."""
    if not result.failed:
        let_damage_go(run)


class _Engine:
    """Ray for a run. It is started while the run is planned, where it is all but certain that there is work.

    Attributes:
        held: what ends it.
        seconds: that starting it took.
    """

    def __init__(self, run: Run) -> None:
        self._run, self.held, self.seconds = run, ExitStack(), 0.0
        self._take_back: Callable[[], None] | None = None
        self._started = False

    def found(self, scenes: int) -> None:
        """The search has found so many scenes: the period is computed, unless an earlier run of it came to its end and
        nothing has changed since, which only the plan tells."""
        if scenes and not has_report(self._run):
            self.start()
            config = self._run.config
            if config.budget is None and config.source.cube is None:  # nothing is held that the estimate may refuse
                self._take_back = ask_ahead(config, _ACTORS)

    def planned(self, work: Work) -> None:
        """It is known what there is to do."""
        if self._take_back is not None and not work.wanted.any():
            self._take_back()

    def start(self) -> None:
        """Start it if it is not."""
        if not self._started:
            begun = time.monotonic()
            self.held.enter_context(cluster(self._run.config, KEEP_FREED, _import_what_computes))
            self._started, self.seconds = True, time.monotonic() - begun


#: Where the actors' class is, which imports torch.
_ACTORS = "difffusr.pipeline.chips.resolver"


def _import_what_computes() -> None:
    import difffusr.pipeline.run.compute  # noqa: F401


def _planned(run: Run, engine: _Engine) -> tuple[Work, RunResult]:
    """What there is to do, and a result that says what is done already."""
    started = time.monotonic()
    with hearing(end_at_once, signal.SIGTERM), ended_by(run.ends), stage_told("plan"):
        documents = documents_mended(run)
        plan = planned(run.config, engine.found)
        work = find_work(run, plan)
    engine.planned(work)
    run.progress.advance("plan")
    result = RunResult(plan, reused=int((~work.wanted).sum()), kept=int((~work.todo).sum()), mended=documents)
    result.seconds["plan"] = time.monotonic() - started - engine.seconds
    run.pulse.update(chips=len(plan.chips), chips_done=result.reused, shards=len(plan.shards), shards_done=result.kept)
    wanted, todo = int(work.wanted.sum()), int(work.todo.sum())
    tell_planned(len(plan.scenes), len(plan.chips), wanted, len(plan.shards), todo)
    return work, result
