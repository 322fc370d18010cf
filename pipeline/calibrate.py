"""How fast a machine is: the parts of a run, measured with its own model, grid, compute, source and store."""

from __future__ import annotations

import datetime as dt
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import ray
import torch
from rasterio.io import DatasetReader
from rasterio.warp import transform_bounds

from kernels.bands import BANDS, GSD_M
from pipeline.access import is_remote
from pipeline.actor import Batch, SuperResolver
from pipeline.assemble import ChipSource, blend_shard
from pipeline.chip_stream import READERS_PER_ACTOR, read_row
from pipeline.cluster import cluster
from pipeline.config import Area, Period, RunConfig, Source
from pipeline.cube import CubeDraft, draft_cube
from pipeline.demo_world import PERIOD, RenderedScene, generate_world, render_scenes, write_catalog
from pipeline.errors import DifffusrError, StoreError
from pipeline.estimate import (
    Calibration,
    Cluster,
    OverviewWriting,
    Publishing,
    Reading,
    ShardWriting,
    Staging,
    StartUp,
    cluster_of,
    conditions_of,
    load_calibration,
)
from pipeline.grid import ChipIndex, Grid, OverviewIndex, PixelWindow, ShardIndex
from pipeline.overviews import halve_shards
from pipeline.places import staging_of, storage_of
from pipeline.plan import ChipPlan, Plan
from pipeline.planner import grid_of
from pipeline.raster import opened
from pipeline.reader import read_chip
from pipeline.revisions import PlainTarget
from pipeline.run import Progress
from pipeline.scene import Scene
from pipeline.staging import StagedChip, write_chip
from pipeline.storage import STORE_FAILURES, Storage, first_line
from pipeline.work import decide

__all__ = ["Calibration", "calibrate", "load_calibration"]

#: Chips read: spread evenly over how much of a chip the scenes cover, for that is what makes chips differ most. Their
#: order is such that however few of them the models get, these are spread, too.
_SPREAD = tuple((part + 0.5) / 8 for part in (1, 6, 3, 4, 0, 7, 2, 5))

#: Calls of the model that count, in each actor.
_CALLS = 2

#: The fewest sampler steps there are: enough to warm up with.
_FEWEST_STEPS = 2

#: Processes that read and stage for each actor, as `chip_stream.chip_dataset` has them.
_WORKERS_PER_ACTOR = READERS_PER_ACTOR + 1

#: Shards written at a time, at most.
_SHARDS = 8

#: Where a made-up scene lies: northing and easting in its zone.
_PLACE_M = 5_250_000, 520_000

#: Bytes fetched to open a file over a network, as GDAL asks for them.
_HEADER_BYTES = 16_384


def calibrate(
    config: RunConfig, batches: Sequence[int] = (), progress: Progress | None = None, plan: Plan | None = None
) -> Calibration:
    """Measure what the parts of a run take on the machine at hand, as a run would do them.

    The model runs in as many actors at a time as the run would have; shards are blended and written with all cores.
    What is written goes below the staging folder and is deleted afterwards. Seconds that other processes kept these
    from computing are taken out where the system tells them (Linux); the rest of their influence stays, so measure on a
    machine at rest. What the engine (Ray Data) adds to a chip is less than can be told from noise, and not measured.

    Args:
        batches: sizes to measure the model with, besides `compute.batch`, or 1 where that is 'auto'.
        plan: of this configuration; chips of it are read from its own scenes. Without it, from a scene made up here.

    Raises:
        DifffusrError: source, model, store or cluster cannot be used.
    """
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    sizes = sorted({1 if config.compute.batch == "auto" else config.compute.batch, *batches})
    watch = progress or _Silent()
    watch.start("calibrate", 4 + len(sizes))
    with _scratch(config) as (scratch, folder):
        sample = _Sample.of(scratch, plan or _generated_plan(scratch, folder))
        watch.advance("calibrate")
        begun = time.perf_counter()
        with cluster(scratch):
            ray_seconds = time.perf_counter() - begun
            machine = cluster_of(scratch)
            reading = _measure_reading(scratch, sample)
            watch.advance("calibrate")
            model = _measure_model(scratch, machine, sample, sizes, watch)
            staged, staging = _measure_staging(scratch, model.chips)
            watch.advance("calibrate")
            shard, overview, publish = _measure_shards(scratch, machine, sample, staged)
            watch.advance("calibrate")
    gpu = machine.gpus > 0
    return Calibration(
        version=2,
        measured=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        machine=f"{machine.cpus} cores" + (f", {machine.gpus:g} × {torch.cuda.get_device_name()}" if gpu else ""),
        gpu=gpu,
        actors=machine.actors,
        load=load,
        source="own" if plan else "generated",
        conditions=conditions_of(config),
        model=model.seconds,
        start_up=StartUp(ray=ray_seconds, actors=model.start),
        read=reading,
        stage=staging,
        shard=shard,
        overview=overview,
        publish=publish,
    )


@contextmanager
def _scratch(config: RunConfig) -> Iterator[tuple[RunConfig, Path]]:
    """The configuration with cube and staging in a folder that is deleted afterwards, and a folder on this machine."""
    place = staging_of(config).child(f"calibration-{uuid4().hex}")
    store = config.store.model_copy(update={"url": f"{place.url}/cube.zarr", "staging": f"{place.url}/staging"})
    samples = min(config.model.uncertainty_samples, 2)
    model = config.model.model_copy(update={"uncertainty_samples": samples})
    try:
        with tempfile.TemporaryDirectory(prefix="difffusr-calibration-") as folder:
            yield config.model_copy(update={"store": store, "model": model}), Path(folder)
    finally:
        _delete(place)


def _delete(place: Storage) -> None:
    fs, path = place.filesystem()
    try:
        fs.invalidate_cache()
        fs.rm(path, recursive=True)
    except FileNotFoundError:
        return
    except STORE_FAILURES as error:
        raise StoreError(f"{place.url}: cannot be deleted ({first_line(error)}); delete it by hand") from None


class _Silent:
    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def advance(self, stage: str) -> None: ...


class _Stopwatch:
    """Seconds of what happens inside: wall clock less the time for which this process's `threads` busy threads were
    ready to compute but the machine was at something else; and seconds of core."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self.seconds = self.cpu_seconds = 0.0

    def __enter__(self) -> _Stopwatch:
        self._begun = time.perf_counter(), time.process_time(), _waited()
        return self

    def __exit__(self, *_: object) -> None:
        wall, cpu, waited = time.perf_counter(), time.process_time(), _waited()
        wall, cpu, waited = wall - self._begun[0], cpu - self._begun[1], waited - self._begun[2]
        self.cpu_seconds = cpu
        # Threads that ended took the tale of their waiting with them, so the difference may even be negative.
        self.seconds = max(wall - max(waited, 0.0) / self._threads, min(cpu / self._threads, wall))


def _waited() -> float:
    """Seconds that this process's threads have waited for a core so far; 0 where the system does not tell."""
    total = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(file.read_text().split()[1])
        except (OSError, IndexError):
            continue
    return total / 1e9


# ---------------------------------------------------------------------------------------------------------------------
# Chips to measure with
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sample:
    """A few chips that stand for all of a plan, in the order in which they are to be used."""

    plan: Plan
    chips: list[ChipPlan]
    scenes: Mapping[str, Scene]
    grid: Grid

    @classmethod
    def of(cls, config: RunConfig, plan: Plan) -> _Sample:
        least_first = np.argsort(plan.chips.covered, kind="stable")
        places = dict.fromkeys(int(least_first[int(part * len(plan.chips))]) for part in _SPREAD)
        scenes = {scene.id: scene for scene in plan.scenes}
        return cls(plan, [plan.chips[place] for place in places], scenes, grid_of(config))

    def scenes_of(self, chip: ChipPlan) -> list[Scene]:
        return [self.scenes[scene] for scene in chip.scenes]

    def times(self, count: int) -> list[ChipPlan]:
        """So many chips of the sample, again and again, each under a name of its own."""
        run = uuid4().hex
        return [
            replace(chip, key=f"{number:08d}{run:0<56}") for number, chip in enumerate(islice(cycle(self.chips), count))
        ]


def _generated_plan(config: RunConfig, folder: Path) -> Plan:
    """A plan of one chip, over a made-up scene that covers it."""
    grid = grid_of(config)
    rendered = render_scenes(generate_world(size_m=(1200, 1800)))[-1]
    stride_m = grid.stride_px * 10
    window = grid.chip_window(ChipIndex(-_PLACE_M[0] // stride_m, _PLACE_M[1] // stride_m))
    west, south, east, north = window.bounds_m(rendered.epsg)
    catalog = write_catalog([_stretched(rendered, west, north, int(east - west))], folder / "archive")
    inside = transform_bounds(f"EPSG:{rendered.epsg}", "EPSG:4326", *_middle(west, south, east, north))
    there = {
        "area": Area(bbox=inside),
        "period": Period(start=dt.date.fromisoformat(PERIOD[0]), end=dt.date.fromisoformat(PERIOD[1])),
        "source": Source(static_catalog=str(catalog)),
    }
    return decide(config.model_copy(update=there))


def _stretched(scene: RenderedScene, left_m: float, top_m: float, side_m: int) -> RenderedScene:
    """A scene elsewhere, repeated until it fills a square."""

    def filled(pixels: np.ndarray[Any, Any], gsd_m: int) -> np.ndarray[Any, Any]:
        size = side_m // gsd_m
        return np.pad(pixels, [(0, max(size - side, 0)) for side in pixels.shape], mode="wrap")[:size, :size]

    bands = {band: filled(pixels, GSD_M[band]) for band, pixels in scene.bands.items()}
    return replace(scene, bands=bands, scl=filled(scene.scl, 20), left_m=left_m, top_m=top_m)


def _middle(west: float, south: float, east: float, north: float) -> tuple[float, float, float, float]:
    x, y = (west + east) / 2, (south + north) / 2
    return x - 30, y - 30, x + 30, y + 30


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def _measure_reading(config: RunConfig, sample: _Sample) -> Reading:
    looks, taken, cpu = 0, 0.0, 0.0
    for chip in sample.chips:
        window, scenes = sample.grid.chip_window(chip.index), _Counted(sample.scenes_of(chip))
        with _Stopwatch() as reading:
            read_chip(window, scenes, allow_cloudy=config.scenes.allow_cloudy)
        looks, taken, cpu = looks + scenes.looks, taken + reading.seconds, cpu + reading.cpu_seconds
    first = [(sample.scenes_of(chip)[0], sample.grid.chip_window(chip.index)) for chip in sample.chips]
    further = sum(len(chip.scenes) - 1 for chip in sample.chips)
    return Reading(
        seconds=taken / looks,
        cpu_seconds=cpu / looks,
        bytes=fmean(_bytes_fetched(scene, window) for scene, window in first),
        further_share=(looks - len(sample.chips)) / further if further else 1.0,
    )


class _Counted(list[Scene]):
    """Scenes that count how many of them were asked for."""

    looks = 0

    def __iter__(self) -> Iterator[Scene]:
        for scene in super().__iter__():
            self.looks += 1
            yield scene


def _bytes_fetched(scene: Scene, window: PixelWindow) -> float:
    """Bytes of a scene's files that a look at a window fetches: the tiles that it touches, and each file's header."""
    total = 0.0
    for band in (*BANDS, *(("SCL",) if scene.scl else ())):
        asset = scene.scl if band == "SCL" else scene.assets[band]
        assert asset is not None
        with opened(scene, band, asset) as file:
            left, bottom, right, top = window.bounds_m(scene.epsg)
            col, row = ~file.transform @ (left, top)
            col_stop, row_stop = ~file.transform @ (right, bottom)
            columns = range(max(round(col), 0), min(round(col_stop), file.width))
            rows = range(max(round(row), 0), min(round(row_stop), file.height))
            if rows and columns:
                total += _bytes_under(file, rows, columns, asset.href)
        total += _HEADER_BYTES * is_remote(asset.href)
    return total


def _bytes_under(file: DatasetReader, rows: range, columns: range, href: str) -> float:
    """Compressed bytes of the tiles under a window of a file; of a file without a table of tiles, its share of all."""
    height, width = file.block_shapes[0]
    if file.driver == "GTiff":
        tiles = [
            file.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1)
            for y in range(rows.start // height, (rows.stop - 1) // height + 1)
            for x in range(columns.start // width, (columns.stop - 1) // width + 1)
        ]
        return float(sum(int(tile or 0) for tile in tiles))
    try:
        fs, path = fsspec.url_to_fs(href)
        size = float(fs.size(path) or 0)
    except STORE_FAILURES:
        size = file.width * file.height * 2.0  # not told: as if it were not compressed
    return size * len(rows) * len(columns) / (file.width * file.height)


# ---------------------------------------------------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------------------------------------------------


class _TimedResolver(SuperResolver):
    """The run's actor with a stopwatch."""

    def __init__(self, config: RunConfig) -> None:
        imported = time.process_time()
        with _Stopwatch(config.compute.cpus_per_actor) as watch:
            super().__init__(config)
        self._start = imported + watch.seconds, imported + watch.cpu_seconds

    def start(self) -> tuple[float, float]:
        """Seconds, and seconds of core, that it took from the start of the process until a first chip could begin."""
        return self._start

    def measure(self, rows: Batch, steps: int | None, batch: int) -> tuple[float, list[StagedChip]]:
        """Super-resolve one batch of chips; seconds it took, and the chips."""
        sampling = self.model.sampling
        self.batch = batch
        self.model.sampling = sampling if steps is None else replace(sampling, steps=steps)
        with _Stopwatch(torch.get_num_threads()) as watch:
            out = self(rows)
        self.model.sampling = sampling
        return watch.seconds, [
            StagedChip(out["dn"][i], out["quality"][i], out["source"][i], out["std"][i] if "std" in out else None)
            for i in range(batch)
        ]


@dataclass(frozen=True)
class _ModelFigures:
    """Seconds until the actors could begin; seconds per chip by batch; chips that came of it."""

    start: float
    seconds: dict[int, float]
    chips: list[tuple[ChipPlan, StagedChip]]


def _measure_model(
    config: RunConfig, machine: Cluster, sample: _Sample, sizes: Sequence[int], progress: Progress
) -> _ModelFigures:
    allow_cloudy = config.scenes.allow_cloudy
    rows = [
        {**_row(sample.grid, chip), **read_row(sample.grid, chip.index, sample.scenes_of(chip), allow_cloudy)}
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
        """Mean seconds per chip of a batch in all actors at a time."""
        picks = [[(turn * machine.actors + a) * batch + i for i in range(batch)] for a in range(len(actors))]
        batches = [_stacked([rows[i % len(rows)] for i in pick]) for pick in picks]
        ends = ray.get([actor.measure.remote(b, steps, batch) for actor, b in zip(actors, batches, strict=True)])
        if steps is None:
            for pick, (_, made) in zip(picks, ends, strict=True):
                chips.extend((sample.chips[i % len(rows)], chip) for i, chip in zip(pick, made, strict=True))
        return fmean(taken for taken, _ in ends) / batch

    for batch in sizes:
        together(0, batch, _FEWEST_STEPS)  # the first call of a size prepares the rest
        seconds[batch] = fmean(together(turn, batch, None) for turn in range(_CALLS)) / calls
        progress.advance("calibrate")
    for actor in actors:
        ray.kill(actor)
    return _ModelFigures(start, seconds, chips)


def _start(machine: Cluster, actors: Sequence[tuple[float, float]]) -> float:
    """Seconds until actors could begin while the processes that read and stage for them start on the same cores.

    Reckoned from seconds of core, for the wall clock of so short a time says most of what else the machine does.
    """
    worker = ray.get(ray.remote(_core_seconds).options(num_cpus=0).remote())
    core_seconds = sum(cpu for _, cpu in actors) + machine.actors * _WORKERS_PER_ACTOR * worker
    return max(*(seconds for seconds, _ in actors), core_seconds / machine.cpus)


def _core_seconds() -> float:
    """What this process has computed since it began: in a new one, what its imports took."""
    return time.process_time()


def _row(grid: Grid, chip: ChipPlan) -> dict[str, Any]:
    """What the actor needs to know of a chip, besides its pixels."""
    window = grid.chip_window(chip.index)
    return {"name": chip.name, "epsg": chip.epsg, "pixel_row": window.row, "pixel_col": window.col}


def _stacked(rows: Sequence[Mapping[str, Any]]) -> Batch:
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


# ---------------------------------------------------------------------------------------------------------------------
# Staging
# ---------------------------------------------------------------------------------------------------------------------


def _measure_staging(
    config: RunConfig, chips: Sequence[tuple[ChipPlan, StagedChip]]
) -> tuple[list[tuple[ChipPlan, str]], Staging]:
    """Stage what the model made; returns the chips with their objects' names, and the figures."""
    staging, staged, seconds, cpu, sizes = staging_of(config), [], [], [], []
    for number, (chip, made) in enumerate(chips[: len(_SPREAD)]):
        name = f"{chip.epsg}/staged-{number}.chip"
        with _Stopwatch() as watch:
            size = write_chip(staging, name, made)
        staged.append((chip, name))
        seconds.append(watch.seconds)
        cpu.append(watch.cpu_seconds)
        sizes.append((chip.covered, float(size)))
    empty, covered = _line(sizes)
    return staged, Staging(seconds=fmean(seconds), cpu_seconds=fmean(cpu), bytes=empty, bytes_covered=covered)


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The line that fits points best, none of its two figures below 0: what it is at nothing, and what it rises by 1.

    Where all points are at one place it goes through nothing.
    """
    x, y = (np.array(side) for side in zip(*points, strict=True))
    if x.max() <= 0:
        return float(y.mean()), 0.0
    through_nothing = 0.0, float((x * y).sum() / (x * x).sum())
    if np.ptp(x) < 1e-3:
        return through_nothing
    rise, start = (float(figure) for figure in np.polyfit(x, y, 1))
    if rise < 0:
        return float(y.mean()), 0.0
    return (start, rise) if start >= 0 else through_nothing


# ---------------------------------------------------------------------------------------------------------------------
# Shards
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Written:
    """What a shard took and came to: seconds, chips (or shards) that it is made of, bytes of its objects, pixels with
    data."""

    seconds: float
    chips: int
    bytes: int
    pixels: int


def _measure_shards(
    config: RunConfig, machine: Cluster, sample: _Sample, staged: Sequence[tuple[ChipPlan, str]]
) -> tuple[ShardWriting, OverviewWriting, Publishing]:
    grid, count = sample.grid, min(machine.cpus, _SHARDS)
    draft, shards = _scratch_cube(config, sample, count)
    staging = staging_of(config)
    write = ray.remote(_write_shard).options(num_cpus=1)
    shared = ray.put(draft)

    def together(chips: int | None) -> list[_Written]:
        """Shards written at a time, one a core, of all or some of the chips that touch them."""
        tasks = [write.remote(shared, shard, _sources(grid, draft, shard, staged)[:chips], staging) for shard in shards]
        ended: list[_Written] = ray.get(tasks)
        return ended

    together(1)  # the first time prepares the rest
    least, full = together(1), together(None)
    overview = _measure_overviews(draft, shards)
    with _Stopwatch() as watch:
        PlainTarget(draft.storage, staging, draft, "calibration").publish(shards_written=count, keep=1)
    ((_, zone),) = draft.zones.items()
    of_levels = len(draft.objects) - 2  # without the root's document and the zone's
    publish = Publishing(seconds=watch.seconds, objects=of_levels // len(zone.levels))
    return _shard_figures(full, least), overview, publish


def _measure_overviews(draft: CubeDraft, shards: Sequence[ShardIndex]) -> OverviewWriting:
    """Overviews of the written shards, one a core: where there are more cores than those, some make the same one."""
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

    together()  # the first time prepares the rest
    done = together()
    return OverviewWriting(
        seconds_per_shard=sum(written.seconds for written in done) / sum(written.chips for written in done),
        bytes_per_pixel=sum(written.bytes for written in done) / max(sum(written.pixels for written in done), 1),
    )


def _shard_figures(full: Sequence[_Written], least: Sequence[_Written]) -> ShardWriting:
    """A line through shards of all their chips and shards of one."""

    def means(x: str, y: str) -> list[tuple[float, float]]:
        return [(fmean(getattr(w, x) for w in part), fmean(getattr(w, y) for w in part)) for part in (least, full)]

    seconds, seconds_per_chip = _line(means("chips", "seconds"))
    empty, bytes_per_pixel = _line(means("pixels", "bytes"))
    return ShardWriting(
        seconds=seconds, seconds_per_chip=seconds_per_chip, bytes=empty, bytes_per_pixel=bytes_per_pixel
    )


def _scratch_cube(config: RunConfig, sample: _Sample, count: int) -> tuple[CubeDraft, list[ShardIndex]]:
    """A cube of so many shards in a row, beginning at the sample's first chip."""
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
    """Blend and write one shard, as `run.assemble_shard` does."""
    ((epsg, zone),) = draft.zones.items()
    with _Stopwatch() as watch:
        data = blend_shard(draft.grid, shard, sources, staging, with_std=zone.uncertainty_samples > 0)
        objects = draft.write_shard(epsg, shard, data)
    size = sum(len(draft.storage.read(name)) for name in objects)
    return _Written(watch.seconds, len(sources), size, int((data.quality > 0).sum()))


def _write_overview(draft: CubeDraft, at: OverviewIndex, children: list[OverviewIndex]) -> _Written:
    """Make and write one shard of an overview, as `overviews.write_overview` does."""
    ((epsg, _),) = draft.zones.items()
    with _Stopwatch() as watch:
        data = halve_shards(draft, draft.store, epsg, children)
        objects = draft.write_shard(epsg, at, data)
    size = sum(len(draft.storage.read(name)) for name in objects)
    return _Written(watch.seconds, len(children), size, int((data.quality > 0).sum()))
