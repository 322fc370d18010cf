"""What differs between runs: cubes of UTM zones are made of scenes, cubes of one CRS of the zones of another cube."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.assemble import BlendMaker, ShardMaker
from difffusr.pipeline.assemble.continent import (
    ContinentPlan,
    draft_continent,
    plan_continent,
    warp_maker,
    write_continent,
)
from difffusr.pipeline.assemble.continent import with_source as with_source
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import CubeDraft, draft_cube
from difffusr.pipeline.geo import Grid, grid_of
from difffusr.pipeline.plan import Plan, balance_facts, compare, decide, plan_run, read_plan, sampling_of, write_plan
from difffusr.pipeline.storage import Storage, staging_of, storage_of


def planned(config: RunConfig, on_found: Callable[[int], None]) -> Plan:
    """The plan of a run, written to its folder.

    Args:
        on_found: is told how many scenes the search has found, or how many shards of zones there are to take from.
    """
    if config.source.cube is None:
        return plan_run(config, on_found=lambda found: on_found(len(found.scenes)))
    plan = plan_continent(config)
    on_found(len(plan.source.epsg))
    keep_plan(plan, grid_of(config), staging_of(config), "plan")
    return plan


def decided(config: RunConfig) -> Plan:
    """The plan of a run; nothing is written."""
    return decide(config) if config.source.cube is None else plan_continent(config)


def keep_plan(plan: Plan, grid: Grid, staging: Storage, name: str) -> None:
    """Write a plan into a folder of its run."""
    if isinstance(plan, ContinentPlan):
        write_continent(plan, grid, staging, name)
    else:
        write_plan(plan, grid, staging, name)


def shard_maker(config: RunConfig, plan: Plan, numbers: NDArray[np.int32]) -> ShardMaker:
    """What makes the shards of a plan.

    Args:
        numbers: (scenes,) int32 the cube's number of each of the plan's scenes.
    """
    grid, variables = grid_of(config), (config.model.uncertainty_samples > 0, config.scenes.composite != "none")
    if isinstance(plan, ContinentPlan):
        return warp_maker(plan, grid, *variables)
    return BlendMaker(plan, numbers, grid, staging_of(config), *variables)


def why_changed(staging: Storage, plan: Plan) -> Sequence[str | None]:
    """Why each shard of a plan is written again, by the plan that readers see; None for one that is as it was."""
    if isinstance(plan, ContinentPlan):
        return ["the zones below have changed"] * len(plan.shards)
    reasons = compare(read_plan(staging, "published"), plan).shard_reasons
    return [None if reason is None else reason.words for reason in reasons]


#: Sections of the configuration that decide what a cube holds; the rest says where and with what it is made.
_PIXEL_SECTIONS = ("area", "period", "source", "grid", "model", "scenes", "skip")


def draft_of(
    config: RunConfig,
    plan: Plan,
    revise: Mapping[int, int] | None = None,
    begun: Collection[int] = (),
    storage: Storage | None = None,
) -> CubeDraft:
    """The cube as it will be once the plan is carried out.

    Args:
        revise: the new revision of each zone of which a published shard changes, or whose keys others may write.
        begun: see `draft_cube`.
        storage: of the cube; as the configuration says by default.

    Raises:
        DifffusrError: the store holds something else.
    """
    if isinstance(plan, ContinentPlan):
        return draft_continent(config, plan, revise, begun, storage)
    grid = grid_of(config)
    facts = [
        {
            "id": scene.id,
            "datetime": scene.datetime.isoformat(),
            "tile": scene.tile,
            "baseline": scene.baseline,
            "collection": scene.collection,
            "product": scene.product_uri,
            **({} if scene.correction is None else {"balance": balance_facts(plan, scene)}),
        }
        for scene in plan.scenes
    ]
    provenance = {
        "software": {name: version(name) for name in ("difffusr", "torch", "ray", "zarr")},
        "model": plan.manifest["model"],
        "weights": plan.manifest.get("weights", {}),
        "sampling": asdict(sampling_of(config)),
        "config": {name: plan.manifest["config"][name] for name in _PIXEL_SECTIONS if name in plan.manifest["config"]},
    }
    extents = {epsg: plan.extent(epsg, grid) for epsg in plan.zones()}
    period = config.period.start, config.period.end
    samples = config.model.uncertainty_samples
    composite = config.scenes.composite
    return draft_cube(
        storage or storage_of(config), grid, extents, period, facts, provenance, samples,
        composite=composite, revise=revise, begun=begun, collar_m=plan.manifest.get("collar_m"),
    )  # fmt: skip
