"""The graph of a run: plan → read → super-resolve → stage on Ray Data, then one Ray task a shard, then publish."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import ray
import ray.data

from kernels.bands import GROUPS
from kernels.checkpoints import WeightsError as KernelWeightsError
from kernels.model import model_fingerprint
from pipeline.actor import Batch, SuperResolver, sampling_of
from pipeline.assemble import ChipSource, blend_shard
from pipeline.catalog import Scene, find_scenes
from pipeline.config import RunConfig
from pipeline.cube import CubeDraft, draft_cube
from pipeline.errors import EXIT_DONE, EXIT_INCOMPLETE, DifffusrError, StoreError, WeightsError
from pipeline.estimate import enforce_budget
from pipeline.grid import ChipIndex, Grid
from pipeline.plan import ChipPlan, Plan, ShardPlan, write_plan
from pipeline.planner import grid_of, make_plan
from pipeline.reader import read_chip
from pipeline.staging import StagedChip, done_chips, write_chip
from pipeline.storage import Storage, first_line

log = logging.getLogger("difffusr.run")

#: Shares of a core that the steps around the actors ask for, and the share of its cores that an actor leaves to them:
#: actors that held every core would starve the tasks that feed them.
_READ_CPUS, _STAGE_CPUS, _ACTOR_CPU_SHARE = 0.1, 0.1, 0.8

#: Readers at work for each actor. Every one is a process: on a small machine starting them costs more than reading.
_READERS_PER_ACTOR = 2

#: So many scenes are looked at on this machine's threads; more of them on Ray.
_SCENES_ON_THREADS = 32

#: Ray Data keeps its table of blocks in the driver's memory: more chips make larger blocks, not more.
_MAX_BLOCKS = 10_000


class Progress(Protocol):
    """What a run tells whoever watches it."""

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """A stage begins; `done` of its `total` steps were done before."""

    def advance(self, stage: str) -> None:
        """One more step of a stage is done."""


@dataclass
class RunResult:
    """How a run ended.

    Attributes:
        plan: what was to be done.
        computed, reused: chips computed now, and found done.
        written, kept: shards written now, and found done.
        failed: reason by chip name; these chips are missing from the cube.
        seconds: wall time by stage.
    """

    plan: Plan
    computed: int = 0
    reused: int = 0
    written: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when the cube is complete, 3 when chips are missing from it."""
        return EXIT_INCOMPLETE if self.failed else EXIT_DONE


def plan_run(config: RunConfig) -> Plan:
    """Search the catalogue, decide what to compute, and put the plan into the staging folder.

    Raises:
        DifffusrError: catalogue, weights or store cannot be used.
    """
    staging = staging_of(config)
    staging.check_writable()
    plan = decide(config)
    write_plan(plan, grid_of(config), staging)
    return plan


def decide(config: RunConfig) -> Plan:
    """Search the catalogue and decide what to compute; nothing is written.

    Raises:
        DifffusrError: catalogue or weights cannot be used.
    """
    fingerprint = fingerprint_of(config)
    scenes = find_scenes(config)
    # Starting Ray takes longer than a handful of reads.
    with cluster(config) if len(scenes) > _SCENES_ON_THREADS else nullcontext():
        return make_plan(config, scenes, fingerprint)


def execute(config: RunConfig, progress: Progress) -> RunResult:
    """Run a configuration from catalogue to published cube. What is already done is not done again.

    Raises:
        DifffusrError: the run cannot go on; everything staged so far stays for the next attempt.
    """
    started = time.monotonic()
    progress.start("plan", 1)
    storage_of(config).check_writable()
    plan = plan_run(config)
    draft = draft_of(config, plan)
    progress.advance("plan")
    result = RunResult(plan)
    result.seconds["plan"] = time.monotonic() - started
    with cluster(config):
        enforce_budget(config, plan, len(done_chips(staging_of(config)) & set(plan.chips.object_names())))
        started = time.monotonic()
        _compute_chips(config, plan, result, progress)
        result.seconds["chips"] = time.monotonic() - started
        if len(result.failed) == len(plan.chips):
            chip, reason = next(iter(result.failed.items()))
            raise DifffusrError(
                f"all {len(plan.chips)} chips failed, nothing was published; the first, {chip}: {reason}"
            )
        started = time.monotonic()
        _assemble_shards(config, plan, draft, result, progress)
        result.seconds["shards"] = time.monotonic() - started
    progress.start("publish", 1)
    draft.publish()
    progress.advance("publish")
    _write_report(config, result)
    return result


def storage_of(config: RunConfig) -> Storage:
    """Where the cube goes."""
    return Storage(config.store.url, config.store.storage_options)


def staging_of(config: RunConfig) -> Storage:
    """Where staged chips, plan and ledger go."""
    return Storage(config.store.staging, config.store.storage_options)


def fingerprint_of(config: RunConfig) -> str:
    """What identifies weights and sampling.

    Raises:
        WeightsError: the weights cannot be used.
    """
    model = config.model
    try:
        return model_fingerprint(model.preset, model.stage1, model.fusion, sampling_of(config))
    except KernelWeightsError as error:
        raise WeightsError(str(error)) from None


def draft_of(config: RunConfig, plan: Plan) -> CubeDraft:
    """The cube as it will be once the plan is carried out.

    Raises:
        DifffusrError: the store holds something else.
    """
    grid = grid_of(config)
    facts = [
        {
            "id": scene.id,
            "datetime": scene.datetime.isoformat(),
            "tile": scene.tile,
            "baseline": scene.baseline,
            "collection": scene.collection,
            "product": scene.product_uri,
        }
        for scene in plan.scenes
    ]
    provenance = {
        "software": {name: version(name) for name in ("difffusr", "torch", "ray", "zarr")},
        "model": plan.manifest["model"],
        "config": plan.manifest["config"],
    }
    extents = {epsg: plan.extent(epsg, grid) for epsg in plan.zones()}
    period = config.period.start, config.period.end
    samples = config.model.uncertainty_samples
    return draft_cube(storage_of(config), grid, extents, period, facts, provenance, samples)


@contextmanager
def cluster(config: RunConfig) -> Iterator[None]:
    """Ray for the length of a run: the configured cluster, or one started on this machine."""
    if ray.is_initialized():
        yield
        return
    # Ray's core prints remarks on its inner workings as errors; what really fails reaches us as exceptions.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = config.compute.address
    try:
        _check_reachable(address)
        with _without_native_remarks():
            ray.init(
                address=address,
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise DifffusrError(
            f"compute.address: no Ray cluster answers at {address or 'this machine'} ({first_line(error)}); start one "
            "there, or leave the key out to run on this machine"
        ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Try the address's port, for Ray itself tries for minutes. Raises ConnectionError."""
    host, separator, port = (address or "").removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from None


@contextmanager
def _without_native_remarks() -> Iterator[None]:
    """Keep what Ray's core announces at its start, past Python's streams, off the terminal."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# ---------------------------------------------------------------------------------------------------------------------
# Chips: Ray Data
# ---------------------------------------------------------------------------------------------------------------------


def _compute_chips(config: RunConfig, plan: Plan, result: RunResult, progress: Progress) -> None:
    """Read, super-resolve and stage every chip that has no staged object yet."""
    done = done_chips(staging_of(config))
    todo = [chip for chip in plan.chips if chip.object_name not in done]
    result.reused = len(plan.chips) - len(todo)
    progress.start("chips", len(plan.chips), result.reused)
    if not todo:
        return
    for row in chip_dataset(config, plan, todo).iter_rows():
        if row["error"]:
            result.failed[row["name"]] = row["error"]
            log.warning("chip %s failed: %s", row["name"], row["error"])
        else:
            result.computed += 1
        progress.advance("chips")


def chip_dataset(config: RunConfig, plan: Plan, chips: list[ChipPlan]) -> ray.data.Dataset:
    """The engine's graph: read on CPUs → actor pool, pinned to GPUs where there are any → stage.

    Returns:
        a lazy dataset of one row a chip: `name`, and `error`, empty for a chip that is staged.
    """
    grid = grid_of(config)
    rows = [_chip_row(grid, chip) for chip in chips]
    blocks = min(math.ceil(len(rows) / config.compute.batch), _MAX_BLOCKS)
    scenes = ray.put({scene.id: scene for scene in plan.scenes})
    compute = config.compute
    gpus = _gpus_per_actor(config)
    least, most = _actor_limits(config, gpus, blocks)
    read = ray.data.from_items(rows, override_num_blocks=blocks).map(
        read_row,
        fn_kwargs={"scenes": scenes, "grid": grid, "allow_cloudy": config.scenes.allow_cloudy},
        num_cpus=_READ_CPUS,
        concurrency=compute.read_concurrency or most * _READERS_PER_ACTOR,
    )
    resolved = read.map_batches(
        SuperResolver,
        fn_constructor_args=(config,),
        batch_size=compute.batch,
        compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most, initial_size=most),
        num_cpus=_ACTOR_CPU_SHARE * (1 if gpus else compute.cpus_per_actor),
        num_gpus=gpus,
        zero_copy_batch=True,
    )
    return resolved.map_batches(
        stage_rows, fn_kwargs={"staging": staging_of(config)}, batch_size=1, num_cpus=_STAGE_CPUS, concurrency=most
    )


def _chip_row(grid: Grid, chip: ChipPlan) -> dict[str, Any]:
    window = grid.chip_window(chip.index)
    return {
        "name": chip.name,
        "object": chip.object_name,
        "epsg": chip.epsg,
        "row": chip.index.row,
        "col": chip.index.col,
        "pixel_row": window.row,
        "pixel_col": window.col,
        "scenes": "\n".join(chip.scenes),
    }


def read_row(row: dict[str, Any], scenes: Any, grid: Grid, allow_cloudy: bool) -> dict[str, Any]:
    """Read one chip.

    Args:
        row: as `_chip_row` makes it.
        scenes: reference to the plan's scenes by id.

    Returns:
        the row with columns `dn10`, `dn20`, `dn60`, `valid10`, `valid20`, `valid60`, `quality`, `source` as in
        `reader.Chip`, and `error`: empty, or why the chip could not be read (the arrays then are zero).
    """
    by_id: Mapping[str, Scene] = ray.get(scenes) if isinstance(scenes, ray.ObjectRef) else scenes
    window = grid.chip_window(ChipIndex(row["row"], row["col"]))
    error = ""
    try:
        chip = read_chip(window, [by_id[i] for i in row["scenes"].split("\n")], allow_cloudy=allow_cloudy)
    except DifffusrError as failure:
        error = str(failure)
    except Exception as failure:  # the one place where any failure becomes a chip's recorded failure
        error = f"{type(failure).__name__}: {failure}"
    if error:
        chip = read_chip(window, [], allow_cloudy=False)
    out = {**row, "error": error, "quality": chip.quality, "source": chip.source}
    for gsd in GROUPS:
        out[f"dn{gsd}"] = chip.dn[gsd]
        out[f"valid{gsd}"] = chip.valid[gsd].astype(np.uint8)
    return out


def stage_rows(batch: Batch, staging: Storage) -> Batch:
    """Write super-resolved chips to the staging folder; `error` says why one could not be."""
    errors = [str(error) for error in batch["error"]]
    for i, error in enumerate(errors):
        if error:
            continue
        std = batch["std"][i] if "std" in batch else None
        chip = StagedChip(batch["dn"][i], batch["quality"][i], batch["source"][i], std)
        try:
            write_chip(staging, str(batch["object"][i]), chip)
        except StoreError as failure:
            errors[i] = str(failure)
    return {"name": batch["name"], "error": np.array(errors, dtype=object)}


def _gpus_per_actor(config: RunConfig) -> float:
    wanted = config.compute.gpus_per_actor
    if wanted == "auto":
        return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    return float(wanted)


def _actor_limits(config: RunConfig, gpus: float, batches: int) -> tuple[int, int]:
    """Least and greatest number of actors: as many as the cluster's GPUs, or else its cores, can hold."""
    resources = ray.cluster_resources()
    if gpus:
        fit = int(resources.get("GPU", 0) / gpus)
        if fit < 1:
            raise DifffusrError(
                f"compute.gpus_per_actor asks for {gpus:g} GPU, the cluster has {resources.get('GPU', 0):g}; "
                "set it to 'auto' to compute on CPUs where there is no GPU"
            )
    else:
        fit = max(1, int(resources.get("CPU", 1) / config.compute.cpus_per_actor))
    most = min(config.compute.actors_max or fit, max(batches, 1))
    return min(config.compute.actors_min, most), most


# ---------------------------------------------------------------------------------------------------------------------
# Shards: one Ray task each
# ---------------------------------------------------------------------------------------------------------------------


def _assemble_shards(config: RunConfig, plan: Plan, draft: CubeDraft, result: RunResult, progress: Progress) -> None:
    """Write every shard that is not in the ledger with the same content."""
    staging = staging_of(config)
    todo = []
    for shard in plan.shards:
        task = shard_task(draft, shard, result.failed)
        if _is_written(staging, draft, shard, task):
            result.kept += 1
        else:
            todo.append((shard, task))
    progress.start("shards", len(plan.shards), result.kept)
    shared = ray.put(draft)
    assemble = ray.remote(assemble_shard).options(num_cpus=1, max_retries=2)
    waiting: list[Any] = []
    limit = max(1, int(ray.cluster_resources().get("CPU", 1)))
    for shard, task in todo:
        if len(waiting) >= limit:
            waiting = _collect(waiting, 1, result, progress)
        waiting.append(assemble.remote(shared, shard, task, staging))
    _collect(waiting, len(waiting), result, progress)


def _collect(waiting: list[Any], count: int, result: RunResult, progress: Progress) -> list[Any]:
    """Wait for some shards; returns the tasks still running."""
    for _ in range(count):
        finished, waiting = ray.wait(waiting, num_returns=1)
        try:
            ray.get(finished[0])
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, DifffusrError) else error
            raise cause from None
        result.written += 1
        progress.advance("shards")
    return waiting


def shard_task(draft: CubeDraft, shard: ShardPlan, failed: Mapping[str, str]) -> dict[str, Any]:
    """What a shard is blended from, as the ledger records it."""
    numbers = {facts["id"]: number for number, facts in draft.scenes.items()}
    return {
        "key": shard.key,
        "chips": {
            chip.object_name: [numbers[s] for s in chip.scenes] for chip in shard.chips if chip.name not in failed
        },
        "missing": sorted(chip.name for chip in shard.chips if chip.name in failed),
        "step": draft.zones[shard.epsg].step,
        "position": list(draft.zones[shard.epsg].shard_position(shard.index, draft.grid)),
    }


def _is_written(staging: Storage, draft: CubeDraft, shard: ShardPlan, task: Mapping[str, Any]) -> bool:
    entry = read_ledger_entry(staging, shard)
    if entry is None or any(entry.get(name) != value for name, value in task.items()):
        return False
    return all(draft.storage.exists(path) for path in entry["objects"])


def assemble_shard(draft: CubeDraft, shard: ShardPlan, task: Mapping[str, Any], staging: Storage) -> None:
    """Blend one shard, write it whole, and enter it in the ledger.

    Raises:
        StoreError: a staged chip or the store fails.
    """
    chips = [
        ChipSource(chip.index, chip.object_name, tuple(task["chips"][chip.object_name]))
        for chip in shard.chips
        if chip.object_name in task["chips"]
    ]
    with_std = draft.zones[shard.epsg].uncertainty_samples > 0
    data = blend_shard(draft.grid, shard.index, chips, staging, with_std=with_std)
    checksums = draft.write_shard(shard.epsg, shard.index, data)
    valid = float((data.quality > 0).mean())
    entry = {**task, "objects": checksums, "valid_share": round(valid, 6)}
    staging.write(ledger_name(shard), json.dumps(entry, indent=1, sort_keys=True).encode())


def ledger_name(shard: ShardPlan) -> str:
    """Name of a shard's entry in the ledger."""
    return f"shards/{shard.name}.json"


def read_ledger_entry(staging: Storage, shard: ShardPlan) -> dict[str, Any] | None:
    """A shard's entry in the ledger; None when it was never written."""
    if not staging.exists(ledger_name(shard)):
        return None
    entry: dict[str, Any] = json.loads(staging.read(ledger_name(shard)))
    return entry


def _write_report(config: RunConfig, result: RunResult) -> None:
    report = {
        "name": config.name,
        "period": config.period.label,
        "chips": {"computed": result.computed, "reused": result.reused, "failed": len(result.failed)},
        "shards": {"written": result.written, "kept": result.kept},
        "failed": result.failed,
        "seconds": {stage: round(seconds, 2) for stage, seconds in result.seconds.items()},
        "cores": os.cpu_count(),
    }
    staging_of(config).write("report.json", json.dumps(report, indent=1, sort_keys=True).encode())
