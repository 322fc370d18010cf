"""What an estimate consists of: cluster, seconds by stage, bytes, hours and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

#: Bytes of a gigabyte as stores and price lists count.
GIGABYTE = 10**9


@dataclass(frozen=True)
class Cluster:
    """What a run has to compute with.

    Attributes:
        actors: actors that compute at the same time.
        gpus: GPUs in all; 0 where actors compute on cores.
        cpus: cores in all.
    """

    actors: int
    gpus: float
    cpus: int


@dataclass(frozen=True)
class Seconds:
    """Wall clock by stage, in seconds.

    Attributes:
        plan: until it is decided what to compute; 0 where the calibration does not know.
        start_up: until the cluster answers.
        chips: from there until the last chip is staged, start of the actors included.
        shards: until the last shard is written.
        overviews: until the last shard of an overview is written.
        publish: until readers see it.
    """

    plan: float
    start_up: float
    chips: float
    shards: float
    overviews: float
    publish: float

    @property
    def total(self) -> float:
        """All stages, one after the other."""
        return self.plan + self.start_up + self.chips + self.shards + self.overviews + self.publish


@dataclass(frozen=True)
class PlanningWork:
    """What planning reads and compares.

    Attributes:
        scenes: looked at.
        overlaps: pairs of scenes compared, at most; 0 without `scenes.balance: full`.
        bytes, requests: over a network, from the source; 0 where the calibration does not know.
        objects: written besides the plan's own: masks that are kept, and the balance.
        known: whether the calibration knows what planning takes.
    """

    scenes: int
    overlaps: int
    bytes: float
    requests: float
    objects: int
    known: bool


@dataclass(frozen=True)
class CostLines:
    """What each part costs, in the currency of the configuration."""

    gpu: float
    cpu: float
    read: float
    written: float
    storage: float
    requests: float

    @property
    def total(self) -> float:
        """The sum of all lines."""
        return math.fsum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Ground:
    """The ground that a run covers, and how fast.

    Attributes:
        km2: of cube that the chips to compute cover, as far as scenes cover them; what overlaps counts once.
        km2_per_s: while every actor is busy and chips are wholly covered; 0 where nothing is left to compute.
        machine: what was calibrated, in words.
    """

    km2: float
    km2_per_s: float
    machine: str


@dataclass(frozen=True)
class Estimate:
    """What a run will take and cost.

    Attributes:
        chips: of the plan.
        done: chips of it that are staged already.
        shards, scenes: of the plan.
        planning: as if there were no earlier plan, whose balance and masks would be used again.
        chips_by_scenes: chips to compute by how many scenes are planned for each.
        looks: times that a chip will be read from a scene; further scenes are read only where better ones are masked,
            or all of them for a composite.
        bytes_read: fetched from the source for chips.
        bytes_staged, bytes_cube: written to the staging folder and to the cube.
        objects: written to both.
        gpu_hours, cpu_hours: of the cluster's GPUs and cores, held from start to end.
        seconds: wall clock by stage.
        costs: by line; `storage` is cube and staged chips kept for one month.
        spot: the same by prices of machines that may be taken away, without what their loss makes a run do again; None
            where the configuration has no such price.
        ground: square kilometres, in all and a second.
        currency: of all costs.
        cluster: the cluster it was made for.
    """

    chips: int
    done: int
    shards: int
    scenes: int
    planning: PlanningWork
    chips_by_scenes: Mapping[int, int]
    looks: float
    bytes_read: float
    bytes_staged: float
    bytes_cube: float
    objects: int
    gpu_hours: float
    cpu_hours: float
    seconds: Seconds
    costs: CostLines
    spot: CostLines | None
    ground: Ground
    currency: str
    cluster: Cluster

    @property
    def total(self) -> float:
        """What all of it costs."""
        return self.costs.total

    @property
    def km2_per_s_of_a_gpu(self) -> float | None:
        """The rate by each GPU of the cluster; None without GPUs."""
        return self.ground.km2_per_s / self.cluster.gpus if self.cluster.gpus else None

    @property
    def per_1000_km2(self) -> dict[str, float | None]:
        """What 1000 km² cost `on_demand` and on `spot`; None where there is no such price, or nothing to cover."""
        by_price = {"on_demand": self.costs, "spot": self.spot}
        km2 = self.ground.km2
        return {name: lines.total / km2 * 1000 if lines and km2 else None for name, lines in by_price.items()}

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-able values, sums included."""
        data = asdict(self)
        data["chips_by_scenes"] = {str(count): chips for count, chips in self.chips_by_scenes.items()}
        data["seconds"]["total"] = self.seconds.total
        data["costs"]["total"] = self.total
        if self.spot is not None:
            data["spot"]["total"] = self.spot.total
        data["ground"]["km2_per_s_of_a_gpu"] = self.km2_per_s_of_a_gpu
        data["per_1000_km2"] = self.per_1000_km2
        return data
