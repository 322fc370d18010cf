"""Overviews: every shard of a level from the four of the level below, one Ray task a shard, level by level.

A shard of an overview depends only on the shards below it, so its digest is computed from theirs: the ledger shows
which overviews are valid, and which have to be made again because something below them has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import ray

from difffusr.pipeline.assemble.halving import halve_memory, write_overview
from difffusr.pipeline.assemble.ledger import OVERVIEWS, Entry, Ledger, Written, enter
from difffusr.pipeline.cube import CubeDraft
from difffusr.pipeline.engine import dispatch, task_options
from difffusr.pipeline.geo import NAME_DIGITS, OverviewIndex, PlaceName, ShardIndex
from difffusr.pipeline.publish import Receipt, Target
from difffusr.pipeline.storage import Storage

#: Part of every digest: changing it makes all overviews again.
_ALGORITHM = "mean of valid, half to even; mode: 1"

#: Tasks submitted at a time, at least.
_LEAST_AHEAD = 4

#: A shard of a zone's overview.
OverviewPlace = tuple[int, OverviewIndex]


@dataclass(frozen=True)
class Overviews:
    """The overviews of a period.

    Attributes:
        made_of: every planned shard, by zone and place, lower levels first, with the shards that it is made of.
        digests: of all of them.
        changed: those that readers see differently or not at all.
        todo: those of `changed` that are not written yet.
        lost: those whose objects are gone although readers should see them.
        entries: the ledger's entry of what is written of shards and overviews.
    """

    made_of: Mapping[OverviewPlace, Sequence[OverviewIndex]]
    digests: Mapping[OverviewPlace, str]
    changed: AbstractSet[OverviewPlace]
    todo: AbstractSet[OverviewPlace]
    lost: AbstractSet[OverviewPlace]
    entries: Mapping[OverviewPlace, Entry] = field(default_factory=dict)


def plan_overviews(
    draft: CubeDraft,
    target: Target,
    staging: Storage,
    shards: Mapping[tuple[int, ShardIndex], str],
    lost: AbstractSet[OverviewPlace] = frozenset(),
    entries: Mapping[tuple[int, ShardIndex], Entry] | None = None,
) -> Overviews:
    """The overviews of a period, and which of them to write, by the ledger and the store.

    Args:
        staging: the run's folder.
        shards: digest of every shard of the period, by zone and place.
        lost: those to make again even if the ledger has them.
        entries: the ledger's entries of the shards, to compare their checksums when overviews are made of them.

    Raises:
        StoreError: the store refuses.
    """
    made_of, digests = _pyramid(draft, shards)
    ledger, present = Ledger.read(staging, OVERVIEWS), target.present().keys()
    seen = {epsg: target.published(epsg) for epsg in draft.zones}
    coming = {epsg: target.lineage(epsg) for epsg in draft.zones}
    changed, todo, gone = set(), set(), set()
    known = {(epsg, draft.zones[epsg].position(at, draft.grid)): entry for (epsg, at), entry in (entries or {}).items()}
    for (epsg, at), digest in digests.items():
        name = overview_name(epsg, at)
        there = present >= set(draft.shard_objects(epsg, at))
        if not _says(ledger.latest(name, seen[epsg]), digest) or (epsg, at) in lost:
            changed.add((epsg, at))
        elif not there and not draft.zones[epsg].revised:
            gone.add((epsg, at))
        entry = ledger.latest(name, coming[epsg])
        if not (there and _says(entry, digest)):
            todo.add((epsg, at))
        elif entry is not None:
            known[epsg, at] = entry
    return Overviews(made_of, digests, changed, changed & todo, gone, known)


def _pyramid(
    draft: CubeDraft, shards: Mapping[tuple[int, ShardIndex], str]
) -> tuple[dict[OverviewPlace, list[OverviewIndex]], dict[OverviewPlace, str]]:
    """What every shard of an overview is made of, and its digest, level by level."""
    made_of: dict[OverviewPlace, list[OverviewIndex]] = {}
    digests: dict[OverviewPlace, str] = {}
    below = {(epsg, draft.zones[epsg].position(shard, draft.grid)): digest for (epsg, shard), digest in shards.items()}
    while below:
        made: dict[OverviewPlace, list[OverviewIndex]] = {}
        for epsg, child in sorted(below):
            if child.level < draft.zones[epsg].overviews:
                made.setdefault((epsg, child.parent), []).append(child)
        of_level = {}
        for (epsg, at), children in made.items():
            parts = [(child.row % 2, child.col % 2, below[epsg, child]) for child in children]
            of_level[epsg, at] = hashlib.sha256(json.dumps([_ALGORITHM, parts]).encode()).hexdigest()[:NAME_DIGITS]
        made_of |= made
        digests |= of_level
        below = of_level
    return made_of, digests


def _says(entry: Entry | None, digest: str) -> bool:
    return entry is not None and entry.digest == digest


def overview_name(epsg: int, at: OverviewIndex) -> str:
    """Name of a shard of an overview in the ledger."""
    return str(PlaceName(epsg, at.row, at.col, at.level))


def write_overviews(
    overviews: Overviews,
    target: Target,
    staging: Storage,
    advance: Callable[[], None],
    stopped: Callable[[], bool],
    guard: Callable[[], None] = lambda: None,
) -> bool:
    """Write the overviews to do on the cluster, level by level; returns whether all were written.

    Args:
        staging: the run's folder.
        advance: called for every finished shard.
        stopped: whether to start no further shard.
        guard: raises where this driver may write no more; called before every step.

    Raises:
        ShardError: a shard is missing, or not as it was written.
        DifffusrError: the store fails, or the lease is lost.
    """
    ledger, entries = Ledger.read(staging, OVERVIEWS), dict(overviews.entries)
    for _, places in groupby(sorted(overviews.todo, key=lambda place: place[1].level), lambda place: place[1].level):
        level = list(places)
        guard()
        for epsg, at in level:
            for entry in ledger.in_states(overview_name(epsg, at), target.replaced(epsg)):
                staging.delete(entry.object_name)  # before its pixels change
        for done in _level_written(level, overviews, target, staging, entries, stopped):
            guard()
            written = [_entered(overviews, target, *one) for one in done]
            enter(staging, target, written)
            for (place, _), one in zip(done, written, strict=True):
                entries[place] = one.entry
                advance()
        if stopped():
            return False
    return True


def _level_written(
    level: Sequence[OverviewPlace],
    overviews: Overviews,
    target: Target,
    staging: Storage,
    entries: Mapping[OverviewPlace, Entry],
    stopped: Callable[[], bool],
) -> Iterator[list[tuple[OverviewPlace, Receipt]]]:
    """Write the shards of one level; yields receipts as tasks end."""
    draft, writer = target.draft, ray.put(target.writer(level=level[0][1].level))
    with_std = any(zone.uncertainty_samples for zone in draft.zones.values())
    with_looks = any(zone.composite != "none" for zone in draft.zones.values())
    memory = halve_memory(draft.grid, with_std=with_std, with_looks=with_looks)
    task = ray.remote(write_overview).options(**task_options(1, memory))

    def begin(place: OverviewPlace) -> Any:
        epsg, children = place[0], overviews.made_of[place]
        known = {child: entries[epsg, child].object_name for child in children if (epsg, child) in entries}
        return task.remote(writer, *place, children, staging, known)

    def limit() -> int:
        """More than there are cores: an autoscaler starts nodes for waiting tasks."""
        return max(_LEAST_AHEAD, int(2 * ray.cluster_resources().get("CPU", 1)))

    return dispatch(deque(level), begin, limit, stopped)


def _entered(overviews: Overviews, target: Target, place: OverviewPlace, receipt: Receipt) -> Written:
    """A finished shard with its entry."""
    entry = Entry(overview_name(*place), overviews.digests[place], target.state(place[0]), OVERVIEWS)
    return Written(entry, receipt, {})
