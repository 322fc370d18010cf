"""Check a cube: every shard against the ledger, every band for seams, between scenes too, and against its scenes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.assemble import OVERVIEWS, Ledger, OverviewPlace, overview_name, plan_overviews, shard_digests
from difffusr.pipeline.assemble.continent import ContinentPlan
from difffusr.pipeline.chips import done_chips
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import CubeDraft, CubeReader, metadata, objects_of, period_labels
from difffusr.pipeline.geo import Grid, PixelWindow, grid_of
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.plan import Plan
from difffusr.pipeline.publish import (
    EVERYTHING,
    AsPublished,
    Scope,
    Target,
    as_published,
    damaged_documents,
    damaged_history,
    latest_number,
    lost_publications,
    open_target,
)
from difffusr.pipeline.readers.fidelity import measure_fidelity
from difffusr.pipeline.readers.seams import sampled_chips
from difffusr.pipeline.readers.verdicts import BandReport, SceneShift, SourceSeams, WorstBorder
from difffusr.pipeline.readers.verified import keep_verdict
from difffusr.pipeline.readers.zone_seams import zone_seams
from difffusr.pipeline.run import (
    broken_chips,
    checked,
    decided,
    draft_of,
    numbers_of,
    places_of,
    positions_of,
    read_damaged,
    read_facts,
    with_source,
)
from difffusr.pipeline.scenes import ChipRules
from difffusr.pipeline.storage import Storage, cube_staging_of, staging_of, storage_of

log = logging.getLogger("difffusr.verify")


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        shards: number planned.
        overviews: number of overview shards over them; their names have the level in the middle.
        missing, damaged, incomplete: names of shards not written, not as the ledger says, written without some chip.
        valid_share: share of the planned chips' pixels that hold data.
        bands: figures of each band; empty if shards are damaged.
        sources: seams between scenes, by kind; empty if shards are damaged.
        worst_border: of those between scenes; None if there is none.
        shifted: scenes whose bands are shifted against each other: a warning.
        documents: paths of the cube's documents, coordinates and pages of scenes, and of the history's copies, that are
            missing or not what was written.
        chips: names of staged chips that are not what was written.
        flags: share of each quality flag among the pixels of the planned chips.
    """

    shards: int
    overviews: int
    missing: list[str]
    damaged: list[str]
    incomplete: list[str]
    valid_share: float
    flags: Mapping[str, float]
    bands: list[BandReport] = field(default_factory=list)
    sources: list[SourceSeams] = field(default_factory=list)
    worst_border: WorstBorder | None = None
    shifted: list[SceneShift] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    chips: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        whole = not (self.missing or self.damaged or self.incomplete or self.documents or self.chips)
        return whole and all(band.ok for band in self.bands) and all(kind.ok for kind in self.sources)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        of_scenes = {name: [one.to_dict() for one in getattr(self, name)] for name in ("sources", "shifted")}
        return {**asdict(self), **of_scenes, "clean": self.clean}


def verify_run(config: RunConfig, *, everything: bool = True) -> Report:
    """Check the cube of a configuration against its history, its plan and its source scenes; `status` shows the last
    result, and the next run writes again what is damaged.

    Args:
        everything: whether to look at the pages of scenes of other periods and at earlier publications, too.

    Raises:
        DifffusrError: the catalogue or the store cannot be read, or there is no cube.
    """
    config = with_source(config)
    publication = latest_number(cube_staging_of(config))
    period = config.period.start, config.period.end
    known = read_damaged(staging_of(config)).documents
    if everything:
        _warn_of_lost(config)
    found = _found(config, EVERYTHING if everything else Scope(period, known))
    keep_verdict(staging_of(config), found.to_dict(), publication)
    return found


def _warn_of_lost(config: RunConfig) -> None:
    """Say which earlier publications nobody can go back to any more: readers see the cube whole all the same."""
    lost = lost_publications(storage_of(config), cube_staging_of(config))
    if lost:
        numbers = ", ".join(map(str, sorted(lost)))
        log.warning("`difffusr rollback` cannot go back to publications %s: %s", numbers, lost[min(lost)])


def _found(config: RunConfig, scope: Scope) -> Report:
    storage, cube_staging, staging = storage_of(config), cube_staging_of(config), staging_of(config)
    lost = damaged_history(storage, cube_staging, scope)
    kept = AsPublished(cube_staging.url, cube_staging.options, right=lost) if lost else cube_staging
    wrong = damaged_documents(storage, kept, scope)
    storage = as_published(storage, kept, wrong)
    if metadata(storage, "zarr.json") is None:
        raise StoreError(f"{storage.url}: no cube to verify; `difffusr run` writes it")
    _check_published(storage, config)
    plan = decided(config)
    draft = draft_of(config, plan, storage=storage)
    target = open_target(storage, cube_staging, draft, config.period.label)
    missing, damaged, incomplete, holes = _check_shards(config, plan, draft, target)
    overviews, *faulty = _check_overviews(config, plan, draft, target)
    missing, damaged = missing + faulty[0], damaged + faulty[1]
    of_shards = len(plan.shards), overviews, missing, damaged, incomplete
    chips = broken_chips(staging, done_chips(staging))
    if damaged or wrong or lost or holes:
        return Report(*of_shards, 0.0, {}, documents=sorted([*wrong, *lost]), chips=chips)
    grid, cube = grid_of(config), CubeReader(storage, draft)
    if isinstance(plan, ContinentPlan):
        flags = _flag_shares(cube, _windows_of(plan, grid))
        seams = zone_seams(plan, cube.read, grid)
        return Report(*of_shards, round(1.0 - flags["no_data"], 4), flags, sources=[seams] if seams.borders else [])
    flags = _flag_shares(cube, [(chip.epsg, grid.chip_window(chip.index)) for chip in sampled_chips(plan.chips)])
    scenes = {scene.id: scene for scene in plan.scenes}
    rules = ChipRules.of(config.canonical()["scenes"], staging)
    seen = measure_fidelity(plan.chips, cube.read, grid, scenes, draft.scenes, rules)
    figures = seen.bands, seen.sources, seen.worst_border, seen.shifted
    return Report(*of_shards, round(1.0 - flags["no_data"], 4), flags, *figures, chips=chips)


def _check_published(storage: Storage, config: RunConfig) -> None:
    """Raise ConfigError where readers do not see the period at all, before anything is searched or read for it."""
    labels = period_labels(storage)
    if (config.period.start, config.period.end) not in labels.values():
        known = ", ".join(sorted(labels, key=lambda label: labels[label]))
        raise ConfigError(
            f"period: {storage.url} has no {config.period.label}; it has {known}: name one of them with --period, or "
            "`difffusr run` the period"
        )


def _check_shards(
    config: RunConfig, plan: Plan, draft: CubeDraft, target: Target
) -> tuple[list[str], list[str], list[str], bool]:
    """Names of shards that are missing, damaged, incomplete; and whether objects of any are gone."""
    staging = staging_of(config)
    ledger = Ledger.read(staging)
    digests = shard_digests(plan.shards, numbers_of(plan, draft), np.zeros(len(plan.chips), bool))
    seen = {epsg: target.published(epsg) for epsg in plan.zones()}
    places = dict(zip(plan.shards.names(), positions_of(plan, draft), strict=True))
    missing: list[str] = []
    incomplete: list[str] = []
    entries = {}
    for (name, place), digest in zip(places.items(), digests, strict=True):
        entry = ledger.latest(name, seen[place[0]])
        facts = None if entry is None or entry.digest == digest else read_facts(staging, entry)
        if entry is None or (facts is not None and not facts.missing):
            missing.append(name)
            continue
        if facts is not None:
            incomplete.append(name)
        entries[place] = entry
    faults = dict(checked(draft, staging, entries, objects_of(draft.storage)))
    gone, damaged = (
        [name for name, at in places.items() if faults.get(at) == fault] for fault in ("missing", "damaged")
    )
    return missing + gone, damaged, incomplete, bool(gone)


def _check_overviews(
    config: RunConfig, plan: Plan, draft: CubeDraft, target: Target
) -> tuple[int, list[str], list[str]]:
    """How many overview shards belong to the shards that readers see, and names of those that are missing or made of
    other shards, and of damaged ones."""
    staging = staging_of(config)
    ledger, tops = Ledger.read(staging), Ledger.read(staging, OVERVIEWS)
    seen = {epsg: target.published(epsg) for epsg in plan.zones()}
    digests = {
        place: entry.digest
        for name, place in zip(plan.shards.names(), places_of(plan), strict=True)
        if (entry := ledger.latest(name, seen[place[0]])) is not None
    }
    overviews = plan_overviews(draft, target, staging, digests)
    entries = {}
    for place in overviews.digests.keys() - overviews.changed:
        if (entry := tops.latest(overview_name(*place), seen[place[0]])) is not None:
            entries[place] = entry
    faults = dict(checked(draft, staging, entries, objects_of(draft.storage)))
    missing = {*overviews.changed, *(place for place, fault in faults.items() if fault == "missing")}
    damaged = {place for place, fault in faults.items() if fault == "damaged"}
    return len(overviews.digests), _names(missing), _names(damaged)


def _names(overviews: Iterable[OverviewPlace]) -> list[str]:
    return [overview_name(*place) for place in sorted(overviews)]


#: Shards of a cube of one CRS whose flags are counted.
_SHARDS_SAMPLED = 64


def _windows_of(plan: ContinentPlan, grid: Grid) -> list[tuple[int, PixelWindow]]:
    """Number of the CRS and window of shards, evenly spread and always the same."""
    some = np.unique(np.linspace(0, len(plan.shards) - 1, _SHARDS_SAMPLED).astype(int)).tolist()
    return [(plan.lattice.number, grid.shard_window(plan.shards.place(i))) for i in some]


def _flag_shares(cube: CubeReader, windows: Iterable[tuple[int, PixelWindow]]) -> dict[str, float]:
    """Share of each flag in some windows of zones."""
    counts: NDArray[np.int64] = np.zeros(256, np.int64)
    for epsg, window in windows:
        counts += np.bincount(cube.read(epsg, "quality", window).ravel(), minlength=256)
    return {flag.name.lower(): round(float(counts[flag] / counts.sum()), 4) for flag in Quality}
