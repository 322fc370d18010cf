"""What of a published period is damaged: shards and overviews compared with the ledger, staged chips with themselves.

`verify` compares everything, and leaves the names (see `named`). `run` looks at those again, finds by itself what is
missing, and writes again what is still wrong.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.assemble import (
    OVERVIEWS,
    Entry,
    Facts,
    Ledger,
    OverviewPlace,
    Overviews,
    ShardError,
    forget,
    overview_name,
    read_entry,
)
from difffusr.pipeline.chips import is_whole
from difffusr.pipeline.cube import CubeDraft, object_in, objects_of
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.plan import Plan
from difffusr.pipeline.publish import Target
from difffusr.pipeline.run.named import read_damaged
from difffusr.pipeline.storage import Storage, store_failures

log = logging.getLogger("difffusr.run")

#: Shards that are read at a time, each whole.
_AT_ONCE = 4

#: Small requests at a time.
_REQUESTS = 16

#: Reads an object of the cube by path; None for one that does not exist.
Read = Callable[[str], bytes | None]


def check_shard(facts: Facts | None, paths: Sequence[str], read: Read) -> str:
    """What is wrong with the objects of a shard that readers see: `missing`, `damaged`, or an empty string.

    Args:
        facts: what the ledger says of it; None where nobody knows any more whether it is right.
        paths: its objects.
    """
    found = {path: read(path) for path in paths}
    if any(data is None for data in found.values()):
        return "missing"
    known = {} if facts is None else facts.at(paths).objects
    return "" if all(_sha256(data) == known.get(path) for path, data in found.items()) else "damaged"


def checked(
    draft: CubeDraft, staging: Storage, entries: Mapping[OverviewPlace, Entry], read: Read
) -> Iterator[tuple[OverviewPlace, str]]:
    """What is wrong with each of some shards, as `check_shard` says; several are read at a time. One that cannot be
    read is damaged, with a warning: of an Icechunk repository, a chunk that is gone or cut.

    Args:
        staging: the run's folder.
        entries: of the shards, by zone and position; level 0 is that of the shards themselves.

    Raises:
        StoreError: none of several can be read.
    """

    failures: dict[OverviewPlace, StoreError] = {}

    def check(place: OverviewPlace) -> str:
        try:
            return check_shard(read_facts(staging, entries[place]), draft.shard_objects(*place), read)
        except StoreError as error:
            failures[place] = error
            return "damaged"

    with ThreadPoolExecutor(_AT_ONCE, "checks") as pool:
        faults = list(pool.map(check, entries))
    if failures and len(failures) == len(entries) > 1:
        raise next(iter(failures.values()))  # not the shards' fault
    for error in failures.values():
        log.warning("%s", error)
    yield from zip(entries, faults, strict=True)


def read_facts(staging: Storage, entry: Entry) -> Facts | None:
    """The content of an entry; None, with a warning, where it is lost: then nobody knows whether the shard is right."""
    try:
        return read_entry(staging, entry)
    except StoreError as error:
        log.warning("%s", error)
        return None


def broken_chips(staging: Storage, object_names: Collection[str]) -> list[str]:
    """Those of some staged chips that are missing or not what was written."""
    with ThreadPoolExecutor(_AT_ONCE, "checks") as pool:
        whole = pool.map(lambda name: is_whole(staging, name), object_names)
        return sorted(name for name, right in zip(object_names, whole, strict=True) if not right)


@dataclass(frozen=True, eq=False)
class Damage:
    """What readers see of a period as it is planned, and is not as the ledger says.

    Attributes:
        shards: (shards,) bool.
        overviews: shards of overviews.
        sums: the sha256 that each of their objects must have, by path; none where they cannot be replaced in place.
    """

    shards: NDArray[np.bool_]
    overviews: frozenset[OverviewPlace] = frozenset()
    sums: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.shards.any() or self.overviews)


def find_damage(
    plan: Plan, target: Target, staging: Storage, ledger: Ledger, digests: Sequence[str], overviews: Overviews
) -> Damage:
    """What of a published period is missing, and what `verify` has named and is still damaged.

    Args:
        target: of the draft that readers see.
        staging: the run's folder.
        ledger: of the shards.
        digests: of the plan's shards.
        overviews: over them.

    Raises:
        StoreError: the store cannot be read.
    """
    draft, named = target.draft, set(read_damaged(staging).shards)
    present = {path for path, size in target.present().items() if size != 0}
    seen = {epsg: target.published(epsg) for epsg in plan.zones()}
    tops = Ledger.read(staging, OVERVIEWS)
    suspects: dict[OverviewPlace, Entry] = {}
    places = positions_of(plan, draft)
    for name, digest, place in zip(plan.shards.names(), digests, places, strict=True):
        entry = ledger.latest(name, seen[place[0]])
        if entry is None or entry.digest != digest:
            continue  # not seen, or to be written again anyway
        if name in named or not present >= set(draft.shard_objects(*place)):
            suspects[place] = entry
    for place in overviews.digests.keys() - overviews.changed:
        name = overview_name(*place)
        entry = tops.latest(name, seen[place[0]])
        if entry is not None and (name in named or place in overviews.lost):
            suspects[place] = entry
    read = objects_of(draft.storage)
    wrong = {place for place, fault in checked(draft, staging, suspects, read) if fault}
    sums: dict[str, str] = {}
    for place in wrong:
        sums |= _sums(draft, staging, place, suspects[place], read)
    return Damage(*_apart(wrong, places), sums)


def positions_of(plan: Plan, draft: CubeDraft) -> list[OverviewPlace]:
    """Zone and position of every shard of a plan."""
    shards, zones = plan.shards, draft.zones
    return [(int(epsg), zones[int(epsg)].position(shards.place(i), draft.grid)) for i, epsg in enumerate(shards.epsg)]


def _apart(
    wrong: set[OverviewPlace], places: Sequence[OverviewPlace]
) -> tuple[NDArray[np.bool_], frozenset[OverviewPlace]]:
    """Which of a plan's shards are among some, and the overviews among them."""
    return np.array([place in wrong for place in places], bool), frozenset(wrong.difference(places))


def damage_to_come(plan: Plan, target: Target, staging: Storage, overviews: Overviews) -> Damage:
    """What is about to be published, and is not as the ledger says: everything is compared.

    Args:
        target: of the draft.
        overviews: with the ledger's entries.

    Raises:
        StoreError: the store cannot be read.
    """
    draft = target.draft
    wrong = {place for place, fault in checked(draft, staging, overviews.entries, _reader(target)) if fault}
    return Damage(*_apart(wrong, positions_of(plan, draft)))


def check_sizes(target: Target, staging: Storage, overviews: Overviews, places: Collection[OverviewPlace]) -> None:
    """Compare the sizes of what was written with the ledger, as far as the store lists them.

    Args:
        places: of shards and overviews, as in `overviews.entries`.

    Raises:
        ShardError: an object is missing, or has another size than was written.
        StoreError: the store or the ledger cannot be read.
    """
    draft, there = target.draft, target.present()

    def check(place: OverviewPlace) -> None:
        paths = draft.shard_objects(*place)
        wanted = read_entry(staging, overviews.entries[place]).at(paths).sizes
        for path in paths:
            size = there.get(path, -1)
            if size is not None and size != wanted.get(path, max(size, 0)):
                raise ShardError(f"{draft.storage.url}/{path}: is not as it was written; run again")

    with ThreadPoolExecutor(_REQUESTS, "sizes") as pool:
        for _ in pool.map(check, places):
            pass


def _reader(target: Target) -> Read:
    """Reads objects as they are to be published."""
    store, url = target.writer().store(), target.draft.storage.url

    def read(path: str) -> bytes | None:
        try:
            return object_in(store, path)
        except store_failures() as error:
            raise StoreError(f"{url}/{path}: cannot be read ({first_line(error)})") from None

    return read


def _sums(draft: CubeDraft, staging: Storage, place: OverviewPlace, entry: Entry, read: Read) -> dict[str, str]:
    """What a shard's objects must be; where its entry is lost, what they are."""
    paths, facts = draft.shard_objects(*place), read_facts(staging, entry)
    known = {} if facts is None else facts.at(paths).objects
    return {path: known.get(path) or _sha256(read(path)) for path in paths}


def forget_damage(plan: Plan, damage: Damage, target: Target, staging: Storage) -> None:
    """Delete the ledger's entries of what is damaged: it is written again like anything that is not there.

    Raises:
        StoreError: the store refuses.
    """
    ledger, tops = Ledger.read(staging), Ledger.read(staging, OVERVIEWS)
    names = plan.shards.names()
    for i in np.flatnonzero(damage.shards).tolist():
        forget(staging, ledger, names[i], target.lineage(int(plan.shards.epsg[i])))
    for place in damage.overviews:
        forget(staging, tops, overview_name(*place), target.lineage(place[0]))


def _sha256(data: bytes | None) -> str:
    return hashlib.sha256(data or b"").hexdigest()
