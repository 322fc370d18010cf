"""Measures the models: seconds a chip by batch, in as many actors as a run would have, and until these can begin."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import ray
import torch

from difffusr.pipeline.chips import Batch, StagedChip, SuperResolver, read_row, stacked
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine import READERS_PER_ACTOR
from difffusr.pipeline.geo import Grid
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.plan import ChipPlan
from difffusr.pipeline.run.cost.figures import Cluster
from difffusr.pipeline.run.cost.sample import Sample
from difffusr.pipeline.run.cost.stopwatch import Stopwatch
from difffusr.pipeline.scenes import ChipRules
from difffusr.pipeline.storage import staging_of
from difffusr.pipeline.watch import Progress

#: Calls of the model that count, in each actor.
_CALLS = 2

#: The fewest sampler steps there are: enough to warm up with.
_FEWEST_STEPS = 2

#: Processes that read and stage for each actor when a run starts.
_WORKERS_PER_ACTOR = READERS_PER_ACTOR + 1


class _TimedResolver(SuperResolver):
    """The run's actor with a stopwatch."""

    def __init__(self, config: RunConfig) -> None:
        imported = time.process_time()
        with Stopwatch(config.compute.cpus_per_actor) as watch:
            super().__init__(config)
        self._start = imported + watch.seconds, imported + watch.cpu_seconds

    def start(self) -> tuple[float, float]:
        """Seconds, and core seconds, from the start of the process until a first chip could begin."""
        return self._start

    def measure(self, rows: Batch, steps: int | None, batch: int) -> tuple[float, list[StagedChip]]:
        """Super-resolve one batch of chips; returns the seconds it took, and the chips.

        Args:
            rows: columns as `chips.table.read_row` and `_row` make them.
            steps: of the sampler, where not the configuration's.
        """
        sampling = self.model.sampling
        self.batch = batch
        self.model.sampling = sampling if steps is None else replace(sampling, steps=steps)
        with Stopwatch(torch.get_num_threads()) as watch:
            out = self(rows)
        self.model.sampling = sampling
        return watch.seconds, [
            StagedChip(
                out["dn"][i],
                out["quality"][i],
                out["source"][i],
                *(out[name][i] if name in out else None for name in ("std", "looks")),
            )
            for i in range(batch)
        ]


@dataclass(frozen=True)
class _ModelFigures:
    """Seconds until the actors could begin; seconds per chip by batch; the chips they made."""

    start: float
    seconds: dict[int, float]
    chips: list[tuple[ChipPlan, StagedChip]]


def measure_model(
    config: RunConfig, machine: Cluster, sample: Sample, sizes: Sequence[int], progress: Progress
) -> _ModelFigures:
    """Super-resolve the sample's chips in batches of each size.

    Raises:
        DifffusrError: a chip cannot be read.
    """
    rules = ChipRules.of(config.canonical()["scenes"], staging_of(config))
    rows = [
        {**_row(sample.grid, chip), **read_row(sample.grid, chip.index, sample.scenes_of(chip), rules)}
        for chip in sample.chips
    ]
    for row in rows:
        if row["error"]:
            raise DifffusrError(f"chip {row['name']}: {row['error']}")
    share = machine.gpus / machine.actors
    options = {"num_gpus": min(share, 1.0) if share < 1 else int(share), "num_cpus": 0}
    actors = [ray.remote(_TimedResolver).options(**options).remote(config) for _ in range(machine.actors)]
    start = _start(machine, ray.get([actor.start.remote() for actor in actors]))
    calls = max(config.model.uncertainty_samples, 1)
    seconds: dict[int, float] = {}
    chips: list[tuple[ChipPlan, StagedChip]] = []

    def together(turn: int, batch: int, steps: int | None) -> float:
        """Mean seconds per chip of a batch while all actors compute one."""
        picks = [[(turn * machine.actors + a) * batch + i for i in range(batch)] for a in range(len(actors))]
        batches = [stacked([rows[i % len(rows)] for i in pick]) for pick in picks]
        ends = ray.get([actor.measure.remote(b, steps, batch) for actor, b in zip(actors, batches, strict=True)])
        if steps is None:
            for pick, (_, made) in zip(picks, ends, strict=True):
                chips.extend((sample.chips[i % len(rows)], chip) for i, chip in zip(pick, made, strict=True))
        return fmean(taken for taken, _ in ends) / batch

    for batch in sizes:
        together(0, batch, _FEWEST_STEPS)  # the first call of a size warms up
        seconds[batch] = fmean(together(turn, batch, None) for turn in range(_CALLS)) / calls
        progress.advance("calibrate")
    for actor in actors:
        ray.kill(actor)
    return _ModelFigures(start, seconds, chips)


def _start(machine: Cluster, actors: Sequence[tuple[float, float]]) -> float:
    """Seconds until actors could begin while the processes that read and stage for them start on the same cores.

    Computed from core seconds: the wall clock of so short a time depends mostly on what else the machine does.
    """
    worker = ray.get(ray.remote(_core_seconds).options(num_cpus=0).remote())
    core_seconds = sum(cpu for _, cpu in actors) + machine.actors * _WORKERS_PER_ACTOR * worker
    return max(*(seconds for seconds, _ in actors), core_seconds / machine.cpus)


def _core_seconds() -> float:
    """Core seconds of this process since it began: in a new one, those of its imports."""
    return time.process_time()


def _row(grid: Grid, chip: ChipPlan) -> dict[str, Any]:
    """What the actor needs to know of a chip besides its pixels."""
    window = grid.chip_window(chip.index)
    return {"name": chip.name, "epsg": chip.epsg, "pixel_row": window.row, "pixel_col": window.col}
