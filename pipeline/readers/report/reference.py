"""What a period of a cube is checked against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import Grid
from difffusr.pipeline.plan import StoredPlan
from difffusr.pipeline.readers.report.windows import PeriodPixels
from difffusr.pipeline.scenes import ChipRules, Scene


@dataclass(frozen=True, eq=False)
class Reference:
    """What a period is checked against: plan, grid and scenes, as far as they are known."""

    cube: Cube
    label: str
    plan: StoredPlan | None
    grid: Grid | None
    scenes: Mapping[str, Scene]

    @property
    def pixels(self) -> PeriodPixels:
        """Reads the cube's pixels."""
        return PeriodPixels(self.cube, self.label)

    @property
    def facts(self) -> dict[int, Mapping[str, Any]]:
        """Of the cube's scenes, by number."""
        return {int(number): facts for number, facts in self.cube.attributes.get("difffusr:scenes", {}).items()}

    @property
    def numbers(self) -> dict[str, int]:
        """The cube's number of each scene, by id."""
        return {str(facts["id"]): number for number, facts in self.facts.items()}

    @property
    def rules(self) -> ChipRules:
        """How the run took pixels from scenes."""
        config = {} if self.plan is None else self.plan.manifest["config"]
        return ChipRules.of(config.get("scenes", {}))
