"""Is a cube whole and seamless? Every shard against the ledger, every band for seams and against its source scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.bands import BANDS, GROUPS, GSD_M, SCALE
from kernels.consistency import observe, sensor_for_group
from pipeline.actor import DN_SCALE
from pipeline.catalog import Scene
from pipeline.config import RunConfig
from pipeline.cube import CubeDraft, CubeReader, metadata, objects_of
from pipeline.errors import StoreError
from pipeline.grid import Grid
from pipeline.ledger import OVERVIEWS, Ledger, read_entry, shard_digests
from pipeline.overviews import overview_name, plan_overviews
from pipeline.places import cube_staging_of, staging_of, storage_of
from pipeline.plan import ChipPlan, Plan
from pipeline.planner import grid_of
from pipeline.publication import Target
from pipeline.publishing import open_target
from pipeline.reader import Quality, read_chip
from pipeline.seams import Read, made, seam_ratios, steps_at_chip
from pipeline.work import decide, draft_of, numbers_of, places_of

#: What a clean cube keeps: seam ratio by band, mean absolute residual in reflectance of 10 m bands and of the others.
SEAM_RANGE = (0.9, 1.1)
RESIDUAL_LIMIT = {10: 0.003, 20: 0.005, 60: 0.005}

#: Chips whose residual and seams are measured when a cube has more: evenly spread, always the same ones.
_SAMPLE = 200


@dataclass(frozen=True)
class BandReport:
    """One band's figures.

    Attributes:
        seam_ratio: mean absolute step across chip boundaries over the same inside chips; NaN without boundaries.
        seam_error: its standard error, by the jackknife over chip edges: what the ground's own variety explains.
        residual: mean absolute difference, reflectance, between the cube as the sensor would see it and the scenes.
        ok: the residual within its limit, the seam ratio within its range or less than two standard errors off.
    """

    band: str
    seam_ratio: float
    seam_error: float
    residual: float
    ok: bool


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        shards: planned.
        overviews: shards of overviews over them; their names have the level in the middle.
        missing, damaged, incomplete: names of shards never written, not as the ledger says, written without some chip.
        valid_share: share of the planned chips' pixels that hold data.
        bands: figures by band; empty when the shards are not readable.
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

    @property
    def clean(self) -> bool:
        """Whether nothing is off."""
        return not (self.missing or self.damaged or self.incomplete) and all(band.ok for band in self.bands)

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {**asdict(self), "clean": self.clean}


def verify_run(config: RunConfig) -> Report:
    """Check the cube of a configuration against its plan and its source scenes.

    Raises:
        DifffusrError: the catalogue or the store cannot be read, or there is no cube.
    """
    storage = storage_of(config)
    if metadata(storage, "zarr.json") is None:
        raise StoreError(f"{storage.url}: there is no cube to verify; `difffusr run` writes it")
    plan = decide(config)
    draft = draft_of(config, plan)
    target = open_target(draft.storage, cube_staging_of(config), draft, config.period.label)
    missing, damaged, incomplete = _check_shards(config, plan, draft, target)
    overviews, *lacking = _check_overviews(config, plan, draft, target)
    grid = grid_of(config)
    cube = CubeReader(storage, draft)
    flags = _flag_shares(cube, plan, grid)
    valid = 1.0 - flags["no_data"]
    scenes = {scene.id: scene for scene in plan.scenes}
    numbers = {str(facts["id"]): number for number, facts in draft.scenes.items()}
    cloudy = config.scenes.allow_cloudy
    bands = [] if damaged else measure_bands(plan.chips, cube.read, grid, scenes, numbers, allow_cloudy=cloudy)
    missing, damaged = missing + lacking[0], damaged + lacking[1]
    return Report(len(plan.shards), overviews, missing, damaged, incomplete, round(valid, 4), flags, bands)


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
        facts = {} if entry is None else read_entry(staging, entry)
        if entry is None or (entry.digest != digest and not facts["missing"]):
            missing.append(name)
            continue
        if facts["missing"]:
            incomplete.append(name)
        if lacks := _lacks(facts["objects"], read):
            (missing if lacks == "missing" else damaged).append(name)
    return missing, damaged, incomplete


def _check_overviews(
    config: RunConfig, plan: Plan, draft: CubeDraft, target: Target
) -> tuple[int, list[str], list[str]]:
    """How many shards of overviews there are to be over the shards that readers see, and names of those that are
    missing or not made of these, and damaged."""
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
        if lacks := _lacks(read_entry(staging, entry)["objects"], read):
            (missing if lacks == "missing" else damaged).append(overview_name(*place))
    return len(overviews.digests), missing, sorted(damaged)


def _lacks(objects: Mapping[str, str], read: Callable[[str], bytes | None]) -> str:
    """What is wrong with some objects, given their sha256 by path: `missing`, `damaged`, or nothing."""
    found = {path: read(path) for path in objects}
    if any(data is None for data in found.values()):
        return "missing"
    right = all(hashlib.sha256(data or b"").hexdigest() == objects[path] for path, data in found.items())
    return "" if right else "damaged"


def _flag_shares(cube: CubeReader, plan: Plan, grid: Grid) -> dict[str, float]:
    counts: NDArray[np.int64] = np.zeros(256, np.int64)
    for chip in sample_of(plan.chips):
        counts += np.bincount(cube.read(chip.epsg, "quality", grid.chip_window(chip.index)).ravel(), minlength=256)
    return {flag.name.lower(): round(float(counts[flag] / counts.sum()), 4) for flag in Quality}


def measure_bands(
    chips: Sequence[ChipPlan],
    read: Read,
    grid: Grid,
    scenes: Mapping[str, Scene],
    numbers: Mapping[str, int],
    *,
    allow_cloudy: bool,
) -> list[BandReport]:
    """Seams of chips, and residual against their scenes, by band: of all chips, or of `sample_of` them.

    Args:
        chips: planned ones; where two of them meet a seam is looked for.
        read: gives the cube's pixels.
        scenes: by id; a chip of which one is not here has no residual.
        numbers: the cube's number of each scene, by id.
        allow_cloudy: whether the run let cloud fill what nothing clear covers.

    Raises:
        ReadError: a scene cannot be read.
    """
    planned = {(chip.epsg, chip.index) for chip in chips}

    def measure(chip: ChipPlan) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        steps = steps_at_chip(read, grid, chip.epsg, chip.index, planned)
        if not chip.scenes or not all(scene in scenes for scene in chip.scenes):
            return steps, np.zeros((len(BANDS), 2))
        window = grid.chip_window(chip.index)
        measured = read_chip(window, [scenes[s] for s in chip.scenes], allow_cloudy=allow_cloudy)
        lookup = np.array([0, *(numbers[s] for s in chip.scenes)], np.uint16)
        pixels, source = made(read, chip.epsg, window)
        return steps, _residual(pixels, source, measured.dn, lookup[measured.source], grid)

    seams: list[NDArray[np.float64]] = []
    residuals = np.zeros((len(BANDS), 2))
    with ThreadPoolExecutor(max_workers=2) as pool:
        for found, residual in pool.map(measure, sample_of(chips)):
            seams.extend(found)
            residuals += residual
    ratios, errors = seam_ratios(seams)
    return [_judged(i, ratios[i], errors[i], residuals[i]) for i in range(len(BANDS))]


def _judged(i: int, seam_ratio: float, seam_error: float, residual: NDArray[np.float64]) -> BandReport:
    """The figures of the i-th band; `residual`: sum and count."""
    band = BANDS[i]
    mean = float(residual[0] / residual[1]) if residual[1] else float("nan")
    true_to_scenes = np.isnan(mean) or mean <= RESIDUAL_LIMIT[GSD_M[band]]
    ok = bool(is_seamless(seam_ratio, seam_error) and true_to_scenes)
    return BandReport(band, round(float(seam_ratio), 4), round(float(seam_error), 4), round(mean, 6), ok)


def is_seamless(seam_ratio: float, seam_error: float) -> bool:
    """Whether a seam ratio is in its range, or less than two standard errors off; so is one that is not known."""
    low, high = seam_ratio - 2 * seam_error, seam_ratio + 2 * seam_error
    return bool(np.isnan(seam_ratio) or (low <= SEAM_RANGE[1] and high >= SEAM_RANGE[0]))


def _residual(
    pixels: NDArray[np.uint16],
    source: NDArray[np.uint16],
    measured: Mapping[int, NDArray[np.uint16]],
    measured_source: NDArray[np.uint16],
    grid: Grid,
) -> NDArray[np.float64]:
    """(bands, 2): sum and count of |cube as the sensor would see it − scene| in reflectance, where both show one scene.

    Pixels within 60 m of the window's edge, or of another scene, are left out: the sensor sees past them.
    """
    expected = measured_source.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    same = (source == expected) & (source > 0)
    cube = torch.from_numpy(pixels.astype(np.float32) / DN_SCALE)
    out = np.zeros((len(BANDS), 2))
    for gsd, bands in GROUPS.items():
        n = grid.chip_px * 10 // gsd
        factor = pixels.shape[-1] // n
        order = [BANDS.index(band) for band in bands]
        seen = observe(cube[order][None], sensor_for_group(gsd, n))[0].numpy()
        difference = np.abs(seen - measured[gsd].astype(np.float32) / DN_SCALE)
        good = _eroded(same.reshape(n, factor, n, factor).all(axis=(1, 3)), max(1, 60 // gsd))
        out[order] = np.stack([difference[:, good].sum(axis=1), np.full(len(bands), float(good.sum()))], axis=1)
    return out


def _eroded(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """True where everything within `reach` pixels is true; false at the edge."""
    padded: NDArray[np.bool_] = np.pad(mask, reach)
    out = np.ones_like(mask)
    size = 2 * reach + 1
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=axis)
        padded = np.all(windows, axis=-1)
    return out & padded


def sample_of(chips: Sequence[ChipPlan]) -> list[ChipPlan]:
    """All chips, or 200 of them spread evenly: always the same ones."""
    if len(chips) <= _SAMPLE:
        return list(chips)
    return [chips[int(i)] for i in np.linspace(0, len(chips) - 1, _SAMPLE)]
