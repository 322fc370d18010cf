"""Chips through the engine, and shards as soon as their chips are staged."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from difffusr.pipeline.assemble import ShardResult, ShardStream, ShardWork
from difffusr.pipeline.chips import LEFT, Batch, chip_dataset, in_squares
from difffusr.pipeline.engine import (
    Preempted,
    Preemptions,
    Watchdog,
    await_node,
    gpus_per_actor,
    resources,
    start_board,
)
from difffusr.pipeline.geo import place_names
from difffusr.pipeline.ground.errors import DifffusrError, StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.plan import Plan, plan_run
from difffusr.pipeline.run.context import Run
from difffusr.pipeline.run.failures import stop_at_too_many
from difffusr.pipeline.run.kinds import shard_maker
from difffusr.pipeline.run.result import RunResult
from difffusr.pipeline.run.work import Work, find_work
from difffusr.pipeline.scenes import Unread
from difffusr.pipeline.watch import Meters, RunStatus, tell_given_back, tell_preempted

log = logging.getLogger("difffusr.run")


def compute(run: Run, work: Work, result: RunResult) -> tuple[Work, Meters]:
    """Compute the chips that are wanted and write the shards that are left.

    Scenes that cannot be read are set aside, and the chips that would have shown them are planned anew: rounds end when
    every chip is made or has no scene left. A staged chip that is not what was written is computed again in a round of
    its own.

    Returns:
        the work as planned last, and the driver's meters.

    Raises:
        DifffusrError: the store, the cluster or the catalogue fails.
    """
    meters = _meters_of(run, result)
    run.progress.start("chips", len(work.plan.chips), result.reused)
    run.progress.start("shards", len(work.plan.shards), result.kept)
    mishaps = 0
    while True:
        done = _compute_round(run, work, result, meters)
        if run.stop.requested or not (result.unread or done.broken or done.overtaken):
            return work, meters
        mishaps += bool(done.broken or done.overtaken)
        if done.broken:
            _say_broken(run, done.broken, mishaps)
        if done.overtaken:
            _say_overtaken(run, done.overtaken, mishaps)
        work = _without_unreadable(run, work, result) if result.unread else find_work(run, work.plan)


#: Rounds in which staged chips were broken, until it must be the disk's fault.
_MOST_MISHAPS = 5


def _say_broken(run: Run, broken: Collection[str], mishaps: int) -> None:
    """Warn of staged chips that were not what was written.

    Raises:
        StoreError: it happens again and again.
    """
    first, where = min(broken), f"{run.staging.url}/chips"
    if mishaps >= _MOST_MISHAPS:
        raise StoreError(
            f"{where}: staged chips are not what was written, again and again, such as {first}; check that disk or "
            "store, and run again: what is whole is kept"
        )
    log.warning("%s: %d chips were not what was written, such as %s; computed again", where, len(broken), first)


def _say_overtaken(run: Run, names: Collection[str], mishaps: int) -> None:
    """Warn of shards that somebody else has written meanwhile.

    Raises:
        StoreError: it happens again and again.
        LeaseError: it was a driver that has taken over.
    """
    run.lease.check()
    first = min(names)
    if mishaps >= _MOST_MISHAPS:
        raise StoreError(
            f"{run.places.cube.url}: somebody else writes shards, again and again, such as {first}; end that driver, "
            "and run again"
        )
    log.warning(
        "%d shards, such as %s, were written by a driver that this one has taken over; written again", len(names), first
    )


def _without_unreadable(run: Run, work: Work, result: RunResult) -> Work:
    """The work that is left once the scenes that could not be read are set aside. Chips whose scenes stay the same,
    since there are no others, are given up."""
    unread, before = result.unread, _keys(work.plan)
    plan = plan_run(run.config, unread)
    now = _keys(plan)
    result.given_up.update(chip for chip in unread if now.get(chip) == before[chip])
    result.unread = {}
    result.plan = plan
    return find_work(run, plan)


def _keys(plan: Plan) -> dict[str, bytes]:
    """Each chip's content key."""
    c = plan.chips
    return dict(zip(place_names(c.epsg, c.row, c.col), map(bytes, c.key), strict=True))


def _compute_round(run: Run, work: Work, result: RunResult, meters: Meters) -> ShardResult:
    """One round; returns what became of the shards."""
    work.target.begin()
    board = start_board()
    watchdog = Watchdog(board, run.config.failures.stall_minutes * 60, lambda _: meters.actor_restarted("stall"))
    preemptions = Preemptions(board, lambda one: _note_preempted(run, meters, one))
    shards = _shard_stream(run, work)
    run.stop.then(board.stop.remote)
    run.stop.then(shards.halt)
    size = _ClusterSize(run, shards)
    try:
        with result.timed("chips"):
            _compute_chips(run, work, board, _Notes(run, result, meters, shards, size))
        size.give_all_to_shards()
    finally:
        watchdog.stop()
        preemptions.stop()
        ray.kill(board)  # workers that wait for other work would hold on to it
        with result.timed("shards"):
            done = _finish_shards(run, work, result, shards)
    return done


def _note_preempted(run: Run, meters: Meters, one: Preempted) -> None:
    """An actor's machine is about to go, or such an actor has ended."""
    if one.given_back is None:
        tell_preempted(one.worker.host, one.source, one.seconds, one.chips)
        run.pulse.actor_preempted()
        meters.actor_preempted()
    elif one.given_back:
        tell_given_back(one.worker.host, one.given_back)
        run.pulse.given_back(one.given_back)
        meters.given_back(one.given_back)


def _compute_chips(run: Run, work: Work, board: Any, notes: _Notes) -> None:
    """Pull the wanted chips through the engine, and note what became of each."""
    positions = in_squares(work.plan, work.wanted)
    if len(positions):
        await_node(run.config, lambda: run.stop.requested)
    if not len(positions) or run.stop.requested:
        return
    dataset = chip_dataset(run.config, work.plan, positions, board, run.resolver)
    try:
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
            notes.take(batch)
    except ray.exceptions.RayError as error:
        run.stop.request()
        raise DifffusrError(
            f"the cluster could not go on ({first_line(error)}); what is staged is kept: run again to continue"
        ) from None
    if notes.result.skipped:
        skipped, computed = notes.result.skipped, notes.result.computed
        log.info("%d of %d chips skipped the networks (skip)", skipped, computed, extra={"event": "skipped"})


@dataclass(frozen=True)
class _Notes:
    """Takes note of what became of chips: in the result, the meters, the pulse and the progress, and for the shards."""

    run: Run
    result: RunResult
    meters: Meters
    shards: ShardStream
    size: _ClusterSize

    def take(self, batch: Batch) -> None:
        """Note the chips of a batch, columns as `chip_dataset` has them."""
        run, result = self.run, self.result
        batch = {name: column[batch["fate"] != LEFT] for name, column in batch.items()}
        failed = np.array([bool(error) for error in batch["error"]], bool)
        unread = zip(batch["name"], batch["unread"], strict=True)
        waits = np.array([self._waits(str(name), str(scenes)) for name, scenes in unread], bool)
        for name, error in zip(batch["name"][failed & ~waits], batch["error"][failed & ~waits], strict=True):
            self._failed(str(name), str(error))
        for name in batch["name"][~failed]:
            result.failed.pop(str(name), None)  # it failed in an earlier round
        for step in ("read", "resolve", "stage"):
            result.work[step] = result.work.get(step, 0.0) + float(batch[f"{step}_s"].sum())
        run.pace.chips(batch)
        computed = int((~failed).sum())
        result.computed += computed
        result.skipped += int(batch["skipped"][~failed].sum())
        run.pulse.chip_done(computed)
        self.shards.staged(batch["position"][~failed])
        self.shards.failed(batch["position"][failed & ~waits])
        for _ in failed[~waits]:
            run.progress.advance("chips")
        self.size.follow()
        stop_at_too_many(run, result)

    def _waits(self, name: str, unread: str) -> bool:
        """Whether a chip may be made without the scenes that could not be read, a JSON list."""
        if not unread or name in self.result.given_up:
            return False
        self.result.unread[name] = [Unread(*one) for one in json.loads(unread)]
        return True

    def _failed(self, name: str, error: str) -> None:
        self.result.failed[name] = error
        reason = self.meters.chip_failed(error)
        self.run.pulse.chip_failed(name, reason, error)
        log.warning("chip %s failed: %s", name, error, extra={"chip": name, "reason": reason})


#: Seconds between two checks of what the cluster has: an autoscaler adds nodes, and takes them away.
_FOLLOW_S = 10.0

#: The share of the cluster's cores that may write shards while chips are computed.
_SHARD_SHARE = 0.25


class _ClusterSize:
    """Follows what the cluster has: the pulse counts its hours, and shards use a share of its cores."""

    def __init__(self, run: Run, shards: ShardStream) -> None:
        self._run, self._shards = run, shards
        # Beside actors that fill the cores a shard's task must not ask for one of its own.
        self._cpus = 1.0 if gpus_per_actor(run.config, resources().gpus) else 0.1
        self._noted = 0.0
        self._note()

    def follow(self) -> None:
        """Note it again, at most once in `_FOLLOW_S` however often this is called."""
        if time.monotonic() - self._noted >= _FOLLOW_S:
            self._note()

    def give_all_to_shards(self) -> None:
        """No chips are computed any more: shards may use every core."""
        self._shards.use(1.0, self._note())

    def _note(self) -> int:
        """Note it; returns the cores."""
        there, costs = resources(), self._run.config.costs
        cores = max(1, int(there.cpus))
        self._run.pulse.holds(there.gpus, cores, costs.prices.gpu_hour, costs.prices.cpu_hour, costs.currency)
        self._shards.use(self._cpus, max(1, int(cores * _SHARD_SHARE)))
        self._noted = time.monotonic()
        return cores


def _shard_stream(run: Run, work: Work) -> ShardStream:
    plan, config = work.plan, run.config
    seen = {epsg: work.target.published(epsg) for epsg in plan.zones()}
    names = plan.shards.names()

    def is_seen(i: int, digest: str) -> bool:
        entry = work.ledger.latest(names[i], seen[int(plan.shards.epsg[i])]) if work.damage is None else None
        return entry is not None and entry.digest == digest

    def advance(seconds: float) -> None:
        run.progress.advance("shards")
        run.pulse.shard_done()
        run.pace.shard(seconds)

    fill = config.failures.on_failed == "fill"
    maker = shard_maker(config, plan, work.numbers)
    return ShardStream(
        ShardWork(plan, work.todo, work.numbers, work.staged, is_seen, maker, fill, run.lease.guard),
        work.target,
        run.staging,
        work.ledger,
        advance,
        keep_chips=config.store.keep_chips,
    )


def _finish_shards(run: Run, work: Work, result: RunResult, shards: ShardStream) -> ShardResult:
    """Wait for the shards whose chips are staged; for those begun where a stop was requested."""
    if run.stop.requested:
        shards.halt()
    done = shards.finish()
    work.target.close()
    result.written += done.written
    result.kept += len(done.same)
    result.work["shard"] = result.work.get("shard", 0.0) + done.seconds
    work.changed[done.same] = False
    return done


def _meters_of(run: Run, result: RunResult) -> Meters:
    """The driver's meters, which the pulse keeps up to date."""
    meters, plan = Meters(run.config.name, run.config.period.label), result.plan
    meters.plan(len(plan.chips), result.reused, len(plan.shards), result.kept)
    held = run.pulse.now.gpu_hours

    def tell(now: RunStatus) -> None:
        nonlocal held
        meters.chips_done(now.chips_done)
        meters.shards_written(now.shards_done)
        meters.stalled(run.pulse.still_s)
        meters.lease_age(run.lease.age_s)
        meters.gpu((now.gpu_hours - held) * 3600)
        held = now.gpu_hours

    run.pulse.watch(tell)
    return meters
