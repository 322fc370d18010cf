"""Measures staging, shards, overviews and publishing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import fmean

import numpy as np
import ray

from difffusr.pipeline.assemble import ChipSource, blend_shard, halve_shards
from difffusr.pipeline.chips import StagedChip, write_chip
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import CubeDraft, draft_cube
from difffusr.pipeline.geo import ChipIndex, Grid, OverviewIndex, PixelWindow, ShardIndex
from difffusr.pipeline.plan import ChipPlan
from difffusr.pipeline.publish import PlainTarget
from difffusr.pipeline.run.cost.calibration import OverviewWriting, Publishing, ShardWriting, Staging
from difffusr.pipeline.run.cost.figures import Cluster
from difffusr.pipeline.run.cost.sample import SPREAD, Sample
from difffusr.pipeline.run.cost.stopwatch import Stopwatch
from difffusr.pipeline.storage import Storage, staging_of, storage_of

#: Shards written at a time, at most.
_SHARDS = 8


def measure_staging(
    config: RunConfig, chips: Sequence[tuple[ChipPlan, StagedChip]]
) -> tuple[list[tuple[ChipPlan, str]], Staging]:
    """Stage super-resolved chips; returns the chips with their objects' names, and the figures.

    Raises:
        StoreError: the staging folder cannot be written.
    """
    staging, staged, seconds, cpu, sizes = staging_of(config), [], [], [], []
    for number, (chip, made) in enumerate(chips[: len(SPREAD)]):
        name = f"{chip.epsg}/staged-{number}.chip"
        with Stopwatch() as watch:
            size = write_chip(staging, name, made)
        staged.append((chip, name))
        seconds.append(watch.seconds)
        cpu.append(watch.cpu_seconds)
        sizes.append((chip.covered, float(size)))
    empty, covered = fit_line(sizes)
    return staged, Staging(seconds=fmean(seconds), cpu_seconds=fmean(cpu), bytes=empty, bytes_covered=covered)


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope of the line that fits points (x, y) best, neither below 0.

    Where all points have the same x, it goes through the origin.
    """
    x, y = (np.array(side) for side in zip(*points, strict=True))
    if x.max() <= 0:
        return float(y.mean()), 0.0
    through_origin = 0.0, float((x * y).sum() / (x * x).sum())
    if np.ptp(x) < 1e-3:
        return through_origin
    rise, start = (float(figure) for figure in np.polyfit(x, y, 1))
    if rise < 0:
        return float(y.mean()), 0.0
    return (start, rise) if start >= 0 else through_origin


@dataclass(frozen=True)
class _Written:
    """A written shard: seconds, chips (or shards) that it is made of, bytes of its objects, pixels with data."""

    seconds: float
    chips: int
    bytes: int
    pixels: int


def measure_shards(
    config: RunConfig, machine: Cluster, sample: Sample, staged: Sequence[tuple[ChipPlan, str]]
) -> tuple[ShardWriting, OverviewWriting, Publishing]:
    """Write shards of a scratch cube from staged chips, then overviews of them, then publish.

    Raises:
        StoreError: the store or a staged chip fails.
    """
    grid, count = sample.grid, min(machine.cpus, _SHARDS)
    draft, shards = _scratch_cube(config, sample, count)
    staging = staging_of(config)
    write = ray.remote(_write_shard).options(num_cpus=1)
    shared = ray.put(draft)

    def together(chips: int | None) -> list[_Written]:
        """Write the shards at the same time, one a core, from all or some of the chips that touch them."""
        tasks = [write.remote(shared, shard, _sources(grid, draft, shard, staged)[:chips], staging) for shard in shards]
        ended: list[_Written] = ray.get(tasks)
        return ended

    together(1)  # warms up
    least, full = together(1), together(None)
    overview = _measure_overviews(draft, shards)
    with Stopwatch() as watch:
        PlainTarget(draft.storage, staging, draft, "calibration").publish(shards_written=count, keep=1)
    ((_, zone),) = draft.zones.items()
    of_levels = len(draft.objects) - 5  # without the documents of root and zone, and what holds scenes
    publish = Publishing(seconds=watch.seconds, objects=of_levels // len(zone.levels))
    return _shard_figures(full, least), overview, publish


def _measure_overviews(draft: CubeDraft, shards: Sequence[ShardIndex]) -> OverviewWriting:
    """Overviews of the written shards, one a core: with more cores than overviews, some make the same one."""
    ((_, zone),) = draft.zones.items()
    parents: dict[OverviewIndex, list[OverviewIndex]] = {}
    for shard in shards:
        place = zone.position(shard, draft.grid)
        parents.setdefault(place.parent, []).append(place)
    write, shared = ray.remote(_write_overview).options(num_cpus=1), ray.put(draft)

    def together() -> list[_Written]:
        chosen = islice(cycle(parents.items()), len(shards))
        ended: list[_Written] = ray.get([write.remote(shared, at, children) for at, children in chosen])
        return ended

    together()  # warms up
    done = together()
    return OverviewWriting(
        seconds_per_shard=sum(written.seconds for written in done) / sum(written.chips for written in done),
        bytes_per_pixel=sum(written.bytes for written in done) / max(sum(written.pixels for written in done), 1),
    )


def _shard_figures(full: Sequence[_Written], least: Sequence[_Written]) -> ShardWriting:
    """Fit a line through shards of all their chips and shards of one chip."""

    def means(x: str, y: str) -> list[tuple[float, float]]:
        return [(fmean(getattr(w, x) for w in part), fmean(getattr(w, y) for w in part)) for part in (least, full)]

    seconds, seconds_per_chip = fit_line(means("chips", "seconds"))
    empty, bytes_per_pixel = fit_line(means("pixels", "bytes"))
    return ShardWriting(
        seconds=seconds, seconds_per_chip=seconds_per_chip, bytes=empty, bytes_per_pixel=bytes_per_pixel
    )


def _scratch_cube(config: RunConfig, sample: Sample, count: int) -> tuple[CubeDraft, list[ShardIndex]]:
    """A cube of so many shards in a row, starting at the sample's first chip."""
    grid, chip = sample.grid, sample.chips[0]
    window, size = grid.chip_window(chip.index), grid.shard_px
    first = ShardIndex(window.row // size, window.col // size)
    extent = PixelWindow(first.row * size, first.col * size, size, count * size)
    draft = draft_cube(
        storage_of(config),
        grid,
        {chip.epsg: extent},
        (config.period.start, config.period.end),
        [{"id": scene} for scene in sample.scenes],
        {},
        config.model.uncertainty_samples,
        composite=config.scenes.composite,
    )
    return draft, [ShardIndex(first.row, first.col + number) for number in range(count)]


def _sources(
    grid: Grid, draft: CubeDraft, shard: ShardIndex, staged: Sequence[tuple[ChipPlan, str]]
) -> list[ChipSource]:
    """The staged chips in the places of all chips that touch a shard; those with most of it first."""
    numbers = {facts["id"]: number for number, facts in draft.scenes.items()}
    window = grid.shard_window(shard)

    def off_centre(index: ChipIndex) -> float:
        place = grid.chip_window(index)
        return math.hypot(
            place.row + place.height / 2 - window.row - window.height / 2,
            place.col + place.width / 2 - window.col - window.width / 2,
        )

    places = sorted(grid.chips_touching(window), key=off_centre)
    return [
        ChipSource(place, name, tuple(numbers[scene] for scene in chip.scenes))
        for place, (chip, name) in zip(places, cycle(staged), strict=False)
    ]


def _write_shard(draft: CubeDraft, shard: ShardIndex, sources: list[ChipSource], staging: Storage) -> _Written:
    """Blend and write one shard, as `assemble.shards.write_shard` does."""
    ((epsg, zone),) = draft.zones.items()
    with Stopwatch() as watch:
        with_std, with_looks = zone.uncertainty_samples > 0, zone.composite != "none"
        data = blend_shard(draft.grid, shard, sources, staging, with_std=with_std, with_looks=with_looks)
        stored = draft.write_shard(epsg, shard, data)
    size = sum(stored.sizes.values())
    return _Written(watch.seconds, len(sources), size, int((data.quality > 0).sum()))


def _write_overview(draft: CubeDraft, at: OverviewIndex, children: list[OverviewIndex]) -> _Written:
    """Make and write one shard of an overview, as `assemble.overviews.write_overview` does."""
    ((epsg, _),) = draft.zones.items()
    with Stopwatch() as watch:
        data = halve_shards(draft, draft.store, epsg, children)
        stored = draft.write_shard(epsg, at, data)
    size = sum(stored.sizes.values())
    return _Written(watch.seconds, len(children), size, int((data.quality > 0).sum()))
