"""Make a run's plan: search the catalogue, hash the weights, decide what to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from difffusr.kernels.sampling import fingerprint
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine import FEW, cluster, threads_on
from difffusr.pipeline.geo import grid_of
from difffusr.pipeline.plan.aside import Aside, report
from difffusr.pipeline.plan.balance import balance
from difffusr.pipeline.plan.files import write_plan
from difffusr.pipeline.plan.networks import sampling_of, weights_of
from difffusr.pipeline.plan.planner import make_plan
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.scenes import ChipRules, Found, Unread, maker_of, search_scenes
from difffusr.pipeline.storage import staging_of


def _nobody(found: Found) -> None:
    """Who need not be told."""


def plan_run(
    config: RunConfig, unread: Mapping[str, Sequence[Unread]] | None = None, on_found: Callable[[Found], None] = _nobody
) -> Plan:
    """Search the catalogue, decide what to compute, and write the plan to the staging folder.

    Args:
        unread: by chip, scenes that cannot be read there; they are set aside, now and in later plans.
        on_found: is told what the search found, before anything is decided.

    Raises:
        DifffusrError: catalogue, weights or store cannot be used.
    """
    staging = staging_of(config)
    staging.check_writable()
    plan, aside = _decided(config, unread or {}, on_found)
    if aside != Aside.read(staging):
        aside.write(staging)
    write_plan(plan, grid_of(config), staging)
    return plan


def decide(config: RunConfig, on_found: Callable[[Found], None] = _nobody) -> Plan:
    """Search the catalogue and decide what to compute; nothing is written. `on_found` as in `plan_run`.

    Raises:
        DifffusrError: catalogue or weights cannot be used.
    """
    return _decided(config, {}, on_found)[0]


def scenes_at_once(scenes: int, cpus: int) -> tuple[int, int]:
    """How many of so many scenes planning reads at a time, with so many cores, and in how many processes."""
    return (cpus, cpus) if _on_ray(scenes) else (threads_on(cpus), 1)


def _on_ray(scenes: int) -> bool:
    return scenes > FEW


def _decided(
    config: RunConfig, unread: Mapping[str, Sequence[Unread]], on_found: Callable[[Found], None]
) -> tuple[Plan, Aside]:
    maker_of(ChipRules(masks=config.scenes.masks)).check()
    weights = weights_of(config)
    found = search_scenes(config)
    on_found(found)
    scenes = found.scenes
    before = Aside.read(staging_of(config))
    # Starting Ray takes longer than a few reads.
    with cluster(config) if _on_ray(len(scenes)) else nullcontext():
        aside = before if unread else before.still_unreadable(scenes, grid_of(config))
        aside = aside.with_unread(unread, scenes)
        made = balance(config, scenes, staging_of(config))
        scenes = made.applied_to(scenes) if made is not None else scenes
        plan = make_plan(config, scenes, fingerprint(sampling_of(config), weights), aside)
    report(aside, scenes)
    manifest = {**plan.manifest, "weights": weights, "items": found.to_json()}
    return replace(plan, manifest=manifest, balance=made), aside
