"""The graph of a run: plan → read → super-resolve → stage on Ray Data, shards as their chips come in, then publish."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import ray
import ray.data

from difffusr.pipeline.assemble.overviews import write_overviews
from difffusr.pipeline.assemble.shards import ShardStream, ShardWork
from difffusr.pipeline.chips.resolver import PinnedResolver
from difffusr.pipeline.chips.staging import delete_chip, done_chips
from difffusr.pipeline.chips.stream import chip_dataset
from difffusr.pipeline.chips.table import LEFT, in_squares
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.cube.store import store_of
from difffusr.pipeline.engine.board import Watchdog, put_up
from difffusr.pipeline.engine.pool import await_node, gpus_per_actor
from difffusr.pipeline.engine.session import cluster
from difffusr.pipeline.geo.grid import grid_of
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.plan.decision import plan_run
from difffusr.pipeline.plan.diff import compare
from difffusr.pipeline.plan.files import copy_plan, read_plan
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.run.cost.estimates import enforce_budget
from difffusr.pipeline.run.result import RunResult, write_report
from difffusr.pipeline.run.stop import Stop, Stopped, end_at_once, hearing
from difffusr.pipeline.run.work import Work, find_overviews, find_work, places_of
from difffusr.pipeline.storage.lease import Lease
from difffusr.pipeline.storage.places import cube_staging_of, staging_of, storage_of
from difffusr.pipeline.watch.metrics import Meters
from difffusr.pipeline.watch.progress import Progress
from difffusr.pipeline.watch.pulse import Pulse
from difffusr.pipeline.watch.pulse import RunStatus as Standing

log = logging.getLogger("difffusr.run")


#: A run never stops for fewer failed chips than this, however few it has in all.
_FEW_FAILED = 10


#: Seconds between two looks at what the cluster has: an autoscaler adds nodes, and takes them away.
_FOLLOW_S = 10.0


#: The share of the cluster's cores that may write shards while chips are computed.
_SHARD_SHARE = 0.25


def execute(config: RunConfig, progress: Progress, resolver: type[PinnedResolver] | None = None) -> RunResult:
    """Run a configuration from catalogue to published cube. What is already done is not done again.

    Args:
        resolver: the actor that holds the models, where it is not the usual one.

    Raises:
        DifffusrError: the run cannot go on; everything staged so far stays for the next attempt.
        Stopped: SIGTERM came before the first chip was begun.
    """
    progress.start("plan", 1)
    check_stores(config)
    run = f"{config.name}, {config.period.label}"
    lease = Lease.acquire(cube_staging_of(config), run, lambda text: log.warning("%s", text))
    pulse = Pulse(staging_of(config), Standing(config.name, config.period.label))
    try:
        result = _execute(config, _Watch(progress, lease, pulse, resolver))
    except (KeyboardInterrupt, Stopped):
        pulse.end("stopped")
        raise
    except BaseException as error:
        pulse.end("failed", first_line(error))
        raise
    else:
        pulse.end("stopped" if result.stopped else "published")
        return result
    finally:
        lease.release()


def check_stores(config: RunConfig) -> None:
    """Raise StoreError where cube or staging folder cannot be written: before anything is computed."""
    store_of(storage_of(config)).check_writable()
    staging_of(config).check_writable()


@dataclass(frozen=True)
class _Watch:
    """What accompanies a run from its beginning to its end."""

    progress: Progress
    lease: Lease
    pulse: Pulse
    resolver: type[PinnedResolver] | None


def _execute(config: RunConfig, watch: _Watch) -> RunResult:
    started = time.monotonic()
    with hearing(end_at_once, signal.SIGTERM):
        plan = plan_run(config)
        work = find_work(config, plan)
    watch.progress.advance("plan")
    result = RunResult(plan)
    result.seconds["plan"] = time.monotonic() - started
    result.reused, result.kept = int((~work.wanted).sum()), int((~work.todo).sum())
    watch.pulse.update(
        chips=len(plan.chips), chips_done=result.reused, shards=len(plan.shards), shards_done=result.kept
    )
    if work.complete:
        write_report(config, result)
        return result
    reasons = _say_why(config, plan, work, result)
    stop = Stop()
    meters = None
    # Published before the cluster is left: what is told of it goes out with Ray's metrics.
    with cluster(config), stop.on_signals():
        watch.lease.on_lost(stop.request)
        if work.todo.any():
            enforce_budget(config, plan, result.reused)
            work.target.begin()
            meters = _compute(config, plan, work, result, watch, stop)
        _judge_failures(config, plan, result, stop)
        result.stopped = stop.requested or not _published(config, plan, work, result, watch, stop)
        watch.lease.check()
        if meters is not None and result.publication is not None:
            meters.published()
    if not result.stopped:
        write_report(config, result, reasons)
    return result


def _say_why(config: RunConfig, plan: Plan, work: Work, result: RunResult) -> dict[str, str]:
    """Why each shard of a published period is written again; empty for a new period."""
    staging = staging_of(config)
    if not work.revises or not staging.exists("published/manifest.json"):
        return {}
    difference = compare(read_plan(staging, "published"), plan)
    words: dict[str, str] = {}
    for name, changed, reason in zip(plan.shards.names(), work.changed, difference.shard_reasons, strict=True):
        if changed:
            words[name] = reason.words if reason is not None else "was not complete, or not as the ledger says"
            result.reasons[words[name]] = result.reasons.get(words[name], 0) + 1
            log.info("shard %s is written again: %s", name, words[name], extra={"shard": name, "reason": words[name]})
    for text, shards in result.reasons.items():
        log.warning("%d of %d shards of a published period are written again: %s", shards, len(plan.shards), text)
    return words


def _compute(config: RunConfig, plan: Plan, work: Work, result: RunResult, watch: _Watch, stop: Stop) -> Meters:
    """Chips through the engine, shards behind them; returns what tells Ray's metrics of them."""
    started = time.monotonic()
    positions = in_squares(plan, work.wanted)
    board = put_up()
    meters = _metered(config, watch, result)
    watchdog = Watchdog(board, config.failures.stall_minutes * 60, lambda _: meters.actor_restarted("stall"))
    watch.progress.start("chips", len(plan.chips), result.reused)
    watch.progress.start("shards", len(plan.shards), result.kept)
    shards = _shard_stream(config, plan, work, watch)
    # Beside actors that fill the cores a shard's task must not ask for one of its own.
    beside = 1.0 if gpus_per_actor(config) else 0.1

    def follow() -> int:
        """Take note of what the cluster has now; returns its cores."""
        resources, prices = ray.cluster_resources(), config.costs.prices
        gpus, cores = resources.get("GPU", 0.0), max(1, int(resources.get("CPU", 1)))
        watch.pulse.holds(gpus, cores, prices.gpu_hour, prices.cpu_hour, config.costs.currency)
        shards.use(beside, max(1, int(cores * _SHARD_SHARE)))
        return cores

    follow()
    for tell in (board.stop.remote, shards.halt):
        stop.then(tell)
    try:
        if len(positions):
            await_node(config, lambda: stop.requested)
        if len(positions) and not stop.requested:
            dataset = chip_dataset(config, plan, positions, staging_of(config), board, watch.resolver)
            _run_engine(config, plan, dataset, shards, result, watch, meters, stop, _now_and_then(follow))
        if result.skipped:
            log.info("%d of %d chips were spared the networks (skip)", result.skipped, result.computed)
        result.seconds["chips"] = time.monotonic() - started
        started = time.monotonic()
        shards.use(1.0, follow())
    finally:
        watchdog.stop()
        ray.kill(board)  # workers that wait for other work would hold on to it
        if stop.requested:
            shards.halt()
        done = shards.finish()
        result.written = done.written
        result.kept += len(done.same)
        result.work["shard"] = done.seconds
        work.changed[done.same] = False
    result.seconds["shards"] = time.monotonic() - started
    return meters


def _metered(config: RunConfig, watch: _Watch, result: RunResult) -> Meters:
    """Meters that the pulse keeps up to date."""
    meters, plan = Meters(config.name, config.period.label), result.plan
    meters.plan(len(plan.chips), result.reused, len(plan.shards), result.kept)
    held = [watch.pulse.now.gpu_hours]

    def tell(now: Standing) -> None:
        meters.chips_done(now.chips_done)
        meters.shards_written(now.shards_done)
        meters.stalled(watch.pulse.still_s)
        meters.lease_age(watch.lease.age_s)
        meters.gpu((now.gpu_hours - held[0]) * 3600)
        held[0] = now.gpu_hours

    watch.pulse.watch(tell)
    return meters


def _shard_stream(config: RunConfig, plan: Plan, work: Work, watch: _Watch) -> ShardStream:
    seen = {epsg: work.target.published(epsg) for epsg in plan.zones()}
    names = plan.shards.names()

    def is_seen(i: int, digest: str) -> bool:
        entry = work.ledger.latest(names[i], seen[int(plan.shards.epsg[i])])
        return entry is not None and entry.digest == digest

    def advance() -> None:
        watch.progress.advance("shards")
        watch.pulse.shard_done()

    fill = config.failures.on_failed == "fill"
    return ShardStream(
        ShardWork(plan, work.todo, work.numbers, work.staged, is_seen, fill),
        work.target,
        grid_of(config),
        staging_of(config),
        work.ledger,
        advance,
        keep_chips=config.store.keep_chips,
        with_std=config.model.uncertainty_samples > 0,
    )


def _run_engine(
    config: RunConfig,
    plan: Plan,
    dataset: ray.data.Dataset,
    shards: ShardStream,
    result: RunResult,
    watch: _Watch,
    meters: Meters,
    stop: Stop,
    follow: Callable[[], None],
) -> None:
    """Pull chips through the engine and pass on what became of each."""
    limit = max(config.failures.max_failed * len(plan.chips), _FEW_FAILED)
    try:
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
            batch = {name: column[batch["fate"] != LEFT] for name, column in batch.items()}
            failed = np.array([bool(error) for error in batch["error"]], bool)
            for name, error in zip(batch["name"][failed], batch["error"][failed], strict=True):
                result.failed[str(name)] = str(error)
                reason = meters.chip_failed(str(error))
                watch.pulse.chip_failed(str(name), reason, str(error))
                log.warning("chip %s failed: %s", name, error, extra={"chip": str(name), "reason": reason})
            for step in ("read", "resolve", "stage"):
                result.work[step] = result.work.get(step, 0.0) + float(batch[f"{step}_s"].sum())
            result.computed += int((~failed).sum())
            result.skipped += int(batch["skipped"][~failed].sum())
            watch.pulse.chip_done(int((~failed).sum()))
            shards.staged(batch["position"][~failed])
            shards.failed(batch["position"][failed])
            for _ in failed:
                watch.progress.advance("chips")
            follow()
            if len(result.failed) > limit:
                stop.request(_too_many(config, plan, result))
    except ray.exceptions.RayError as error:
        stop.request()
        raise DifffusrError(
            f"the cluster could not go on ({first_line(error)}); what is staged is kept: run again to continue"
        ) from None


def _now_and_then(do: Callable[[], object]) -> Callable[[], None]:
    """Do it at most once in `_FOLLOW_S`, however often it is called."""
    last = time.monotonic()

    def call() -> None:
        nonlocal last
        if time.monotonic() - last >= _FOLLOW_S:
            last = time.monotonic()
            do()

    return call


def _too_many(config: RunConfig, plan: Plan, result: RunResult) -> DifffusrError:
    chip, reason = next(iter(result.failed.items()))
    share = len(result.failed) / len(plan.chips)
    return DifffusrError(
        f"{len(result.failed)} of {len(plan.chips)} chips failed ({share:.0%}, failures.max_failed is "
        f"{config.failures.max_failed:.0%}), nothing was published; the first, {chip}: {reason}"
    )


def _judge_failures(config: RunConfig, plan: Plan, result: RunResult, stop: Stop) -> None:
    """Raise DifffusrError where chips failed and the cube must not be published without them."""
    if stop.why is not None:
        raise stop.why
    if stop.requested or not result.failed:
        return
    chip, reason = next(iter(result.failed.items()))
    if len(result.failed) == len(plan.chips):
        raise DifffusrError(f"all {len(plan.chips)} chips failed, nothing was published; the first, {chip}: {reason}")
    if config.failures.on_failed == "refuse":
        raise DifffusrError(
            f"{len(result.failed)} of {len(plan.chips)} chips failed and failures.on_failed is 'refuse': nothing was "
            f"published; run again to try them again; the first, {chip}: {reason}"
        )


def _published(config: RunConfig, plan: Plan, work: Work, result: RunResult, watch: _Watch, stop: Stop) -> bool:
    """Bring over what stays as it is, make the overviews, and put the new state before readers; False where a stop was
    requested meanwhile."""
    watch.lease.check()
    started, staging = time.monotonic(), staging_of(config)
    overviews = find_overviews(config, plan, work)
    if work.changed.any() or work.gone or overviews.changed or not work.revises:
        work.target.begin()
        places = places_of(plan)
        rewritten = {place for place, changed in zip(places, work.changed, strict=True) if changed}
        work.target.settle({*places, *overviews.made_of}, {*rewritten, *overviews.changed})
        result.overviews = len(overviews.todo)
        watch.progress.start("overviews", len(overviews.made_of), len(overviews.made_of) - result.overviews)
        done = write_overviews(
            overviews, work.target, staging, lambda: watch.progress.advance("overviews"), lambda: stop.requested
        )
        result.seconds["overviews"] = time.monotonic() - started
        if not done:
            return False
        watch.lease.check()
        started = time.monotonic()
        watch.progress.start("publish", 1)
        seen = [epsg for epsg in plan.zones() if work.target.published(epsg)]
        written = int((work.changed | ~np.isin(plan.shards.epsg, seen)).sum())
        result.publication = work.target.publish(shards_written=written, keep=config.store.keep_revisions)
        copy_plan(staging, "published")
        watch.progress.advance("publish")
    if not (result.failed or config.store.keep_chips):
        for name in done_chips(staging):
            delete_chip(staging, name)
    result.seconds["publish"] = time.monotonic() - started
    return True
