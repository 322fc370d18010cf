"""What is damaged put right: documents first, then published shards in place, last what has to be written anew."""

from __future__ import annotations

import logging
from dataclasses import replace

from difffusr.pipeline.assemble import ShardError, overview_name, write_overviews
from difffusr.pipeline.chips import delete_chip
from difffusr.pipeline.publish import Scope, finish_publishing, mend_documents
from difffusr.pipeline.run.context import Run
from difffusr.pipeline.run.damage import Damage, broken_chips, damage_to_come, forget_damage
from difffusr.pipeline.run.named import Damaged, note_damaged, read_damaged
from difffusr.pipeline.run.result import RunResult
from difffusr.pipeline.run.work import Work, find_overviews, find_work

log = logging.getLogger("difffusr.run")


def documents_mended(run: Run) -> list[str]:
    """Put the cube's documents and coordinates back as its history has them, and say so; returns their paths.

    Raises:
        StoreError: the store refuses, or the root is missing and the history cannot say what it was.
    """
    cube, cube_staging = run.places.cube, run.places.cube_staging
    finish_publishing(cube, cube_staging, run.lease)
    period = run.config.period.start, run.config.period.end
    scope = Scope(period, read_damaged(run.staging).documents)  # not every month again
    mended = mend_documents(cube, cube_staging, run.lease, scope)
    if mended:
        log.warning("%s: %s: missing or damaged; put back as the history has them", cube.url, _some(mended))
    return mended


def mended(run: Run, work: Work, result: RunResult) -> Work:
    """Write published shards and overviews that are damaged again, with the very bytes that they had; what comes out
    otherwise, or cannot be replaced, is left to the work that is returned: then it is part of a new revision.

    Raises:
        DifffusrError: the store, the cluster or the catalogue fails.
    """
    damage, names = work.damage, set(_names(work))
    if damage is None:
        return work
    log.warning("%s: missing or damaged: written again", _some(names))
    if damage.sums:
        if work.todo.any():
            from difffusr.pipeline.run.compute import compute  # the engine imports it while Ray starts

            work, _ = compute(run, work, result)
        if work.damage is not None and not run.stop.requested:
            _mend_overviews(run, work, work.damage)
        work.target.close()
    if run.stop.requested:
        return work
    work = find_work(run, work.plan)
    if work.damage is not None:
        names -= set(_names(work))
        forget_damage(work.plan, work.damage, work.target, run.staging)
        work = find_work(run, work.plan)
    result.mended += sorted(names)
    return work


def _mend_overviews(run: Run, work: Work, damage: Damage) -> None:
    run.lease.check()
    overviews = replace(find_overviews(run, work), changed=damage.overviews, todo=damage.overviews)
    work.target.begin()
    try:
        write_overviews(
            overviews, work.target, run.staging, lambda: None, lambda: run.stop.requested, run.lease.guard
        )  # fmt: skip
    except ShardError as error:
        log.warning("%s", error)  # what it is made of came out otherwise


def without_damaged(run: Run, work: Work) -> Work:
    """The work that is left once everything that is to be published and is not as it was written is forgotten.

    Raises:
        StoreError: the store cannot be read.
    """
    damage = damage_to_come(work.plan, work.target, run.staging, find_overviews(run, work))
    forget_damage(work.plan, damage, work.target, run.staging)
    return find_work(run, work.plan)


def let_damage_go(run: Run) -> None:
    """Nothing that `verify` has named is damaged any more; staged chips that nobody needs are deleted."""
    for name in broken_chips(run.staging, read_damaged(run.staging).chips):
        run.lease.guard()
        delete_chip(run.staging, name)
    note_damaged(run.staging, Damaged())


def _names(work: Work) -> list[str]:
    """Of the damaged shards and overviews."""
    damage = work.damage
    if damage is None:
        return []
    shards = [name for name, wrong in zip(work.plan.shards.names(), damage.shards, strict=True) if wrong]
    return shards + [overview_name(*place) for place in sorted(damage.overviews)]


def _some(names: list[str] | set[str]) -> str:
    """Some names, to be displayed."""
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5:,} more" if len(listed) > 5 else "")
