"""What a cube of one CRS will take and cost: a few of its shards are made here, and nothing is written."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import humanize
import numpy as np
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from difffusr.kernels.images import average_2x, mode_2x
from difffusr.pipeline.assemble.continent import ContinentPlan, draft_continent, made_shard, warp_maker
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import ShardData, overviews_over
from difffusr.pipeline.geo import grid_of
from difffusr.pipeline.ground.errors import BudgetError
from difffusr.pipeline.run.cost.figures import GIGABYTE
from difffusr.pipeline.run.cost.words import money

#: Shards that are made for an estimate, at most: of those that one zone shows, and of those that several do.
_SAMPLE = 2


@dataclass(frozen=True)
class ZoneEstimate:
    """What it takes.

    Attributes:
        shards, of_several: to make, and those of them that several zones show.
        overviews: shards of overviews over them, at most.
        seconds, several_seconds: core seconds that a shard of one zone takes, and one of several.
        overview_seconds: core seconds of a shard of an overview.
        bytes_cube: to write.
        cores: in the cluster.
        cpu_hours: core hours in all; wall clock is that by `cores`.
        cost: by the configured prices of cores, bytes written and kept a month, and requests.
        currency: of the cost.
    """

    shards: int
    of_several: int
    overviews: int
    seconds: float
    several_seconds: float
    overview_seconds: float
    bytes_cube: float
    cores: int
    cpu_hours: float
    cost: float
    currency: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Labels and values for people."""
        several = f", {self.of_several:,} where zones meet" if self.of_several else ""
        hours = self.cpu_hours / max(self.cores, 1)
        return [
            ("shards to make", f"{self.shards:,}{several}; {self.overviews:,} of overviews"),
            ("a shard", f"{self.seconds:.1f} s of a core, {self.several_seconds:.1f} s where zones meet"),
            ("to write", f"{humanize.naturalsize(self.bytes_cube)}"),
            ("CPU-hours", f"{self.cpu_hours:,.2f}"),
            ("wall clock", f"{_span(hours * 3600)} on {self.cores:,} cores"),
            ("cost", money(self.cost, self.currency)),
        ]


def estimate_zones(config: RunConfig, plan: ContinentPlan, cores: int, todo: NDArray[np.bool_]) -> ZoneEstimate:
    """Make some shards of a plan, and take all others to be like them.

    Args:
        cores: of the cluster.
        todo: (shards,) bool, those to make.

    Raises:
        StoreError: the zones' cube cannot be read.
    """
    grid, several = grid_of(config), plan.zones_of.sum(axis=1) > 1
    made = warp_maker(plan, grid, config.model.uncertainty_samples > 0, config.scenes.composite != "none")
    draft = draft_continent(config, plan)
    seconds: dict[bool, float] = {}
    sizes: list[int] = []
    above = 0.0
    for kind in (False, True):
        some = np.flatnonzero((several == kind) & todo)
        for i in some[np.linspace(0, len(some) - 1, min(_SAMPLE, len(some))).astype(int)].tolist():
            begun = time.process_time()
            data = made_shard(made.ground, made.places[i], made.zones[i])
            warped = time.process_time()
            stored = draft.write_shard(plan.lattice.number, made.places[i], data, MemoryStore())
            ended = time.process_time()
            sizes.append(sum(stored.sizes.values()))
            seconds[kind] = max(seconds.get(kind, 0.0), ended - begun)
            above = max(above, ended - warped + _halving_seconds(data))
    one = seconds.get(False, seconds.get(True, 0.0))
    both = seconds.get(True, one)
    shards, meeting = int(todo.sum()), int((several & todo).sum())
    levels = overviews_over(plan.window, grid)
    overviews = sum(math.ceil(shards / 4**level) for level in range(1, levels + 1))
    core_s = (shards - meeting) * one + meeting * both + overviews * above
    written = float(np.mean(sizes or [0])) * (shards + overviews)
    price, hours = config.costs.prices, core_s / 3600
    cost = hours * price.cpu_hour + written / GIGABYTE * (price.gb_written + price.gb_month)
    cost += (shards + overviews) * 4 / 1000 * price.thousand_requests
    return ZoneEstimate(
        shards, meeting, overviews, one, both, above, written, cores, hours, cost, config.costs.currency
    )


def _span(seconds: float) -> str:
    return humanize.precisedelta(seconds, minimum_unit="seconds", format="%d")


def _halving_seconds(data: ShardData) -> float:
    """Core seconds that an overview of four shards like one takes."""
    begun = time.process_time()
    average_2x(data.reflectance, 0)
    mode_2x(data.source, data.source > 0)
    mode_2x(data.quality, data.source > 0)
    return 4 * (time.process_time() - begun)


def enforce_zone_budget(
    config: RunConfig, plan: ContinentPlan, cores: int, todo: NDArray[np.bool_]
) -> ZoneEstimate | None:
    """Refuse a run that would cost more than its budget; without a budget nothing is estimated.

    Raises:
        BudgetError: it would cost more than `config.budget`.
    """
    if config.budget is None:
        return None
    made = estimate_zones(config, plan, cores, todo)
    if made.cost > config.budget:
        raise BudgetError(
            f"budget: this run would cost about {money(made.cost, made.currency)}, the budget is "
            f"{money(config.budget, made.currency)}; nothing was started: raise budget, or choose a smaller area or a "
            "coarser grid.resolution"
        )
    return made
