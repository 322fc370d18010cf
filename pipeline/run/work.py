"""What there is to do: the plan of a run, and what of it is not done yet."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.assemble import Ledger, OverviewPlace, Overviews, chips_needed, plan_overviews, shard_digests
from difffusr.pipeline.chips import done_chips
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import CubeDraft, draft_cube
from difffusr.pipeline.geo import PlaceName, ShardIndex, grid_of
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.plan import Plan, balance_facts, compare, read_plan, sampling_of
from difffusr.pipeline.publish import (
    Publication,
    Target,
    finish_publishing,
    open_target,
    revisions_to_come,
    was_seen,
    written_in_place,
)
from difffusr.pipeline.run.context import Run
from difffusr.pipeline.run.damage import Damage, broken_chips, find_damage
from difffusr.pipeline.run.named import read_damaged
from difffusr.pipeline.run.result import RunResult
from difffusr.pipeline.storage import Storage, storage_of

log = logging.getLogger("difffusr.run")


@dataclass(frozen=True, eq=False)
class Work:
    """What is left of a plan.

    Attributes:
        plan: all of it.
        draft: the cube as it will be.
        target: where it is written.
        ledger: what was entered before.
        changed: (shards,) bool, shards that readers do not see as they will be.
        todo: (shards,) bool, those of them that are not written yet.
        numbers: (scenes,) int32 the cube's number of each of the plan's scenes.
        staged: (chips,) bool, chips that are staged.
        wanted: (chips,) bool, chips to compute: those that a shard to write needs and that are not staged.
        gone: names of shards that readers see and the plan no longer has.
        lost: shards of overviews that readers should see and whose objects are gone.
        revises: whether this changes a period that readers see.
        complete: whether readers see all of this already.
        finished: the publication of a driver that died in the middle of it, which was finished now.
        damage: what readers see and is damaged. Where there is any, `todo` and `target` are for that alone.
    """

    plan: Plan
    draft: CubeDraft
    target: Target
    ledger: Ledger
    changed: NDArray[np.bool_]
    todo: NDArray[np.bool_]
    numbers: NDArray[np.int32]
    staged: NDArray[np.bool_]
    wanted: NDArray[np.bool_]
    gone: tuple[str, ...]
    lost: AbstractSet[OverviewPlace]
    revises: bool
    complete: bool
    finished: Publication | None = None
    damage: Damage | None = None


def find_work(run: Run, plan: Plan) -> Work:
    """What of a plan is not done yet, from the ledger, the staged chips and the store alone. Nothing is written, but a
    publication that was begun is finished.

    Raises:
        DifffusrError: the store cannot be read, or holds something else.
    """
    config, staging, cube_staging, storage = run.config, run.staging, run.places.cube_staging, run.places.cube
    finished = finish_publishing(storage, cube_staging, run.lease)
    ledger = Ledger.read(staging)
    draft = draft_of(config, plan)
    numbers = numbers_of(plan, draft)
    digests = shard_digests(plan.shards, numbers, np.zeros(len(plan.chips), bool))
    of = (config.period.label, run.lease, _pixels(plan, digests))
    target = open_target(storage, cube_staging, draft, *of)
    overviews = plan_overviews(draft, target, staging, dict(zip(places_of(plan), digests, strict=True)))
    staged = _staged(plan, staging)
    if damage := find_damage(plan, target, staging, ledger, digests, overviews):
        todo, in_place = damage.shards, written_in_place(target, damage.sums)
        damage = replace(damage, sums={}) if in_place is None else damage
        target = in_place or target
        wanted = _chips_wanted(run, plan, todo, staged)
        return Work(
            plan, draft, target, ledger, todo, todo, numbers, staged, wanted, (), frozenset(), False, False, finished,
            damage,
        )  # fmt: skip
    changed = todo = _unwritten(plan, draft, target, ledger, digests)
    gone = _no_longer_planned(plan, target, ledger)
    seen = [epsg for epsg in plan.zones() if target.published(epsg)]
    lost = overviews.lost
    touched = {int(epsg) for epsg in np.unique(plan.shards.epsg[todo])} | {PlaceName.parse(name).epsg for name in gone}
    touched |= {epsg for epsg, _ in overviews.todo | lost}
    revised = {
        epsg
        for epsg, zone in draft.zones.items()
        if epsg in touched and (epsg in seen or was_seen(cube_staging, epsg, zone.revision, zone.step))
    }
    taken = {epsg for epsg in draft.zones if epsg not in revised and not target.is_free(epsg)}
    if revised or taken:
        revise = {epsg: _new_revision(run, target, epsg) for epsg in sorted(revised | taken)}
        draft = draft_of(config, plan, revise, taken)
        target = open_target(storage, cube_staging, draft, *of)
        todo = changed & _unwritten(plan, draft, target, ledger, digests)
    wanted = _chips_wanted(run, plan, todo, staged)
    complete = not touched and len(seen) == len(plan.zones())
    revises = bool(touched.intersection(seen))
    return Work(
        plan, draft, target, ledger, changed, todo, numbers, staged, wanted, gone, lost, revises, complete, finished
    )


def _staged(plan: Plan, staging: Storage) -> NDArray[np.bool_]:
    """(chips,) whether a chip is staged, and not known to be broken."""
    done = done_chips(staging)
    done.difference_update(broken_chips(staging, done.intersection(read_damaged(staging).chips)))
    return np.isin(plan.chips.object_names(), list(done))


def _chips_wanted(run: Run, plan: Plan, todo: NDArray[np.bool_], staged: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(chips,) those to compute: what shards need, and what was broken and is to be kept."""
    wanted = chips_needed(plan.chips, plan.shards, todo)
    if run.config.store.keep_chips:
        wanted |= np.isin(plan.chips.object_names(), list(read_damaged(run.staging).chips))
    return wanted & ~staged


def _pixels(plan: Plan, digests: Sequence[str]) -> dict[int, str]:
    """By zone, a digest of what its shards will hold."""
    lines: dict[int, list[str]] = {}
    for name, digest, epsg in zip(plan.shards.names(), digests, plan.shards.epsg.tolist(), strict=True):
        lines.setdefault(int(epsg), []).append(f"{name} {digest}")
    return {epsg: hashlib.sha256("\n".join(sorted(some)).encode()).hexdigest() for epsg, some in lines.items()}


def _new_revision(run: Run, target: Target, epsg: int) -> int:
    """A revision of a zone whose keys nobody else may be writing."""
    numbers = revisions_to_come(run.places.cube, run.places.cube_staging, target.draft, epsg)
    free = [number for number in numbers if target.is_free(epsg, number)]
    if not free:
        log.warning(
            "zone %d: drivers that gave no sign of life may still write to every revision; if one of them is alive "
            "still, end it",
            epsg,
        )
    return [*free, *numbers][0]


def find_overviews(run: Run, work: Work) -> Overviews:
    """The overviews over the shards as the ledger has them now, when all of them are written.

    Raises:
        StoreError: the store or the staging folder cannot be read, or the ledger lacks a shard.
    """
    plan, staging = work.plan, run.staging
    ledger, lineages = Ledger.read(staging), {epsg: work.target.lineage(epsg) for epsg in plan.zones()}
    entries = {}
    for name, place in zip(plan.shards.names(), places_of(plan), strict=True):
        entry = ledger.latest(name, lineages[place[0]])
        if entry is None:
            raise StoreError(f"{staging.url}: nothing is entered of shard {name} any more; run again")
        entries[place] = entry
    digests = {place: entry.digest for place, entry in entries.items()}
    return plan_overviews(work.draft, work.target, staging, digests, work.lost, entries)


def why_rewritten(run: Run, work: Work, result: RunResult) -> dict[str, str]:
    """Why, by its name, each shard of a published period is written again; empty for a new period. `result.reasons`
    counts them."""
    if not work.revises or not run.staging.exists("published/manifest.json"):
        return {}
    difference = compare(read_plan(run.staging, "published"), work.plan)
    words: dict[str, str] = {}
    for name, changed, reason in zip(work.plan.shards.names(), work.changed, difference.shard_reasons, strict=True):
        if changed:
            words[name] = reason.words if reason is not None else "was not complete, or not as the ledger says"
            result.reasons[words[name]] = result.reasons.get(words[name], 0) + 1
            log.info("shard %s is written again: %s", name, words[name], extra={"shard": name, "reason": words[name]})
    shards = len(work.plan.shards)
    for text, count in result.reasons.items():
        log.warning("%d of %d shards of a published period are written again: %s", count, shards, text)
    return words


#: Sections of the configuration that decide what a cube holds; the rest says where and with what it is made.
_PIXEL_SECTIONS = ("area", "period", "source", "grid", "model", "scenes", "skip")


def draft_of(
    config: RunConfig,
    plan: Plan,
    revise: Mapping[int, int] | None = None,
    begun: Collection[int] = (),
    storage: Storage | None = None,
) -> CubeDraft:
    """The cube as it will be once the plan is carried out.

    Args:
        revise: the new revision of each zone of which a published shard changes, or whose keys others may write.
        begun: see `draft_cube`.
        storage: of the cube; as the configuration says by default.

    Raises:
        DifffusrError: the store holds something else.
    """
    grid = grid_of(config)
    facts = [
        {
            "id": scene.id,
            "datetime": scene.datetime.isoformat(),
            "tile": scene.tile,
            "baseline": scene.baseline,
            "collection": scene.collection,
            "product": scene.product_uri,
            **({} if scene.correction is None else {"balance": balance_facts(plan, scene)}),
        }
        for scene in plan.scenes
    ]
    provenance = {
        "software": {name: version(name) for name in ("difffusr", "torch", "ray", "zarr")},
        "model": plan.manifest["model"],
        "weights": plan.manifest.get("weights", {}),
        "sampling": asdict(sampling_of(config)),
        "config": {name: plan.manifest["config"][name] for name in _PIXEL_SECTIONS if name in plan.manifest["config"]},
    }
    extents = {epsg: plan.extent(epsg, grid) for epsg in plan.zones()}
    period = config.period.start, config.period.end
    samples = config.model.uncertainty_samples
    composite = config.scenes.composite
    return draft_cube(
        storage or storage_of(config), grid, extents, period, facts, provenance, samples,
        composite=composite, revise=revise, begun=begun,
    )  # fmt: skip


def places_of(plan: Plan) -> list[tuple[int, ShardIndex]]:
    """Zone and place of every shard of a plan."""
    return [(int(epsg), plan.shards.place(i)) for i, epsg in enumerate(plan.shards.epsg)]


def numbers_of(plan: Plan, draft: CubeDraft) -> NDArray[np.int32]:
    """(scenes,) the cube's number of each of the plan's scenes."""
    number_of = {facts["id"]: number for number, facts in draft.scenes.items()}
    return np.array([number_of[scene] for scene in plan.chips.scene_ids], np.int32)


def _unwritten(plan: Plan, draft: CubeDraft, target: Target, ledger: Ledger, digests: list[str]) -> NDArray[np.bool_]:
    """(shards,) whether a shard is missing from the target or would come out otherwise."""
    present, lineages = target.present().keys(), {epsg: target.lineage(epsg) for epsg in plan.zones()}
    out = np.ones(len(plan.shards), bool)
    for i, (name, digest) in enumerate(zip(plan.shards.names(), digests, strict=True)):
        epsg = int(plan.shards.epsg[i])
        entry = ledger.latest(name, lineages[epsg])
        if entry is not None and entry.digest == digest:
            out[i] = not present >= set(draft.shard_objects(epsg, plan.shards.place(i)))
    return out


def _no_longer_planned(plan: Plan, target: Target, ledger: Ledger) -> tuple[str, ...]:
    """Shards that readers see and the plan does not have."""
    seen = {epsg: target.published(epsg) for epsg in plan.zones()}
    present, zones = target.present().keys(), target.draft.zones
    found = []
    for name in set(ledger.entries).difference(plan.shards.names()):
        place = PlaceName.parse(name)
        if ledger.latest(name, seen.get(place.epsg, {})) is None:
            continue
        # An entry stays when its shard is dropped: readers see one that has objects.
        shard = ShardIndex(place.row, place.col)
        if place.epsg in zones and not present.isdisjoint(target.draft.shard_objects(place.epsg, shard)):
            found.append(name)
    return tuple(sorted(found))
