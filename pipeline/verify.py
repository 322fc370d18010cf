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
from pipeline.config import RunConfig
from pipeline.cube import CubeDraft, CubeReader, metadata, objects_of
from pipeline.errors import StoreError
from pipeline.grid import Grid, PixelWindow
from pipeline.ledger import OVERVIEWS, Ledger, read_entry, shard_digests
from pipeline.overviews import overview_name, plan_overviews
from pipeline.places import cube_staging_of, staging_of, storage_of
from pipeline.plan import ChipPlan, Plan
from pipeline.planner import grid_of
from pipeline.publication import Target
from pipeline.publishing import open_target
from pipeline.reader import Quality, read_chip
from pipeline.work import decide, draft_of, numbers_of, places_of

#: What a clean cube keeps: seam ratio by band, mean absolute residual in reflectance of 10 m bands and of the others.
SEAM_RANGE = (0.9, 1.1)
RESIDUAL_LIMIT = {10: 0.003, 20: 0.005, 60: 0.005}

#: Chips whose residual and seams are measured when a cube has more: evenly spread, always the same ones.
_SAMPLE = 200

#: The phase in which upsampled bands repeat: steps are compared only with steps of the same phase.
_PERIOD_PX = 24

#: How far inside the chips on both sides of a boundary steps are measured, in 2.5 m pixels.
_STRIP_PX = 4 * _PERIOD_PX


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
    bands = [] if damaged else _measure_bands(config, plan, grid, cube, draft)
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
    for chip in _sample(plan.chips):
        counts += np.bincount(cube.read(chip.epsg, "quality", grid.chip_window(chip.index)).ravel(), minlength=256)
    return {flag.name.lower(): round(float(counts[flag] / counts.sum()), 4) for flag in Quality}


def _measure_bands(config: RunConfig, plan: Plan, grid: Grid, cube: CubeReader, draft: CubeDraft) -> list[BandReport]:
    scenes = {scene.id: scene for scene in plan.scenes}
    numbers = {facts["id"]: number for number, facts in draft.scenes.items()}
    planned = {(chip.epsg, chip.index) for chip in plan.chips}

    def made(epsg: int, window: PixelWindow) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Pixels and sources; none where nothing came out of the networks: it is not held against them."""
        pixels, source, quality = (cube.read(epsg, name, window) for name in ("reflectance", "source", "quality"))
        return pixels, np.where(quality >= Quality.INTERPOLATED, 0, source)

    def measure(chip: ChipPlan) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        window = grid.chip_window(chip.index)
        seams = []
        if (chip.epsg, chip.index._replace(col=chip.index.col - 1)) in planned:
            strip = window._replace(col=window.col - _STRIP_PX, width=grid.overlap_px * SCALE + 2 * _STRIP_PX)
            pixels, source = made(chip.epsg, strip)
            seams.append(_steps_across(pixels, source, grid))
        if (chip.epsg, chip.index._replace(row=chip.index.row - 1)) in planned:
            strip = window._replace(row=window.row - _STRIP_PX, height=grid.overlap_px * SCALE + 2 * _STRIP_PX)
            pixels, source = made(chip.epsg, strip)
            seams.append(_steps_across(pixels.swapaxes(1, 2), source.T, grid))
        measured = read_chip(window, [scenes[s] for s in chip.scenes], allow_cloudy=config.scenes.allow_cloudy)
        lookup = np.array([0, *(numbers[s] for s in chip.scenes)], np.uint16)
        pixels, source = made(chip.epsg, window)
        return seams, _residual(pixels, source, measured.dn, lookup[measured.source], grid)

    seams: list[NDArray[np.float64]] = []
    residuals = np.zeros((len(BANDS), 2))
    with ThreadPoolExecutor(max_workers=2) as pool:
        for found, residual in pool.map(measure, _sample(plan.chips)):
            seams.extend(found)
            residuals += residual
    ratios, errors = _seam_ratios(seams)
    reports = []
    for i, band in enumerate(BANDS):
        residual_of_band = float(residuals[i, 0] / residuals[i, 1]) if residuals[i, 1] else float("nan")
        low, high = ratios[i] - 2 * errors[i], ratios[i] + 2 * errors[i]
        seamless = np.isnan(ratios[i]) or (low <= SEAM_RANGE[1] and high >= SEAM_RANGE[0])
        true_to_scenes = np.isnan(residual_of_band) or residual_of_band <= RESIDUAL_LIMIT[GSD_M[band]]
        ratio, error = round(float(ratios[i]), 4), round(float(errors[i]), 4)
        ok = bool(seamless and true_to_scenes)
        reports.append(BandReport(band, ratio, error, round(residual_of_band, 6), ok))
    return reports


def _seam_ratios(seams: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seam ratio of each band and its standard error, by the jackknife over chip edges; NaN without edges."""

    def ratio(total: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: NDArray[np.float64] = (total[..., 0] / total[..., 1]) / (total[..., 2] / total[..., 3])
        return result

    edges = np.array([seam for seam in seams if seam[0, 1] > 0 and seam[0, 3] > 0])
    if not len(edges):
        return np.full(len(BANDS), np.nan), np.full(len(BANDS), np.nan)
    whole = ratio(edges.sum(axis=0))
    if len(edges) == 1:
        return whole, np.full(len(BANDS), np.inf)
    without = ratio(edges.sum(axis=0) - edges)  # (edges, bands)
    n = len(edges)
    return whole, np.sqrt((n - 1) / n * ((without - without.mean(axis=0)) ** 2).sum(axis=0))


def _steps_across(pixels: NDArray[np.uint16], source: NDArray[np.uint16], grid: Grid) -> NDArray[np.float64]:
    """Absolute steps between neighbouring columns where the chip on the left ends, and inside the chips beside.

    Boundaries are the columns at which a chip's weight begins, reaches a half, and reaches one. Each is compared with
    columns of the same phase inside the chip on the left and inside the chip on the right.

    Args:
        pixels: (bands, h, overlap + 2·_STRIP_PX) uint16, the overlap in the middle.
        source: (h, overlap + 2·_STRIP_PX) uint16.

    Returns:
        (bands, 4): sum and count at boundaries, sum and count inside.
    """
    overlap, margin = grid.overlap_px * SCALE, grid.margin_px * SCALE
    out = np.zeros((len(BANDS), 4))
    for boundary in (margin, overlap // 2, overlap - margin):
        phase = (_STRIP_PX + boundary) % _PERIOD_PX
        columns = range(phase or _PERIOD_PX, pixels.shape[-1], _PERIOD_PX)
        inside = [c for c in columns if c <= _STRIP_PX or c > _STRIP_PX + overlap]
        out[:, :2] += _step_sum(pixels, source, _STRIP_PX + boundary)
        for column in inside:
            out[:, 2:] += _step_sum(pixels, source, column)
    return out


def _step_sum(pixels: NDArray[np.uint16], source: NDArray[np.uint16], col: int) -> NDArray[np.float64]:
    """(bands, 2): sum and count of |step| between columns col − 1 and col within one scene."""
    same = (source[:, col - 1] == source[:, col]) & (source[:, col] > 0)
    steps = np.abs(pixels[:, :, col].astype(np.float64) - pixels[:, :, col - 1])
    return np.stack([steps[:, same].sum(axis=1), np.full(len(pixels), float(same.sum()))], axis=1)


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


def _sample(chips: Sequence[ChipPlan]) -> list[ChipPlan]:
    """All chips, or `_SAMPLE` of them spread evenly."""
    if len(chips) <= _SAMPLE:
        return list(chips)
    return [chips[int(i)] for i in np.linspace(0, len(chips) - 1, _SAMPLE)]
