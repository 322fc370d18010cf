"""The end of a run: overviews, and the new state put before readers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from difffusr.pipeline.assemble import Overviews, write_overviews
from difffusr.pipeline.chips import delete_chip, done_chips
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish import latest_number, latest_since
from difffusr.pipeline.run.context import Run
from difffusr.pipeline.run.damage import check_sizes, positions_of
from difffusr.pipeline.run.kinds import keep_plan
from difffusr.pipeline.run.result import RunResult
from difffusr.pipeline.run.work import Work, find_overviews, places_of
from difffusr.pipeline.storage import read_document
from difffusr.pipeline.watch import tell_published


def publish(run: Run, work: Work, result: RunResult) -> bool:
    """Make the overviews and put the new state before readers, if anything has changed; then delete staged chips.

    Returns:
        False where a stop was requested before all overviews were written: then nothing is published.

    Raises:
        ShardError: something to publish is missing, or not as it was written.
        DifffusrError: the store fails, or the lease is lost.
    """
    run.lease.check()
    with result.timed("overviews"):
        overviews = find_overviews(run, work)
        changes = work.changed.any() or work.gone or overviews.changed or not work.revises
        if changes and not _overviews_written(run, work, overviews, result):
            return False
    with result.timed("publish"):
        if changes:
            _check_written(run, work)
            run.lease.check()
            _show_readers(run, work, result)
        run.lease.check()
        _let_chips_go(run, result)
        if result.publication is not None:
            _note_done(run, result.publication.number)
    return True


def finish_what_was_left(run: Run, work: Work, result: RunResult) -> None:
    """Do what a driver that died after it had published this period did not come to: delete what is not kept, keep the
    plan, let the chips go. `result.publication` is its publication, then.

    Raises:
        DifffusrError: the store fails, or the lease is lost.
    """
    start, end = next(iter(work.draft.zones.values())).period_days
    last_done, latest = _last_done(run), latest_number(run.places.cube_staging)
    left = latest_since(run.places.cube_staging, last_done, f"{start} – {end}")
    if left is None:
        if latest > last_done:
            _note_done(run, latest)  # so that the next run does not read the records up to it again
        return
    run.lease.check()
    work.target.tidy(keep=run.config.store.keep_revisions, again=True)
    keep_plan(work.plan, run.grid, run.staging, "published")
    _let_chips_go(run, result)
    if left.attempt in (*run.lease.holder.after, run.lease.number):
        result.publication = left
        tell_published(left.number, left.kind, left.where, left.shards_written)
    _note_done(run, left.number)


def _let_chips_go(run: Run, result: RunResult) -> None:
    """Delete the staged chips, unless some failed or they are to stay."""
    if not (result.failed or run.config.store.keep_chips):
        for name in done_chips(run.staging):
            run.lease.guard()
            delete_chip(run.staging, name)


#: Object of a run's folder that says up to which publication nothing was left to do.
_DONE = "published/done.json"


@dataclass(frozen=True)
class _Done:
    """Its content: the publication's number."""

    publication: int


def _note_done(run: Run, number: int) -> None:
    run.staging.write(_DONE, json.dumps(asdict(_Done(number))).encode())


def _last_done(run: Run) -> int:
    """Number of a publication up to which nothing was left to do for this period; 0 if that is not known."""
    try:
        return read_document(run.staging, _DONE, _Done, "delete it").publication if run.staging.exists(_DONE) else 0
    except StoreError:
        return 0


def _overviews_written(run: Run, work: Work, overviews: Overviews, result: RunResult) -> bool:
    """Bring over what stays as it is, and write the overviews; whether all of them were."""
    work.target.begin()
    places = places_of(work.plan)
    rewritten = {place for place, changed in zip(places, work.changed, strict=True) if changed}
    work.target.settle({*places, *overviews.made_of}, {*rewritten, *overviews.changed})
    result.overviews = len(overviews.todo)
    run.progress.start("overviews", len(overviews.made_of), len(overviews.made_of) - result.overviews)
    return write_overviews(
        overviews,
        work.target,
        run.staging,
        lambda: run.progress.advance("overviews"),
        lambda: run.stop.requested,
        run.lease.guard,
    )


def _check_written(run: Run, work: Work) -> None:
    """Compare the sizes of what is new to readers with the ledger; of shards, overviews have compared the checksums."""
    overviews, places = find_overviews(run, work), positions_of(work.plan, work.draft)
    written = {place for place, changed in zip(places, work.changed, strict=True) if changed}
    check_sizes(work.target, run.staging, overviews, written | overviews.changed)


def _show_readers(run: Run, work: Work, result: RunResult) -> None:
    run.progress.start("publish", 1)
    seen = [epsg for epsg in work.plan.zones() if work.target.published(epsg)]
    written = int((work.changed | ~np.isin(work.plan.shards.epsg, seen)).sum())
    result.publication = work.target.publish(shards_written=written, keep=run.config.store.keep_revisions)
    keep_plan(work.plan, run.grid, run.staging, "published")
    run.progress.advance("publish")
    new = result.publication
    tell_published(new.number, new.kind, new.where, new.shards_written)
