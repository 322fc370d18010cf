"""Is a cube seamless, and true to its scenes: seam ratio and residual by band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, GROUPS, GSD_M, SCALE
from difffusr.kernels.images.consistency import observe, sensor_for_group
from difffusr.pipeline.geo.grid import ChipIndex, Grid
from difffusr.pipeline.ground.pixels import DN_SCALE
from difffusr.pipeline.plan.tables import ChipPlan, Chips
from difffusr.pipeline.readers.seams import Read, made, seam_ratios, steps_at_chip
from difffusr.pipeline.scenes.chip import read_chip
from difffusr.pipeline.scenes.item import Scene

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
    planned = _places(chips)

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


def _places(chips: Sequence[ChipPlan]) -> set[tuple[int, ChipIndex]]:
    """Zone and place of every chip; of a table of millions without making a `ChipPlan` of each."""
    if not isinstance(chips, Chips):
        return {(chip.epsg, chip.index) for chip in chips}
    columns = zip(chips.epsg.tolist(), chips.row.tolist(), chips.col.tolist(), strict=True)
    return {(epsg, ChipIndex(row, col)) for epsg, row, col in columns}


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
