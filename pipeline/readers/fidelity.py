"""Is a cube seamless, and true to its scenes: seams of chips, seams between scenes, and residual of each band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from difffusr.kernels.bands import BANDS, GROUPS, GSD_M, SCALE
from difffusr.kernels.images import observe, sensor_for_group
from difffusr.pipeline.geo import ChipIndex, Grid
from difffusr.pipeline.ground.pixels import DN_SCALE
from difffusr.pipeline.plan import ChipPlan, Chips
from difffusr.pipeline.readers.band_shifts import ShiftCheck
from difffusr.pipeline.readers.gridness import GridCheck
from difffusr.pipeline.readers.seams import Read, networks_pixels, read_once, sampled_chips, seam_ratios, steps_at_chip
from difffusr.pipeline.readers.source_seams import SourceBorder, source_borders, surroundings
from difffusr.pipeline.readers.source_verdicts import SceneFacts, judge_sources, worst_border
from difffusr.pipeline.readers.verdicts import (
    RESIDUAL_LIMIT,
    BandReport,
    SceneShift,
    SourceSeams,
    WorstBorder,
    is_seamless,
)
from difffusr.pipeline.scenes import ChipRules, Scene, read_chip


@dataclass(frozen=True)
class Fidelity:
    """What was measured at the sampled chips.

    Attributes:
        bands: seams of chips, residual and gridness of each band.
        sources: seams between scenes, by kind.
        worst_border: of those; None if there is none.
        shifted: scenes whose bands are shifted against each other.
    """

    bands: list[BandReport]
    sources: list[SourceSeams]
    worst_border: WorstBorder | None
    shifted: list[SceneShift] = field(default_factory=list)


def measure_fidelity(
    chips: Sequence[ChipPlan],
    read: Read,
    grid: Grid,
    scenes: Mapping[str, Scene],
    facts: SceneFacts,
    rules: ChipRules,
) -> Fidelity:
    """Seams of chips and between scenes, residual against the scenes, gridness, shifted bands; at `sampled_chips`.

    Args:
        chips: all planned ones; seams of chips are looked for where two of them meet.
        read: reads the cube's pixels.
        scenes: by id; a chip with a scene that is missing here has no residual.
        facts: of the cube's scenes, by number.
        rules: how the run took pixels from scenes.

    Raises:
        ReadError: a scene cannot be read.
    """
    planned = _places(chips)
    numbers = {str(scene["id"]): number for number, scene in facts.items()}
    sampled = sampled_chips(chips)
    grids, shifts = GridCheck(sampled), ShiftCheck(sampled)

    def measure(chip: ChipPlan) -> tuple[list[NDArray[np.float64]], list[SourceBorder], NDArray[np.float64]]:
        here = read_once(read, chip.epsg, surroundings(grid, chip.index))
        steps = steps_at_chip(here, grid, chip.epsg, chip.index, planned)
        # In a composite a pixel's source is the scene with most weight: where that changes is no border.
        mixed = rules.composite != "none"
        borders = [] if mixed else source_borders(here, grid, chip.epsg, chip.index)
        if not chip.scenes or not all(scene in scenes for scene in chip.scenes):
            return steps, borders, np.zeros((len(BANDS), 2))
        window = grid.chip_window(chip.index)
        measured = read_chip(window, [scenes[s] for s in chip.scenes], rules)
        lookup = np.array([0, *(numbers[s] for s in chip.scenes)], np.uint16)
        pixels, source = networks_pixels(here, chip.epsg, window)
        grids.look(chip, pixels, source)
        shifts.look(chip, measured)
        if rules.composite != "none" or rules.blend != "hard":
            source = _of_chip_alone(source, grid)
        return steps, borders, _residual(pixels, source, measured.dn, lookup[measured.source], grid)

    seams: list[NDArray[np.float64]] = []
    borders: list[SourceBorder] = []
    residuals = np.zeros((len(BANDS), 2))
    with ThreadPoolExecutor(max_workers=2) as pool:
        for steps, found, residual in pool.map(measure, sampled):
            seams.extend(steps)
            borders.extend(found)
            residuals += residual
    ratios, errors = seam_ratios(seams)
    bands = grids.judged([_judged(i, ratios[i], errors[i], residuals[i]) for i in range(len(BANDS))])
    return Fidelity(bands, judge_sources(borders, facts), worst_border(borders, facts), shifts.shifted())


def _places(chips: Sequence[ChipPlan]) -> set[tuple[int, ChipIndex]]:
    """Zone and place of every chip, without making a `ChipPlan` for each of millions in a table."""
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


def _residual(
    pixels: NDArray[np.uint16],
    source: NDArray[np.uint16],
    measured: Mapping[int, NDArray[np.uint16]],
    measured_source: NDArray[np.uint16],
    grid: Grid,
) -> NDArray[np.float64]:
    """(bands, 2): sum and count of |cube as the sensor would see it − scene| in reflectance, where both show one scene.

    Pixels within 60 m of the window's edge or of another scene are left out, because the sensor sees beyond them.
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
        good = erode(same.reshape(n, factor, n, factor).all(axis=(1, 3)), max(1, 60 // gsd))
        out[order] = np.stack([difference[:, good].sum(axis=1), np.full(len(bands), float(good.sum()))], axis=1)
    return out


def _of_chip_alone(source: NDArray[np.uint16], grid: Grid) -> NDArray[np.uint16]:
    """Sources of the pixels that no neighbour shares, 0 elsewhere: a composite, or a blend of two scenes, of the
    neighbour's own is other than the chip's, although its source is the same."""
    shared = grid.overlap_px * SCALE
    inside = slice(shared, source.shape[0] - shared)
    alone = np.zeros_like(source)
    alone[inside, inside] = source[inside, inside]
    return alone


def erode(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """True where everything within `reach` pixels, diagonals included, is true; pixels beyond the edge are false."""
    square = np.ones((2 * reach + 1, 2 * reach + 1), bool)
    return np.asarray(ndimage.binary_erosion(mask, square), bool)
