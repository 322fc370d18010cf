"""Check a cube: every shard against the ledger, every band for seams, between scenes too, and against its scenes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.assemble import (
    OVERVIEWS,
    Entry,
    Facts,
    Ledger,
    overview_name,
    plan_overviews,
    read_entry,
    shard_digests,
)
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import Cube, CubeDraft, CubeReader, metadata, objects_of
from difffusr.pipeline.geo import Grid, grid_of
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.plan import Plan, decide
from difffusr.pipeline.publish import Target, latest_number, open_target
from difffusr.pipeline.readers.fidelity import Fidelity, measure_fidelity
from difffusr.pipeline.readers.seams import sampled_chips
from difffusr.pipeline.readers.verdicts import BandReport, SceneShift, SourceSeams, WorstBorder
from difffusr.pipeline.readers.verified import keep_verdict
from difffusr.pipeline.run import draft_of, numbers_of, places_of
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

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        whole = not (self.missing or self.damaged or self.incomplete)
        return whole and all(band.ok for band in self.bands) and all(kind.ok for kind in self.sources)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        of_scenes = {name: [one.to_dict() for one in getattr(self, name)] for name in ("sources", "shifted")}
        return {**asdict(self), **of_scenes, "clean": self.clean}


def verify_run(config: RunConfig) -> Report:
    """Check the cube of a configuration against its plan and its source scenes; `status` shows the last result.

    Raises:
        DifffusrError: the catalogue or the store cannot be read, or there is no cube.
    """
    publication = latest_number(cube_staging_of(config))
    found = _found(config)
    keep_verdict(staging_of(config), found.to_dict(), publication)
    return found


def _found(config: RunConfig) -> Report:
    storage = storage_of(config)
    if metadata(storage, "zarr.json") is None:
        raise StoreError(f"{storage.url}: no cube to verify; `difffusr run` writes it")
    _check_published(storage, config)
    plan = decide(config)
    draft = draft_of(config, plan)
    target = open_target(draft.storage, cube_staging_of(config), draft, config.period.label)
    missing, damaged, incomplete = _check_shards(config, plan, draft, target)
    overviews, *faulty = _check_overviews(config, plan, draft, target)
    grid = grid_of(config)
    cube = CubeReader(storage, draft)
    flags = _flag_shares(cube, plan, grid)
    valid = 1.0 - flags["no_data"]
    scenes = {scene.id: scene for scene in plan.scenes}
    rules = ChipRules.of(config.canonical()["scenes"], staging_of(config))
    seen = Fidelity([], [], None)
    if not damaged:
        seen = measure_fidelity(plan.chips, cube.read, grid, scenes, draft.scenes, rules)
    missing, damaged = missing + faulty[0], damaged + faulty[1]
    found = (missing, damaged, incomplete, round(valid, 4), flags)
    return Report(len(plan.shards), overviews, *found, seen.bands, seen.sources, seen.worst_border, seen.shifted)


def _check_published(storage: Storage, config: RunConfig) -> None:
    """Raise ConfigError where readers do not see the period at all, before anything is searched or read for it."""
    cube = Cube(storage)
    labels = {label: days for epsg in cube.zones for label, (_, days) in cube.periods(epsg).items()}
    if (config.period.start, config.period.end) not in labels.values():
        known = ", ".join(sorted(labels, key=lambda label: labels[label]))
        raise ConfigError(
            f"period: {storage.url} has no {config.period.label}; it has {known}: name one of them with --period, or "
            "`difffusr run` the period"
        )


def _check_shards(
    config: RunConfig, plan: Plan, draft: CubeDraft, target: Target
) -> tuple[list[str], list[str], list[str]]:
    """Names of shards that are missing, damaged, incomplete."""
    staging = staging_of(config)
    ledger = Ledger.read(staging)
    digests = shard_digests(plan.shards, numbers_of(plan, draft), np.zeros(len(plan.chips), bool))
    seen = {epsg: target.published(epsg) for epsg in plan.zones()}
    missing: list[str] = []
    damaged: list[str] = []
    incomplete: list[str] = []
    read = objects_of(draft.storage)
    for i, (name, digest) in enumerate(zip(plan.shards.names(), digests, strict=True)):
        entry = ledger.latest(name, seen[int(plan.shards.epsg[i])])
        facts = None if entry is None else _read(staging, entry)
        if entry is not None and facts is None:
            damaged.append(name)
            continue
        if entry is None or facts is None or (entry.digest != digest and not facts.missing):
            missing.append(name)
            continue
        if facts.missing:
            incomplete.append(name)
        if fault := _fault(facts.objects, read):
            (missing if fault == "missing" else damaged).append(name)
    return missing, damaged, incomplete


def _check_overviews(
    config: RunConfig, plan: Plan, draft: CubeDraft, target: Target
) -> tuple[int, list[str], list[str]]:
    """How many overview shards belong to the shards that readers see, and names of those that are missing or made of
    other shards, and of damaged ones."""
    staging = staging_of(config)
    ledger, tops = Ledger.read(staging), Ledger.read(staging, OVERVIEWS)
    seen = {epsg: target.published(epsg) for epsg in plan.zones()}
    entries = {
        place: entry
        for name, place in zip(plan.shards.names(), places_of(plan), strict=True)
        if (entry := ledger.latest(name, seen[place[0]])) is not None
    }
    overviews = plan_overviews(draft, target, staging, {place: entry.digest for place, entry in entries.items()})
    missing = [overview_name(*place) for place in sorted(overviews.changed)]
    damaged: list[str] = []
    read = objects_of(draft.storage)
    for place in overviews.digests.keys() - overviews.changed:
        entry = tops.latest(overview_name(*place), seen[place[0]])
        assert entry is not None
        facts = _read(staging, entry)
        if fault := "damaged" if facts is None else _fault(facts.objects, read):
            (missing if fault == "missing" else damaged).append(overview_name(*place))
    return len(overviews.digests), missing, sorted(damaged)


def _read(staging: Storage, entry: Entry) -> Facts | None:
    """The content of an entry; None, with a warning, where it is lost: then nobody knows whether the shard is right."""
    try:
        return read_entry(staging, entry)
    except StoreError as error:
        log.warning("%s", error)
        return None


def _fault(objects: Mapping[str, str], read: Callable[[str], bytes | None]) -> str:
    """What is wrong with objects, given their sha256 by path: `missing`, `damaged`, or an empty string."""
    found = {path: read(path) for path in objects}
    if any(data is None for data in found.values()):
        return "missing"
    right = all(hashlib.sha256(data or b"").hexdigest() == objects[path] for path, data in found.items())
    return "" if right else "damaged"


def _flag_shares(cube: CubeReader, plan: Plan, grid: Grid) -> dict[str, float]:
    counts: NDArray[np.int64] = np.zeros(256, np.int64)
    for chip in sampled_chips(plan.chips):
        counts += np.bincount(cube.read(chip.epsg, "quality", grid.chip_window(chip.index)).ravel(), minlength=256)
    return {flag.name.lower(): round(float(counts[flag] / counts.sum()), 4) for flag in Quality}
