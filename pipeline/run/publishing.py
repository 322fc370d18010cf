"""The end of a run: overviews, and the new state put before readers."""

from __future__ import annotations

import numpy as np

from difffusr.pipeline.assemble import Overviews, write_overviews
from difffusr.pipeline.chips import delete_chip, done_chips
from difffusr.pipeline.plan import copy_plan
from difffusr.pipeline.run.context import Run
from difffusr.pipeline.run.result import RunResult
from difffusr.pipeline.run.work import Work, find_overviews, places_of
from difffusr.pipeline.watch import tell_published


def publish(run: Run, work: Work, result: RunResult) -> bool:
    """Make the overviews and put the new state before readers, if anything has changed; then delete staged chips.

    Returns:
        False where a stop was requested before all overviews were written: then nothing is published.

    Raises:
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
            run.lease.check()
            _show_readers(run, work, result)
        if not (result.failed or run.config.store.keep_chips):
            for name in done_chips(run.staging):
                delete_chip(run.staging, name)
    return True


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
    )


def _show_readers(run: Run, work: Work, result: RunResult) -> None:
    run.progress.start("publish", 1)
    seen = [epsg for epsg in work.plan.zones() if work.target.published(epsg)]
    written = int((work.changed | ~np.isin(work.plan.shards.epsg, seen)).sum())
    result.publication = work.target.publish(shards_written=written, keep=run.config.store.keep_revisions)
    copy_plan(run.staging, "published")
    run.progress.advance("publish")
    new = result.publication
    tell_published(new.number, new.kind, new.where, new.shards_written)
