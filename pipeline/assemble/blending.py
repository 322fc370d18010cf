"""Shards blended from chips, as Ray tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from difffusr.pipeline.assemble.blend import ChipSource, blend_memory
from difffusr.pipeline.assemble.writing import write_shard
from difffusr.pipeline.engine import task_options
from difffusr.pipeline.geo import ChipIndex, Grid
from difffusr.pipeline.plan import Plan
from difffusr.pipeline.storage import Storage


@dataclass(frozen=True, eq=False)
class BlendMaker:
    """See `ShardMaker`: shards from staged chips.

    Attributes:
        plan: the whole plan.
        numbers: (scenes,) int32 the cube's number of each of the plan's scenes.
        grid: its chips and shards.
        staging: the run's folder.
        with_std, with_looks: whether chips have a standard deviation, and a number of observations.
    """

    plan: Plan
    numbers: NDArray[np.int32]
    grid: Grid
    staging: Storage
    with_std: bool
    with_looks: bool = False

    def shared(self) -> Any:
        """See `ShardMaker`."""
        return ray.put(self.grid)

    def begin(self, i: int, cpus: float, writer: Any, shared: Any, failed: NDArray[np.bool_]) -> Any:
        """See `ShardMaker`."""
        sources, gaps = self._sources(i, failed)
        memory = blend_memory(self.grid, with_std=self.with_std, with_looks=self.with_looks)
        task = ray.remote(write_shard).options(**task_options(cpus, memory))
        place = int(self.plan.shards.epsg[i]), self.plan.shards.place(i)
        return task.remote(writer, shared, *place, sources, gaps, self.staging, self.with_std, self.with_looks)

    def _sources(self, i: int, failed: NDArray[np.bool_]) -> tuple[list[ChipSource], list[ChipIndex]]:
        """The chips that a shard is blended from, and the places of failed ones."""
        shards, chips = self.plan.shards, self.plan.chips
        sources, gaps = [], []
        for member in shards.members[shards.first[i] : shards.first[i + 1]].tolist():
            chip = chips[member]
            if failed[member]:
                gaps.append(chip.index)
                continue
            numbers = tuple(int(self.numbers[scene]) for scene in chips.scenes[member] if scene >= 0)
            sources.append(ChipSource(chip.index, chip.object_name, numbers))
        return sources, gaps
