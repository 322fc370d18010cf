"""What a period of a cube is checked against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import Grid
from difffusr.pipeline.plan import StoredPlan
from difffusr.pipeline.plan.balance import Balanced
from difffusr.pipeline.readers.report.windows import PeriodPixels
from difffusr.pipeline.scenes import ChipRules, Scene
from difffusr.pipeline.storage import Storage


@dataclass(frozen=True, eq=False)
class Reference:
    """What a period is checked against: plan, grid and scenes, as far as they are known; and the run's folder, in which
    masks may be kept."""

    cube: Cube
    label: str
    plan: StoredPlan | None
    grid: Grid | None
    scenes: Mapping[str, Scene]
    kept: Storage | None = None

    @property
    def pixels(self) -> PeriodPixels:
        """Reads the cube's pixels."""
        return PeriodPixels(self.cube, self.label)

    @property
    def facts(self) -> dict[int, Mapping[str, Any]]:
        """Of the cube's scenes, by number."""
        return dict(self.cube.scenes)

    @property
    def numbers(self) -> dict[str, int]:
        """The cube's number of each scene, by id."""
        return {str(facts["id"]): number for number, facts in self.facts.items()}

    @property
    def rules(self) -> ChipRules:
        """How the run took pixels from scenes."""
        config = {} if self.plan is None else self.plan.manifest["config"]
        return ChipRules.of(config.get("scenes", {}), self.kept)


def as_balanced(
    scenes: Mapping[str, Scene], plan: StoredPlan, made: Balanced | None
) -> tuple[dict[str, Scene], list[str]]:
    """The scenes as the plan balanced them, and why some are missing: their pixels can be compared with the cube's only
    with exactly what was done to them.

    Args:
        scenes: of the catalogue, by id.
        made: the balance that is kept beside the plan; None if it is not there.
    """
    if "correction" not in plan.scenes:
        return dict(scenes), []
    wanted = dict(zip(plan.scenes["id"], plan.scenes["correction"], strict=True))
    given = scenes if made is None else {scene.id: scene for scene in made.applied_to(list(scenes.values()))}
    same = {name: scene for name, scene in given.items() if _mark(scene) == wanted.get(name, "")}
    if len(same) == len(given):
        return same, []
    what = f"what was done to {len(given) - len(same)} of {len(given)} scenes is not kept beside the plan"
    return same, [f"The cube is made of balanced scenes, but {what} (balance.parquet); their chips are not compared."]


def _mark(scene: Scene) -> str:
    """Identifies a scene's correction, as the plan's table does."""
    return "" if scene.correction is None else scene.correction.key()
