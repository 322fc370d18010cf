"""Make a run's plan: search the catalogue, hash the weights, decide what to compute."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

from difffusr.kernels.sampling import fingerprint
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine import cluster
from difffusr.pipeline.geo import grid_of
from difffusr.pipeline.plan.files import write_plan
from difffusr.pipeline.plan.networks import sampling_of, weights_of
from difffusr.pipeline.plan.planner import make_plan
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.scenes import find_scenes
from difffusr.pipeline.storage import staging_of

#: With more scenes than this they are read on Ray instead of on this machine's threads.
_SCENES_ON_THREADS = 32


def plan_run(config: RunConfig) -> Plan:
    """Search the catalogue, decide what to compute, and write the plan to the staging folder.

    Raises:
        DifffusrError: catalogue, weights or store cannot be used.
    """
    staging = staging_of(config)
    staging.check_writable()
    plan = decide(config)
    write_plan(plan, grid_of(config), staging)
    return plan


def decide(config: RunConfig) -> Plan:
    """Search the catalogue and decide what to compute; nothing is written.

    Raises:
        DifffusrError: catalogue or weights cannot be used.
    """
    weights = weights_of(config)
    scenes = find_scenes(config)
    # Starting Ray takes longer than a few reads.
    with cluster(config) if len(scenes) > _SCENES_ON_THREADS else nullcontext():
        plan = make_plan(config, scenes, fingerprint(sampling_of(config), weights))
    return replace(plan, manifest={**plan.manifest, "weights": weights})
