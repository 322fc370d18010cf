"""Seams and residual of a period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import ChipIndex, Grid, ShardIndex
from difffusr.pipeline.ground.errors import DifffusrError, StoreError
from difffusr.pipeline.plan import ChipPlan
from difffusr.pipeline.readers.report.facts import MOST_SHARDS, Seams
from difffusr.pipeline.readers.report.reference import Reference
from difffusr.pipeline.readers.report.survey import Survey
from difffusr.pipeline.readers.report.windows import PeriodPixels, shard_side
from difffusr.pipeline.readers.seams import sampled_chips, seam_ratios, steps_at_shard
from difffusr.pipeline.scenes import Scene

if TYPE_CHECKING:
    from difffusr.pipeline.readers.fidelity import Fidelity


def check_seams(reference: Reference, survey: Survey) -> tuple[Seams, list[str]]:
    """Measure seams and residual of a period; also what could not be measured, and why."""
    read, notes = reference.pixels, []
    found = None
    chips: Sequence[ChipPlan] = ()
    scenes = {name: scene for name, scene in reference.scenes.items() if name in reference.numbers}
    if reference.cube.in_one_crs:
        pass  # made of shards, not of chips
    elif reference.grid is None:
        notes.append("The cube does not say where its chips are, so seams of chips are not measured.")
    else:
        chips = _chips(reference.grid, survey) if reference.plan is None else reference.plan.chips
        found, why = _measured(reference, reference.grid, chips, read, scenes)
        scenes = {} if why else scenes
        notes += why
    compared = [chip for chip in sampled_chips(chips) if chip.scenes and all(name in scenes for name in chip.scenes)]
    shards = _some_shards(reference.cube, survey)
    side = shard_side(reference.cube)
    steps = [border for epsg, shard in shards for border in steps_at_shard(read, side, epsg, shard)]
    ratio, error = seam_ratios(steps)
    borders = sum(1 for step in steps if step[0, 1] and step[0, 3])
    of_chips = 0 if reference.plan is None else len(chips)
    bands, sources, worst = ([], [], None) if found is None else (found.bands, found.sources, found.worst_border)
    measured = len(sampled_chips(chips)), of_chips, len(compared)
    return Seams(bands, *measured, borders, ratio, error, sources, worst), notes


def _measured(
    reference: Reference, grid: Grid, chips: Sequence[ChipPlan], read: PeriodPixels, scenes: Mapping[str, Scene]
) -> tuple[Fidelity, list[str]]:
    """What `verify` measures; if a scene cannot be read, what can be said of the cube alone, and why."""
    # Measuring needs torch and scipy.
    from difffusr.pipeline.readers.fidelity import measure_fidelity

    try:
        return measure_fidelity(chips, read, grid, scenes, reference.facts, reference.rules), []
    except StoreError:
        raise
    except DifffusrError as error:
        why = [f"A scene cannot be read, so nothing is compared with the scenes: {error}"]
        return measure_fidelity(chips, read, grid, {}, reference.facts, reference.rules), why


def _chips(grid: Grid, survey: Survey) -> list[ChipPlan]:
    """Chips that touch shards with data. Those that a plan would lack lie outside the data and show no steps."""
    found: set[tuple[int, ChipIndex]] = set()
    for cell in survey.cells:
        if cell.with_data:
            first = cell.window._replace(height=grid.shard_px, width=grid.shard_px)
            found.update((cell.epsg, chip) for chip in grid.chips_touching(first))
    return [ChipPlan(epsg, chip, (), 0.0, 0.0, "") for epsg, chip in sorted(found)]


def _some_shards(cube: Cube, survey: Survey) -> list[tuple[int, ShardIndex]]:
    """Evenly spread shards with data; the first one of each cell."""
    cells = [cell for cell in survey.cells if cell.with_data]
    size = shard_side(cube)
    chosen = [cells[int(i)] for i in np.unique(np.linspace(0, len(cells) - 1, MOST_SHARDS).round())] if cells else []
    return [(cell.epsg, ShardIndex(cell.window.row // size, cell.window.col // size)) for cell in chosen]
