"""Months of a small cube as `run` makes them, without engine and networks: what is there is not done again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from small_cubes import EPSG, SHARDS, drafted, finish, label, pixels

from difffusr.pipeline.assemble.ledger import Entry, Ledger, Written, enter
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.names import PlaceName
from difffusr.pipeline.publish.door import finish_publishing, open_target, revisions_to_come
from difffusr.pipeline.publish.publications import records
from difffusr.pipeline.publish.revisions import was_seen
from difffusr.pipeline.publish.target import Target
from difffusr.pipeline.storage import Lease
from difffusr.pipeline.storage.objects import Storage


def month_target(storage: Storage, staging: Storage, number: int, value: int, lease: Lease | None) -> Target:
    """Where a run would write a month whose pixels all have a value."""
    draft, of = drafted(storage, number), (label(number), lease, {EPSG: str(value)})
    target, zone = open_target(storage, staging, draft, *of), draft.zones[EPSG]
    revised = bool(zone.seen) or was_seen(staging, EPSG, zone.revision, zone.step)
    if not revised and target.is_free(EPSG):
        return target
    numbers = revisions_to_come(storage, staging, draft, EPSG)
    revision = next((some for some in numbers if target.is_free(EPSG, some)), numbers[0])
    return open_target(storage, staging, drafted(storage, number, revise=revision), *of)


def run_month(
    storage: Storage,
    staging: Storage,
    number: int,
    value: int,
    lease: Lease | None,
    *,
    keep: int = 1,
    anew: bool = False,
) -> None:
    """Write what is missing of a month, or all of it anew, and publish it; finish what a driver before has left."""
    finish_publishing(storage, staging, lease)
    if shown(storage).get(label(number)) == {value}:
        draft = drafted(storage, number)
        open_target(storage, staging, draft, label(number), lease).tidy(keep=keep, again=True)
        return
    target = month_target(storage, staging, number, value, lease)
    write_missing(target, value, staging.child(f"ledger/{label(number)}"))
    finish(target, staging, {(EPSG, shard) for shard in SHARDS}, {(EPSG, shard) for shard in SHARDS})
    target.publish(shards_written=len(SHARDS), keep=keep)


def write_missing(target: Target, value: int, ledger: Storage) -> None:
    """Write the shards that are not there, or not with these pixels, as the ledger in a folder says."""
    there, entered, lineage = target.present(), Ledger.read(ledger), target.lineage(EPSG)
    target.begin()
    writer = target.writer()
    for shard in SHARDS:
        name = str(PlaceName(EPSG, *shard))
        last = entered.latest(name, lineage)
        here = there >= set(target.draft.shard_objects(EPSG, shard))
        if last is not None and last.digest == str(value) and here:
            continue
        for entry in entered.in_states(name, target.replaced(EPSG)):
            ledger.delete(entry.object_name)
        receipt = writer.write(EPSG, shard, pixels(value))
        enter(ledger, target, [Written(Entry(name, str(value), target.state(EPSG)), receipt, {})])
    target.close()


def shown(storage: Storage) -> Mapping[str, set[int]]:
    """By month, the numbers that a reader finds in `source`; nothing where there is no cube."""
    try:
        cube = Cube(storage)
    except Exception:
        return {}
    array = cube.array(EPSG, "source")
    steps = {name: step for name, (step, _) in cube.periods(EPSG).items()}
    return {name: set(np.unique(np.asarray(array[step])).tolist()) for name, step in steps.items()}


def told(staging: Storage) -> list[dict[str, Any]]:
    """The history, without what differs from one attempt to the next."""
    return [
        {name: value for name, value in vars(record).items() if name not in ("when", "attempt", "snapshot")}
        for record in records(staging)
    ]
