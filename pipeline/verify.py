"""Is a cube whole and seamless? Every shard against the ledger, every band for seams and against its source scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.bands import BANDS, GROUPS, GSD_M, SCALE
from kernels.consistency import observe, sensor_for_group
from pipeline.actor import DN_SCALE
from pipeline.catalog import find_scenes
from pipeline.config import RunConfig
from pipeline.cube import CubeDraft, CubeReader
from pipeline.errors import StoreError
from pipeline.grid import Grid
from pipeline.planner import ChipPlan, Plan, grid_of, make_plan
from pipeline.reader import Quality, read_chip
from pipeline.run import draft_of, fingerprint_of, read_ledger_entry, staging_of, storage_of
from pipeline.storage import Storage

#: What a clean cube keeps: seam ratio by band, mean absolute residual in reflectance of 10 m bands and of the others.
SEAM_RANGE = (0.9, 1.1)
RESIDUAL_LIMIT = {10: 0.003, 20: 0.005, 60: 0.005}

#: Chips whose residual and seams are measured when a cube has more: evenly spread, always the same ones.
_SAMPLE = 200

#: The phase in which upsampled bands repeat: steps are compared only with steps of the same phase.
_PERIOD_PX = 24


@dataclass(frozen=True)
class BandReport:
    """One band's figures.

    Attributes:
        seam_ratio: mean absolute step across chip boundaries over the same inside chips; NaN without boundaries.
        residual: mean absolute difference, reflectance, between the cube as the sensor would see it and the scenes.
        ok: both within the limits.
    """

    band: str
    seam_ratio: float
    residual: float
    ok: bool


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        shards: planned.
        missing, damaged, incomplete: names of shards never written, not as the ledger says, written without some chip.
        valid_share: share of the planned chips' pixels that hold data.
        bands: figures by band; empty when the shards are not readable.
        flags: share of each quality flag among the pixels of the planned chips.
    """

    shards: int
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
    if not storage.exists("zarr.json"):
        raise StoreError(f"{storage.url}: there is no cube to verify; `difffusr run` writes it")
    plan = make_plan(config, find_scenes(config), fingerprint_of(config))
    draft = draft_of(config, plan)
    missing, damaged, incomplete = _check_shards(plan, draft, staging_of(config))
    grid = grid_of(config)
    cube = CubeReader(storage, draft)
    flags = _flag_shares(cube, plan, grid)
    valid = 1.0 - flags["no_data"]
    bands = [] if damaged else _measure_bands(config, plan, grid, cube, draft)
    return Report(len(plan.shards), missing, damaged, incomplete, round(valid, 4), flags, bands)


def _check_shards(plan: Plan, draft: CubeDraft, staging: Storage) -> tuple[list[str], list[str], list[str]]:
    """Names of shards that are missing, damaged, incomplete."""
    missing, damaged, incomplete = [], [], []
    for shard in plan.shards:
        entry = read_ledger_entry(staging, shard)
        if entry is None or entry["key"] != shard.key:
            missing.append(shard.name)
            continue
        if entry["missing"]:
            incomplete.append(shard.name)
        for path, checksum in entry["objects"].items():
            if not draft.storage.exists(path):
                missing.append(shard.name)
                break
            if hashlib.sha256(draft.storage.read(path)).hexdigest() != checksum:
                damaged.append(shard.name)
                break
    return missing, damaged, incomplete


def _flag_shares(cube: CubeReader, plan: Plan, grid: Grid) -> dict[str, float]:
    counts: NDArray[np.int64] = np.zeros(256, np.int64)
    for chip in _sample(plan.chips):
        counts += np.bincount(cube.read(chip.epsg, "quality", grid.chip_window(chip.index)).ravel(), minlength=256)
    return {flag.name.lower(): round(float(counts[flag] / counts.sum()), 4) for flag in Quality}


def _measure_bands(config: RunConfig, plan: Plan, grid: Grid, cube: CubeReader, draft: CubeDraft) -> list[BandReport]:
    seams = _Sums(len(BANDS))
    residuals = _Sums(len(BANDS))
    scenes = {scene.id: scene for scene in plan.scenes}
    numbers = {facts["id"]: number for number, facts in draft.scenes.items()}
    planned = {(chip.epsg, chip.index) for chip in plan.chips}

    def measure(chip: ChipPlan) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        window = grid.chip_window(chip.index)
        pixels = cube.read(chip.epsg, "reflectance", window)
        source = cube.read(chip.epsg, "source", window)
        has_left = (chip.epsg, chip.index._replace(col=chip.index.col - 1)) in planned
        has_above = (chip.epsg, chip.index._replace(row=chip.index.row - 1)) in planned
        steps = []
        if has_left:
            steps.append(_steps_across(pixels, source, grid))
        if has_above:
            steps.append(_steps_across(pixels.swapaxes(1, 2), source.T, grid))
        measured = read_chip(window, [scenes[s] for s in chip.scenes], allow_cloudy=config.scenes.allow_cloudy)
        lookup = np.array([0, *(numbers[s] for s in chip.scenes)], np.uint16)
        return steps, [_residual(pixels, source, measured.dn, lookup[measured.source], grid)]

    with ThreadPoolExecutor(max_workers=2) as pool:
        for steps, differences in pool.map(measure, _sample(plan.chips)):
            for step in steps:
                seams.add(step)
            for difference in differences:
                residuals.add(difference)
    reports = []
    for i, band in enumerate(BANDS):
        boundary, count_boundary, inside, count_inside = seams.total[i]
        ratio = (boundary / count_boundary) / (inside / count_inside) if count_boundary and inside else float("nan")
        total, count = residuals.total[i][:2]
        residual = total / count if count else float("nan")
        seam_ok = np.isnan(ratio) or SEAM_RANGE[0] <= ratio <= SEAM_RANGE[1]
        ok = bool(seam_ok and (np.isnan(residual) or residual <= RESIDUAL_LIMIT[GSD_M[band]]))
        reports.append(BandReport(band, round(float(ratio), 4), round(float(residual), 6), ok))
    return reports


class _Sums:
    """Sums by band of up to four quantities."""

    def __init__(self, bands: int) -> None:
        self.total: NDArray[np.float64] = np.zeros((bands, 4))

    def add(self, values: NDArray[np.float64]) -> None:
        """Add (bands, k) values, k ≤ 4."""
        self.total[:, : values.shape[1]] += values


def _steps_across(pixels: NDArray[np.uint16], source: NDArray[np.uint16], grid: Grid) -> NDArray[np.float64]:
    """Absolute steps between neighbouring columns where the chip on the left ends, and inside chips.

    Boundaries are the columns at which a chip's weight begins, reaches a half, and reaches one. Each is compared with
    columns of the same phase outside the overlap, left and right of it as far as the window allows.

    Returns:
        (bands, 4): sum and count at boundaries, sum and count inside.
    """
    overlap, margin = grid.overlap_px * SCALE, grid.margin_px * SCALE
    size = pixels.shape[-1]
    boundaries = [margin, overlap // 2, overlap - margin]
    inside_from, inside_to = overlap + 1, size - overlap - 1
    out = np.zeros((len(BANDS), 4))
    for boundary in boundaries:
        first = boundary + _PERIOD_PX * int(np.ceil((inside_from - boundary) / _PERIOD_PX))
        references = list(range(first, min(first + 4 * _PERIOD_PX, inside_to), _PERIOD_PX))
        out[:, :2] += _step_sum(pixels, source, boundary)
        for reference in references:
            out[:, 2:] += _step_sum(pixels, source, reference)
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
