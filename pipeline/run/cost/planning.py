"""What planning takes: scenes looked at, granules' metadata, overlaps compared."""

from __future__ import annotations

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.plan import Plan, most_overlaps, scenes_at_once
from difffusr.pipeline.run.cost.calibration import Planning, SceneStep
from difffusr.pipeline.run.cost.figures import PlanningWork

_MORE = ("none", "nbar", "full")

#: Objects that hold the balance: of the plan, and of its copy. Masks that are made while planning and kept.
_OF_BALANCE, _KEPT = 2, ("csmask",)


def planning_work(plan: Plan, config: RunConfig, measured: Planning | None) -> PlanningWork:
    """What planning reads and compares, as if there were no earlier plan."""
    scenes = scenes_found(plan)
    overlaps = most_overlaps(scenes) if config.scenes.balance == "full" else 0
    objects = _OF_BALANCE * (config.scenes.balance != "none") + scenes * (config.scenes.masks in _KEPT)
    if measured is None:
        return PlanningWork(scenes, overlaps, 0.0, 0.0, objects, known=False)
    steps = passes(config, measured)
    size, requests = (scenes * sum(getattr(step, name) for step in steps) for name in ("bytes", "requests"))
    return PlanningWork(scenes, overlaps, size, requests, objects, known=True)


def planning_seconds(work: PlanningWork, config: RunConfig, measured: Planning | None, cpus: int) -> float:
    """Wall clock of planning on a cluster with so many cores: the scenes are read side by side, by as many processes as
    there are cores, or by threads of one, which wait together but compute in turn; then one core compares and solves.
    """
    if measured is None:
        return 0.0
    at_once, processes = scenes_at_once(work.scenes, cpus)

    def wall(step: SceneStep) -> float:
        return max(step.seconds * max(work.scenes / at_once, 1), step.cpu_seconds * work.scenes / processes)

    return sum(map(wall, passes(config, measured))) + work.overlaps * (measured.overlap_seconds or 0.0)


def passes(config: RunConfig, measured: Planning) -> list[SceneStep]:
    """What is done for every scene, pass by pass."""
    balance, out = config.scenes.balance, [measured.look]
    if balance != "none" and measured.angles is not None:
        more = measured.overviews if balance == "full" else None
        out.append(measured.angles if more is None else measured.angles + more)
    return out


def planning_differs(config: RunConfig, measured: Planning | None) -> list[str]:
    """What of a configuration's planning a calibration says nothing of, in words; nothing where it says it all.

    One that was made before planning was measured will do where planning only looks at scenes."""
    wanted, masks, had = config.scenes, "scl", "none"
    if measured is not None:
        masks, had = measured.masks, measured.balance
    differs = [f"scenes.masks {masks} instead of {wanted.masks}"] if masks != wanted.masks else []
    if _MORE.index(wanted.balance) > _MORE.index(had):
        differs.append(f"scenes.balance {had} instead of {wanted.balance}")
    return differs


def scenes_found(plan: Plan) -> int:
    """Scenes that planning looked at, those that no chip uses included."""
    items = plan.manifest.get("items")
    if not items:
        return len(plan.scenes)
    left = items["seen"] - sum(items["filtered"].values()) - sum(reason["items"] for reason in items["left_out"])
    return max(int(left), len(plan.scenes))
