"""What of a cube and its source a report may read; its seams and residual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.grid import ChipIndex, Grid, ShardIndex
from difffusr.pipeline.ground.errors import DifffusrError, StoreError
from difffusr.pipeline.plan.tables import ChipPlan, StoredPlan
from difffusr.pipeline.readers.bands import BandReport, measure_bands, sample_of
from difffusr.pipeline.readers.report.facts import SHARDS, Seams
from difffusr.pipeline.readers.report.survey import Reader, Survey, shard_px
from difffusr.pipeline.readers.seams import seam_ratios, steps_at_shard
from difffusr.pipeline.scenes.item import Scene


@dataclass(frozen=True, eq=False)
class Source:
    """What a period is measured against: its plan, its lattice and its scenes, as far as they are known."""

    cube: Cube
    label: str
    plan: StoredPlan | None
    grid: Grid | None
    scenes: Mapping[str, Scene]

    @property
    def read(self) -> Reader:
        """Gives the cube's pixels."""
        return Reader(self.cube, self.label)

    @property
    def numbers(self) -> dict[str, int]:
        """The cube's number of each scene by its id."""
        told = self.cube.attributes.get("difffusr:scenes", {})
        return {str(facts["id"]): int(number) for number, facts in told.items()}

    @property
    def allow_cloudy(self) -> bool:
        """Whether the run let cloud fill what nothing clear covers."""
        config = {} if self.plan is None else self.plan.manifest["config"]
        return bool(config.get("scenes", {}).get("allow_cloudy", True))


def seams_of(source: Source, survey: Survey) -> tuple[Seams, list[str]]:
    """Seams and residual, and why they could not be measured."""
    read, notes = source.read, []
    bands: list[BandReport] = []
    chips: Sequence[ChipPlan] = ()
    scenes = {name: scene for name, scene in source.scenes.items() if name in source.numbers}
    if source.grid is None:
        notes.append("The cube does not say where its chips lie: seams of chips are not measured.")
    else:
        chips = _chips(source.grid, survey) if source.plan is None else source.plan.chips
        bands, why = _measured(source, source.grid, chips, read, scenes)
        scenes = {} if why else scenes
        notes += why
    compared = [chip for chip in sample_of(chips) if chip.scenes and all(name in scenes for name in chip.scenes)]
    shards = _some_shards(source.cube, survey)
    steps = [found for epsg, shard in shards for found in steps_at_shard(read, shard_size(source.cube), epsg, shard)]
    ratio, error = seam_ratios(steps)
    borders = sum(1 for step in steps if step[0, 1] and step[0, 3])
    of_chips = 0 if source.plan is None else len(chips)
    return Seams(bands, len(sample_of(chips)), of_chips, len(compared), borders, ratio, error), notes


def _measured(
    source: Source, grid: Grid, chips: Sequence[ChipPlan], read: Reader, scenes: Mapping[str, Scene]
) -> tuple[list[BandReport], list[str]]:
    """Figures by band, of the cube alone where a scene cannot be read; and why."""
    cloudy = source.allow_cloudy
    try:
        return measure_bands(chips, read, grid, scenes, source.numbers, allow_cloudy=cloudy), []
    except StoreError:
        raise
    except DifffusrError as error:
        why = [f"A scene cannot be read, nothing is compared with them: {error}"]
        return measure_bands(chips, read, grid, {}, source.numbers, allow_cloudy=cloudy), why


def _chips(grid: Grid, survey: Survey) -> list[ChipPlan]:
    """Chips that touch shards with data: more than a plan would have, and those beyond the data show no steps."""
    found: set[tuple[int, ChipIndex]] = set()
    for cell in survey.cells:
        if cell.with_data:
            first = cell.window._replace(height=grid.shard_px, width=grid.shard_px)
            found.update((cell.epsg, chip) for chip in grid.chips_touching(first))
    return [ChipPlan(epsg, chip, (), 0.0, 0.0, "") for epsg, chip in sorted(found)]


def _some_shards(cube: Cube, survey: Survey) -> list[tuple[int, ShardIndex]]:
    """Shards that hold data, evenly spread; the first one of a cell."""
    cells = [cell for cell in survey.cells if cell.with_data]
    size = shard_size(cube)
    chosen = [cells[int(i)] for i in np.unique(np.linspace(0, len(cells) - 1, SHARDS).round())] if cells else []
    return [(cell.epsg, ShardIndex(cell.window.row // size, cell.window.col // size)) for cell in chosen]


def shard_size(cube: Cube) -> int:
    return shard_px(cube, next(iter(cube.zones)))
