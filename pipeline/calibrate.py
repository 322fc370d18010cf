"""Measure a machine with a run's own models, scenes and store: what an estimate is reckoned from."""

from __future__ import annotations

import datetime as dt
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import fsspec
import numpy as np
import rasterio
import ray

from kernels.bands import SCALE
from pipeline.access import gdal_options, readable
from pipeline.actor import Batch, SuperResolver
from pipeline.config import RunConfig
from pipeline.errors import DifffusrError
from pipeline.estimate import (
    Calibration,
    Publishing,
    Reading,
    ShardWriting,
    Staging,
    StartUp,
    cluster_of,
    conditions_of,
)
from pipeline.grid import Grid, PixelWindow
from pipeline.plan import ChipPlan, Plan
from pipeline.planner import grid_of
from pipeline.reader import read_chip
from pipeline.run import assemble_shard, chip_dataset, cluster, draft_of, read_row, shard_task, staging_of
from pipeline.scene import Asset
from pipeline.staging import read_chip as read_staged
from pipeline.staging import write_chip
from pipeline.storage import STORE_FAILURES

#: Batches that each actor computes while it is timed, after one to warm up.
_CALLS = 2

#: Rounds of all actors in the engine's shorter and longer measurement.
_ROUNDS = (1, 3)


def calibrate(config: RunConfig, plan: Plan, batches: Sequence[int]) -> Calibration:
    """Measure this machine.

    Some chips of the plan are read, super-resolved and staged by the run's own engine, and the shards that they touch
    assembled, in a scratch folder below the staging folder that is deleted afterwards. Nothing else should be at work
    on the machine meanwhile.

    Args:
        plan: whose chips are measured.
        batches: batch sizes to time the model with; the configuration's own is timed in any case.

    Raises:
        DifffusrError: scenes, weights or store cannot be used.
    """
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    begun = time.monotonic()
    with _scratch(config) as scratch, cluster(config):
        ray_seconds = time.monotonic() - begun
        here = cluster_of(config)
        actors, batch = here.actors, config.compute.batch
        chips = _neighbouring(plan, max(_ROUNDS) * actors * batch)
        reading = _read(scratch, plan, chips[:6])
        model = {size: _model_seconds(scratch, plan, chips, actors, size) for size in sorted({*batches, batch})}
        start, round_seconds, done = _engine(scratch, plan, chips, actors * batch)
        staging = _stage(scratch, done[0])
        shards, shard_start, publishing = _shards(scratch, plan, done)
        explained = batch * max(
            model[batch],
            staging.seconds,
            actors * reading.seconds / (config.compute.read_concurrency or 2 * actors),
            actors
            * ((0.0 if here.gpus else model[batch] * config.compute.cpus_per_actor) + reading.cpu_seconds)
            / here.cpus,
        )
        return Calibration(
            version=1,
            measured=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            machine=f"{here.cpus} cores, {here.gpus:g} GPUs",
            gpu=here.gpus > 0,
            actors=actors,
            load=round(load, 2),
            source="own",
            conditions=conditions_of(config),
            model=model,
            engine_seconds=max(round_seconds - explained, 0.0) / batch,
            start_up=StartUp(ray=ray_seconds, actors=start, shards=shard_start),
            read=reading,
            stage=staging,
            shard=shards,
            publish=publishing,
        )


def calibration_rows(found: Calibration) -> list[tuple[str, str]]:
    """(label, value) of a calibration for people."""
    rows = [("machine", f"{found.machine}, {found.actors} actors")]
    rows += [(f"model, batch {size}", f"{seconds:.2f} s a chip") for size, seconds in found.model.items()]
    rows += [
        ("engine", f"{found.engine_seconds:.2f} s a chip beyond its parts"),
        ("start-up", f"Ray {found.start_up.ray:.1f} s, actors {found.start_up.actors:.1f} s"),
        ("read", f"{found.read.seconds:.2f} s, {found.read.bytes / 1e6:.1f} MB a scene and chip{_rate(found.read)}"),
        ("stage", f"{found.stage.seconds:.2f} s, {found.stage.bytes / 1e6:.1f} MB a chip{_rate(found.stage)}"),
        ("shard", f"{found.shard.seconds:.2f} s and {found.shard.seconds_per_chip:.2f} s a chip"),
        ("publish", f"{found.publish.seconds:.2f} s a zone"),
    ]
    if found.load > 0.3:
        rows.append(("warning", f"the machine was busy (load {found.load:.1f} a core): measure again when it is not"))
    return rows


def _rate(part: Reading | Staging) -> str:
    return f", {part.bytes / 1e6 / part.seconds:.0f} MB/s" if part.seconds else ""


@contextmanager
def _scratch(config: RunConfig) -> Iterator[RunConfig]:
    """The configuration with cube and staged chips in a folder of its own, deleted in the end."""
    folder = staging_of(config).child(f"calibration-{os.getpid()}")
    store = config.store.model_copy(
        update={"url": folder.child("cube.zarr").url, "staging": folder.child("staging").url}
    )
    try:
        yield config.model_copy(update={"store": store})
    finally:
        fs, path = folder.filesystem()
        with suppress(FileNotFoundError):
            fs.rm(path, recursive=True)


def _neighbouring(plan: Plan, count: int) -> list[ChipPlan]:
    """Chips from the middle of the plan, close together so that they fill shards; all of them where there are fewer."""
    row, col = (axis.astype(np.int64) for axis in (plan.chips.row, plan.chips.col))
    middle = len(row) // 2
    same = plan.chips.epsg == plan.chips.epsg[middle]
    away = np.maximum(np.abs(row - row[middle]), np.abs(col - col[middle])) + np.where(same, 0, 10**6)
    order = np.lexsort((np.arange(len(row)), away))[:count]
    return [plan.chips[int(i)] for i in np.sort(order)]


def _read(config: RunConfig, plan: Plan, chips: Sequence[ChipPlan]) -> Reading:
    """Read some chips in this process."""
    scenes = {scene.id: scene for scene in plan.scenes}
    grid = grid_of(config)
    wall, cpu, looks, fetched, further, planned = 0.0, 0.0, 0, 0.0, 0, 0
    for chip in chips:
        window = grid.chip_window(chip.index)
        begun, used = time.monotonic(), time.process_time()
        pixels = read_chip(window, [scenes[i] for i in chip.scenes], allow_cloudy=config.scenes.allow_cloudy)
        wall, cpu = wall + time.monotonic() - begun, cpu + time.process_time() - used
        # Scenes are looked at until nothing is missing: all of them where something still is.
        seen = len(chip.scenes) if (pixels.source == 0).any() else int(pixels.source.max())
        looks, further, planned = looks + seen, further + seen - 1, planned + len(chip.scenes) - 1
        for name in chip.scenes[:seen]:
            assets = [*scenes[name].assets.values(), *([scenes[name].scl] if scenes[name].scl else [])]
            fetched += sum(_bytes_under(asset, chip.epsg, window) for asset in assets if asset is not None)
    return Reading(
        seconds=wall / looks,
        cpu_seconds=min(cpu, wall) / looks,
        bytes=fetched / looks,
        further_share=further / planned if planned else 1.0,
    )


def _bytes_under(asset: Asset, epsg: int, window: PixelWindow) -> float:
    """Bytes of a file's blocks that a window touches; of a file without a table of blocks its share by area."""
    left, bottom, right, top = window.bounds_m(epsg)
    with rasterio.Env(**gdal_options(asset.href)), rasterio.open(readable(asset.href)) as file:
        t, (high, wide) = file.transform, file.block_shapes[0]
        rows = _blocks((t.f - top) / asset.gsd_m, (t.f - bottom) / asset.gsd_m, file.height, high)
        cols = _blocks((left - t.c) / asset.gsd_m, (right - t.c) / asset.gsd_m, file.width, wide)
        sizes = [file.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=1) for row in rows for col in cols]
        if all(size is not None for size in sizes):
            return float(sum(map(int, sizes)))
        share = len(rows) * len(cols) * high * wide / max(file.height * file.width, 1)
    try:
        with fsspec.open(asset.href) as whole:
            return min(share, 1.0) * float(whole.size or 0)
    except STORE_FAILURES:
        return 0.0


def _blocks(start: float, stop: float, length: int, block: int) -> range:
    first, last = max(math.floor(start), 0), min(math.ceil(stop), length)
    return range(first // block, -(-last // block)) if first < last else range(0)


class _Probe(SuperResolver):
    """An actor that says how long it takes."""

    def seconds(self, batch: Batch) -> float:
        """Seconds for a batch, the best of some calls after a first."""
        self(batch)
        taken = []
        for _ in range(_CALLS):
            begun = time.monotonic()
            self(batch)
            taken.append(time.monotonic() - begun)
        return float(np.mean(taken))


def _model_seconds(config: RunConfig, plan: Plan, chips: Sequence[ChipPlan], actors: int, size: int) -> float:
    """Seconds a chip of one call of the model, in one actor while all compute."""
    compute = config.compute.model_copy(update={"batch": size})
    model = config.model.model_copy(update={"uncertainty_samples": 0})
    trial = config.model_copy(update={"compute": compute, "model": model})
    rows = [_row(config, plan, chips[i % len(chips)]) for i in range(size)]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    here = cluster_of(config)
    share = here.gpus / actors if here.gpus else 0.0
    probe = ray.remote(num_cpus=0.5, num_gpus=min(share, 1.0))(_Probe)
    probes = [probe.remote(trial) for _ in range(actors)]
    shared = ray.put(batch)
    found = ray.get([one.seconds.remote(shared) for one in probes])
    for one in probes:
        ray.kill(one)
    return float(np.mean(found)) / size


def _row(config: RunConfig, plan: Plan, chip: ChipPlan) -> dict[str, Any]:
    grid = grid_of(config)
    window = grid.chip_window(chip.index)
    scenes = {scene.id: scene for scene in plan.scenes if scene.id in chip.scenes}
    row = {"name": chip.name, "object": chip.object_name, "epsg": chip.epsg, "row": chip.index.row}
    row |= {"col": chip.index.col, "pixel_row": window.row, "pixel_col": window.col, "scenes": "\n".join(chip.scenes)}
    return read_row(row, scenes, grid, config.scenes.allow_cloudy)


def _engine(config: RunConfig, plan: Plan, chips: list[ChipPlan], a_round: int) -> tuple[float, float, list[ChipPlan]]:
    """Seconds until the actors could begin, seconds of a round of all actors, and the chips that are staged then.

    The engine runs twice, over fewer and over more chips: what it takes in any case is told from what grows.
    """
    taken = []
    sizes = sorted({min(rounds * a_round, len(chips)) for rounds in _ROUNDS})
    for size in sizes:
        begun = time.monotonic()
        for row in chip_dataset(config, plan, chips[:size]).iter_rows():
            if row["error"]:
                raise DifffusrError(f"chip {row['name']} failed while calibrating: {row['error']}")
        taken.append(time.monotonic() - begun)
    rounds = [math.ceil(size / a_round) for size in sizes]
    if len(sizes) < 2 or rounds[0] == rounds[-1]:
        return 0.0, taken[-1] / rounds[-1], chips[: sizes[-1]]
    a_round_takes = max(taken[-1] - taken[0], 0.0) / (rounds[-1] - rounds[0])
    return max(taken[0] - a_round_takes * rounds[0], 0.0), a_round_takes, chips[: sizes[-1]]


def _stage(config: RunConfig, chip: ChipPlan) -> Staging:
    """Write a staged chip once more under other names."""
    staging = staging_of(config)
    staged = read_staged(staging, chip.object_name)
    begun, used = time.monotonic(), time.process_time()
    sizes = [write_chip(staging, f"again/{number}.chip", staged) for number in range(3)]
    wall, cpu = (time.monotonic() - begun) / 3, (time.process_time() - used) / 3
    return Staging(seconds=wall, cpu_seconds=min(cpu, wall), bytes=float(np.mean(sizes)))


def _shards(config: RunConfig, plan: Plan, done: Sequence[ChipPlan]) -> tuple[ShardWriting, float, Publishing]:
    """Assemble the shards that staged chips touch, one a core, and publish them."""
    staged = {chip.name for chip in done}
    draft = draft_of(config, plan)
    grid = grid_of(config)
    touched = _touched(plan, grid, done)
    failed = {chip.name: "" for shard in touched for chip in shard.chips if chip.name not in staged}
    timed = ray.remote(num_cpus=1)(_timed_shard)
    shared, staging = ray.put(draft), staging_of(config)
    tasks = [shard_task(draft, shard, failed) for shard in touched]
    begun = time.monotonic()
    jobs = [timed.remote(shared, shard, task, staging) for shard, task in zip(touched, tasks, strict=True)]
    taken = np.array(ray.get(jobs))
    wall = time.monotonic() - begun
    pairs = np.array([len(task["chips"]) for task in tasks], float)
    slope, base = (0.0, float(taken.mean()))
    if np.ptp(pairs) > 0:
        slope, base = (max(float(value), 0.0) for value in np.polyfit(pairs, taken, 1))
    idle = max(wall - float(taken.sum()) / min(len(touched), int(ray.cluster_resources().get("CPU", 1))), 0.0)
    begun = time.monotonic()
    draft.publish()
    published = (time.monotonic() - begun) / len(draft.zones)
    bytes_written, pixels = _written(config), float(len(done)) * (grid.stride_px * SCALE) ** 2
    writing = ShardWriting(seconds=base, seconds_per_chip=slope, bytes=0.0, bytes_per_pixel=bytes_written / pixels)
    return writing, idle, Publishing(seconds=published, objects=len(draft.objects) // len(draft.zones))


def _touched(plan: Plan, grid: Grid, done: Sequence[ChipPlan]) -> list[Any]:
    """The planned shards that some of the chips touch, at most eight."""
    wanted = {(chip.epsg, shard) for chip in done for shard in grid.shards_touching(grid.chip_window(chip.index))}
    rows = zip(plan.shards.epsg.tolist(), plan.shards.row.tolist(), plan.shards.col.tolist(), strict=True)
    return [plan.shards[i] for i, (epsg, row, col) in enumerate(rows) if (epsg, (row, col)) in wanted][:8]


def _timed_shard(*args: Any) -> float:
    begun = time.monotonic()
    assemble_shard(*args)
    return time.monotonic() - begun


def _written(config: RunConfig) -> float:
    """Bytes of the scratch cube's data."""
    fs, path = fsspec.url_to_fs(config.store.url, **dict(config.store.storage_options))
    return float(sum(size for name, size in fs.du(path, total=False).items() if "/c/" in name))
