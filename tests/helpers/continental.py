"""Cubes of one CRS made here and now, as `run` makes them, without Ray."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dying

from difffusr.pipeline.assemble.continent.maker import warp_maker, write_warped
from difffusr.pipeline.assemble.continent.planning import ContinentPlan, draft_continent, plan_continent, with_source
from difffusr.pipeline.assemble.halving import write_overview
from difffusr.pipeline.assemble.ledger import Entry, Written, enter
from difffusr.pipeline.assemble.overviews import overview_name, plan_overviews
from difffusr.pipeline.config import EVERYWHERE, RunConfig
from difffusr.pipeline.geo.grid import grid_of
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.storage.places import cube_staging_of, staging_of, storage_of


def continent_config(source: str, target: str, crs: str = "EPSG:3035", **more: Any) -> RunConfig:
    """The configuration of a cube of one CRS, with shards of 64 pixels.

    Args:
        more: `resolution`, `period`, `area` (a box), `shard_px`, `chunk_px`, `staging`.
    """
    grid = {name: more[name] for name in ("resolution",) if name in more}
    sizes = {"shard_px": more.get("shard_px", 64), "chunk_px": more.get("chunk_px", 32)}
    return with_source(
        RunConfig.model_validate(
            {
                "name": "continent",
                "area": {"bbox": more.get("area", EVERYWHERE)},
                "period": more.get("period", "2023-06"),
                "source": {"cube": source, "staging": more.get("staging")},
                "grid": {"crs": crs, **grid, **sizes},
                "store": {"url": str(target)},
            }
        )
    )


def publish_continent(config: RunConfig) -> ContinentPlan:
    """Publish a period of a cube of one CRS that does not have it yet."""
    plan, run = plan_continent(config), staging_of(config)
    draft = draft_continent(config, plan)
    target = open_target(storage_of(config), cube_staging_of(config), draft, config.period.label)
    target.begin()
    made = warp_maker(plan, grid_of(config), config.model.uncertainty_samples > 0, config.scenes.composite != "none")
    writer, digests = target.writer(), {}
    for i, name in enumerate(plan.shards.names()):
        place = plan.lattice.number, plan.shards.place(i)
        written = write_warped(writer, made.ground, *place, made.zones[i])
        digests[place] = plan.shards[i].key[:20]
        entry = Entry(name, digests[place], target.state(place[0]))
        enter(run, target, [Written(entry, written.receipt, {"missing": [], "valid_share": written.valid_share})])
    overviews = plan_overviews(draft, target, run, digests)
    target.settle({*digests, *overviews.made_of}, {*digests, *overviews.made_of})
    for epsg, at in sorted(overviews.made_of, key=lambda place: place[1].level):
        receipt = write_overview(target.writer(), epsg, at, overviews.made_of[epsg, at])
        entry = Entry(overview_name(epsg, at), overviews.digests[epsg, at], target.state(epsg), "overviews")
        enter(run, target, [Written(entry, receipt, {})])
    target.publish(shards_written=len(digests), keep=1)
    return plan


def demo_continent(folder: Path, **more: Any) -> RunConfig:
    """A cube of two zones around 12° E, 48° N, and one of one CRS beside it, both published."""
    from two_zones import publish_zones, waves, windows_at

    from difffusr.pipeline.storage.objects import Storage

    windows = windows_at(12.0, 48.0, [32632, 32633], (4, 8))
    truth = waves(12.0, 48.0)
    source = f"{folder}/zones.zarr"
    publish_zones(Storage(source), windows, dict.fromkeys(windows, truth))
    config = continent_config(source, more.pop("target", f"{folder}/continent.zarr"), **more)
    publish_continent(config)
    return config


@dataclass(frozen=True)
class Making:
    """`publish_continent`, for a process of its own.

    Attributes:
        words: the file for what it says.
        order: how it is to die.
    """

    config: RunConfig
    order: dying.Order | None = None
    words: str = ""

    def carry_out(self) -> None:
        """Do it, as ordered."""
        if self.order is not None:
            dying.begin(self.order)
        publish_continent(self.config)
