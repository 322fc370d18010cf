"""What balance did to a period's scenes: from its plan, or from the cube alone."""

from __future__ import annotations

from difffusr.pipeline.config import ScenesSection
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.plan import SceneBalance
from difffusr.pipeline.readers.report.facts import BalanceFacts
from difffusr.pipeline.readers.report.run_records import RunRecords
from difffusr.pipeline.readers.report.survey import Survey


def balance_of(cube: Cube, records: RunRecords, survey: Survey) -> BalanceFacts | None:
    """From the plan if it is there; else from the cube's table of the scenes that its pixels are from."""
    config = (cube.made_with if records.plan is None else records.plan.manifest).get("config", {})
    wishes = config.get("scenes", {})
    if records.plan is not None:
        used = frozenset(map(str, records.plan.scenes["id"]))
        done = SceneBalance.of(records.plan) if records.balanced is None else SceneBalance.of_all(records.balanced)
    else:
        facts = [cube.scenes[number] for number in sorted(survey.scenes) if number in cube.scenes]
        used = frozenset(str(one["id"]) for one in facts)
        done = SceneBalance.of_cube(facts)
    if done is None:
        return None
    defaults = ScenesSection()
    sun, most = wishes.get("sun", defaults.sun), wishes.get("max_offset", defaults.max_offset)
    return BalanceFacts(str(sun), float(most), done, used)
