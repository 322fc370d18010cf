"""Overviews: every shard of a level from the four of the level below, one Ray task a shard, level by level.

What a shard of an overview holds follows from the shards below it, so that its digest is one of theirs: the ledger
tells which overviews hold, and which are to be made again because something below them has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import dask.threaded
import numpy as np
import ray
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from difffusr.kernels.bands import BANDS
from difffusr.kernels.images.pyramid import average_2x, mode_2x
from difffusr.pipeline.assemble.ledger import DIGITS, OVERVIEWS, Entry, Ledger, write_entry
from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.engine.session import result_of
from difffusr.pipeline.geo.grid import OverviewIndex, ShardIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.pixels import STD_FILL
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.publish.target import Receipt, ShardWriter, Target
from difffusr.pipeline.storage.objects import STORE_FAILURES, Storage

#: Part of every digest: another one makes all overviews anew.
_ALGORITHM = "mean of valid, half to even; mode: 1"


#: Requests to the staging folder at a time.
_REQUESTS = 8


#: Seconds between two looks at what has ended.
_POLL_S = 0.2


#: So many shards are asked for at a time, however few cores there are.
_LEAST_AHEAD = 4


#: A shard of a zone's overview.
OverviewPlace = tuple[int, OverviewIndex]


@dataclass(frozen=True)
class Overviews:
    """Those of a period.

    Attributes:
        made_of: every shard that there is to be, by zone and place, lower levels first, with those that it is made of.
        digests: of all of them.
        changed: those that readers do not see like this.
        todo: those of them that are not written yet.
        lost: those whose objects are gone although readers should see them.
    """

    made_of: Mapping[OverviewPlace, Sequence[OverviewIndex]]
    digests: Mapping[OverviewPlace, str]
    changed: AbstractSet[OverviewPlace]
    todo: AbstractSet[OverviewPlace]
    lost: AbstractSet[OverviewPlace]


def plan_overviews(
    draft: CubeDraft,
    target: Target,
    staging: Storage,
    shards: Mapping[tuple[int, ShardIndex], str],
    lost: AbstractSet[OverviewPlace] = frozenset(),
) -> Overviews:
    """The overviews of a period, and what of them is to be done, by the ledger and the store.

    Args:
        staging: the run's folder.
        shards: digest of every shard of the period, by zone and place.
        lost: those to be made again whatever the ledger says.

    Raises:
        StoreError: the store refuses.
    """
    made_of, digests = _pyramid(draft, shards)
    ledger, present = Ledger.read(staging, OVERVIEWS), target.present()
    seen = {epsg: target.published(epsg) for epsg in draft.zones}
    coming = {epsg: target.lineage(epsg) for epsg in draft.zones}
    changed, todo, gone = set(), set(), set()
    for (epsg, at), digest in digests.items():
        name = overview_name(epsg, at)
        there = present >= set(draft.shard_objects(epsg, at))
        if not _says(ledger.latest(name, seen[epsg]), digest) or (epsg, at) in lost:
            changed.add((epsg, at))
        elif not there and not draft.zones[epsg].revised:
            gone.add((epsg, at))
        if not (there and _says(ledger.latest(name, coming[epsg]), digest)):
            todo.add((epsg, at))
    return Overviews(made_of, digests, changed, changed & todo, gone)


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
            told = [(child.row % 2, child.col % 2, below[epsg, child]) for child in children]
            of_level[epsg, at] = hashlib.sha256(json.dumps([_ALGORITHM, told]).encode()).hexdigest()[:DIGITS]
        made_of |= made
        digests |= of_level
        below = of_level
    return made_of, digests


def _says(entry: Entry | None, digest: str) -> bool:
    return entry is not None and entry.digest == digest


def overview_name(epsg: int, at: OverviewIndex) -> str:
    """What the ledger calls a shard of an overview."""
    return f"{epsg}/{at.level}/{at.row}_{at.col}"


def write_overviews(
    overviews: Overviews, target: Target, staging: Storage, advance: Callable[[], None], stopped: Callable[[], bool]
) -> bool:
    """Write what is to be done on the cluster, a level after the other; whether all of it was.

    Args:
        staging: the run's folder.
        advance: called for every shard that is done.
        stopped: whether to begin no further shard.

    Raises:
        DifffusrError: the store fails.
    """
    ledger = Ledger.read(staging, OVERVIEWS)
    for _, places in groupby(sorted(overviews.todo, key=lambda place: place[1].level), lambda place: place[1].level):
        level = list(places)
        for epsg, at in level:
            for entry in ledger.in_state(overview_name(epsg, at), target.state(epsg)):
                staging.delete(entry.object_name)  # before its pixels change
        for done in _level_written(level, overviews, target, stopped):
            _enter(done, overviews, target, staging)
            for _ in done:
                advance()
        if stopped():
            return False
    return True


def _level_written(
    level: Sequence[OverviewPlace], overviews: Overviews, target: Target, stopped: Callable[[], bool]
) -> Iterator[list[tuple[OverviewPlace, Receipt]]]:
    """Write shards of one level, as many at a time as there are cores for; receipts as they come."""
    writer = ray.put(target.writer())
    task = ray.remote(write_overview).options(num_cpus=1, max_retries=5)
    waiting, running = deque(level), dict[Any, OverviewPlace]()
    while running or (waiting and not stopped()):
        # More than there are cores: an autoscaler starts nodes for what waits.
        limit = max(_LEAST_AHEAD, int(2 * ray.cluster_resources().get("CPU", 1)))
        while waiting and len(running) < limit and not stopped():
            place = waiting.popleft()
            running[task.remote(writer, *place, overviews.made_of[place])] = place
        ended, _ = ray.wait(list(running), num_returns=len(running), timeout=_POLL_S)
        if ended:
            yield [(running.pop(reference), result_of(reference)) for reference in ended]


def _enter(
    done: Sequence[tuple[OverviewPlace, Receipt]], overviews: Overviews, target: Target, staging: Storage
) -> None:
    """Make shards durable, and enter them."""
    target.accept([receipt for _, receipt in done])

    def enter(place: OverviewPlace, receipt: Receipt) -> None:
        entry = Entry(overview_name(*place), overviews.digests[place], target.state(place[0]), OVERVIEWS)
        write_entry(staging, entry, {"objects": receipt.objects})

    with ThreadPoolExecutor(_REQUESTS, "ledger") as pool:
        for _ in pool.map(lambda pair: enter(*pair), done):
            pass


def write_overview(writer: ShardWriter, epsg: int, at: OverviewIndex, children: Sequence[OverviewIndex]) -> Receipt:
    """Make one shard of an overview and write it whole.

    Args:
        children: those of its four that there are.

    Raises:
        StoreError: the store fails, or a shard below is not there.
    """
    return writer.write(epsg, at, halve_shards(writer.draft, writer.store(), epsg, children))


def halve_shards(
    draft: CubeDraft, store: Store, epsg: int, children: Sequence[OverviewIndex], strip_px: int = 512
) -> ShardData:
    """One shard of an overview.

    The graph has one task to fetch each shard below, whole, and one to halve each strip of its rows into its place; in
    memory at once: the shard that is made, 27 bytes a pixel (51 with the standard deviation), one shard as it is
    stored, and a strip.

    Reflectance is the mean of what is valid, per band; a standard deviation the mean of those below: the most that the
    mean can vary. Quality and source are the most frequent among the pixels with data.

    Args:
        children: those of its four that there are, of one level.
        strip_px: rows halved at a time, even.

    Raises:
        StoreError: the store fails, or a shard below is not there.
    """
    side, zone = draft.grid.shard_px, draft.zones[epsg]
    spectral = len(BANDS), side, side
    made = ShardData(
        np.zeros(spectral, np.uint16),
        np.zeros((side, side), np.uint8),
        np.zeros((side, side), np.uint16),
        np.full(spectral, STD_FILL, np.uint16) if zone.uncertainty_samples else None,
    )
    graph: dict[tuple[Any, ...], Any] = {}
    strips = []
    for child in children:
        graph["objects", *child] = (partial(_fetch, draft, store, epsg, child),)
        row, col = child.row % 2 * side // 2, child.col % 2 * side // 2
        for top in range(0, side, strip_px):
            rows = slice(row + top // 2, row + min(top + strip_px, side) // 2)
            quarter = made.part(rows, slice(col, col + side // 2))
            strips.append(("strip", *child, top))
            graph[strips[-1]] = (partial(_halve, quarter, draft, epsg, child, top), ("objects", *child))
    dask.threaded.get(graph, strips, num_workers=1)
    return made


def _fetch(draft: CubeDraft, store: Store, epsg: int, shard: OverviewIndex) -> dict[str, Buffer]:
    """A shard's objects, by path."""
    objects = {}
    for path in draft.shard_objects(epsg, shard):
        try:
            found = sync(store.get(path, default_buffer_prototype()))
        except STORE_FAILURES as error:
            raise StoreError(f"{draft.storage.url}/{path}: cannot be read ({first_line(error)})") from None
        if found is None:
            raise StoreError(f"{draft.storage.url}/{path}: is not there any more; run again")
        objects[path] = found
    return objects


def _halve(
    out: ShardData, draft: CubeDraft, epsg: int, shard: OverviewIndex, top: int, objects: Mapping[str, Buffer]
) -> None:
    """Halve the rows of a shard from `top` on into `out`, which tells how many. Past the level's edge is no data."""
    zone, side = draft.zones[epsg], draft.grid.shard_px
    first, left, rows = shard.row * side + top, shard.col * side, 2 * out.quality.shape[0]
    store = MemoryStore(dict(objects))

    def read(name: str) -> NDArray[Any]:
        array = draft.array(store, f"{zone.level_path(shard.level)}/{name}")
        inside = np.asarray(array[zone.step, ..., first : first + rows, left : left + side])
        missing = [(0, 0)] * (inside.ndim - 2) + [(0, rows - inside.shape[-2]), (0, side - inside.shape[-1])]
        return np.pad(inside, missing, constant_values=array.fill_value) if np.any(missing) else inside

    source = read("source")
    out.source[:] = mode_2x(source, source > 0)
    out.quality[:] = mode_2x(read("quality"), source > 0)
    out.reflectance[:] = average_2x(read("reflectance"), 0)
    if out.std is not None:
        out.std[:] = average_2x(read("reflectance_std"), STD_FILL)
