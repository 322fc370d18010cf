"""One shard of a cube of one CRS as a Ray task: read, warped, blended, and written whole.

Workers import this module: it must not import what only the driver needs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from difffusr.pipeline.assemble import WrittenShard
from difffusr.pipeline.assemble.continent.planning import ContinentPlan
from difffusr.pipeline.assemble.continent.warping import Resolution, ZoneView, warp_memory, warped_shard
from difffusr.pipeline.cube import Cube, ShardData, encoding_bytes
from difffusr.pipeline.engine import WORKER_BYTES, task_options
from difffusr.pipeline.geo import Grid, Lattice, PixelWindow, ShardIndex
from difffusr.pipeline.publish import ShardWriter
from difffusr.pipeline.storage import Storage


@dataclass(frozen=True)
class Ground:
    """What all shards of a cube of one CRS are made of, sent to the workers once.

    Attributes:
        storage: the zones' cube.
        state: what it was planned as: a worker that finds another one opens it anew.
        views: its zones.
        lattice, grid: the pixels and shards to make.
        resolution: how zones are brought to them.
        half_m: half the width in metres over which zones go over into each other.
        with_std, with_looks: whether there is a standard deviation, and a number of observations.
    """

    storage: Storage
    state: str
    views: Sequence[ZoneView]
    lattice: Lattice
    grid: Grid
    resolution: Resolution
    half_m: float
    with_std: bool
    with_looks: bool

    def target(self, index: ShardIndex) -> PixelWindow:
        """The pixels of a shard."""
        return self.grid.shard_window(index)

    def memory(self, index: ShardIndex, zones: Sequence[int]) -> int:
        """Most bytes that a task takes to make and write a shard."""
        seen = (view.seen_from(self.lattice, self.target(index)) for view in self.views if view.epsg in zones)
        parts = [part for part in seen if part is not None]
        arrays = warp_memory(self.grid, parts, with_std=self.with_std, with_looks=self.with_looks)
        return WORKER_BYTES + arrays + encoding_bytes(self.grid.shard_px)


#: The cube that this worker read last, with what it was planned as.
_opened: dict[tuple[str, str], Cube] = {}


def _cube(ground: Ground) -> Cube:
    """The zones' cube, opened once a worker and state."""
    key = ground.storage.url, ground.state
    if key not in _opened:
        _opened.clear()
        _opened[key] = Cube(ground.storage)
    return _opened[key]


def made_shard(ground: Ground, index: ShardIndex, zones: Sequence[int]) -> ShardData:
    """The pixels of a shard.

    Args:
        zones: those that show it.

    Raises:
        StoreError: a store refuses, or a chunk of the zones' cube is damaged.
    """
    views = [view for view in ground.views if view.epsg in zones]
    data = warped_shard(_cube(ground), views, ground.lattice, ground.target(index), ground.resolution, ground.half_m)
    if data is None:
        return ShardData.empty(ground.grid.shard_px, with_std=ground.with_std, with_looks=ground.with_looks)
    return data


def write_warped(
    writer: ShardWriter, ground: Ground, epsg: int, index: ShardIndex, zones: Sequence[int]
) -> WrittenShard:
    """Make one shard and write it whole.

    Args:
        epsg: number of the lattice's CRS.
        zones: those that show it.

    Raises:
        StoreError: a store refuses, or a chunk of the zones' cube is damaged.
    """
    begun = time.process_time()
    data = made_shard(ground, index, zones)
    receipt = writer.write(epsg, index, data)
    return WrittenShard(receipt, round(float((data.source > 0).mean()), 6), time.process_time() - begun)


@dataclass(frozen=True)
class WarpMaker:
    """See `ShardMaker`: shards from the zones of another cube.

    Attributes:
        ground: what they are made of.
        places: of the plan's shards.
        zones: of each, the zones that show it.
        epsg: number of the CRS.
    """

    ground: Ground
    places: Sequence[ShardIndex]
    zones: Sequence[Sequence[int]]
    epsg: int

    def shared(self) -> Any:
        """See `ShardMaker`."""
        return ray.put(self.ground)

    def begin(self, i: int, cpus: float, writer: Any, shared: Any, failed: Any) -> Any:
        """See `ShardMaker`."""
        options = task_options(cpus, self.ground.memory(self.places[i], self.zones[i]))
        task = ray.remote(write_warped).options(**options)
        return task.remote(writer, shared, self.epsg, self.places[i], self.zones[i])


def warp_maker(plan: ContinentPlan, grid: Grid, with_std: bool, with_looks: bool) -> WarpMaker:
    """What makes the shards of a plan."""
    source = plan.source
    views = [replace(view, level=plan.resolution.level) for view in source.views.values()]
    cube, lattice, how = source.cube.storage, plan.lattice, plan.resolution
    ground = Ground(cube, source.state, views, lattice, grid, how, source.half_m, with_std, with_looks)
    codes = list(source.views)
    zones = [[code for code, there in zip(codes, here, strict=True) if there] for here in plan.zones_of.tolist()]
    return WarpMaker(ground, [plan.shards.place(i) for i in range(len(plan.shards))], zones, plan.lattice.number)
