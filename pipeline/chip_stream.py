"""Chips through the engine: read on CPUs → super-resolve in an actor pool, pinned to GPUs where there are any → stage.

Ray Data is the engine: back-pressure, autoscaling, retries and lost nodes are its business. What travels from the
driver is a chip's number; everything else lies in one table in the object store.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from kernels.bands import GROUPS
from pipeline.access import one_line
from pipeline.actor import Batch, Resolved, SuperResolver
from pipeline.batch_size import with_batch
from pipeline.board import ATTEMPTS, Pin
from pipeline.config import RunConfig
from pipeline.errors import DifffusrError, StoreError
from pipeline.grid import ChipIndex, Grid
from pipeline.memory import keep_freed_memory
from pipeline.plan import Plan
from pipeline.planner import grid_of
from pipeline.raster import CLOUD_CLASSES, WATER_CLASSES
from pipeline.reader import Quality, read_chip
from pipeline.scene import Scene
from pipeline.staging import StagedChip, is_staged, write_chip
from pipeline.storage import Storage
from pipeline.telemetry import Meters

log = logging.getLogger("difffusr.chips")

#: Shares of a core that the steps around the actors ask for, and the share of its cores that an actor leaves to them:
#: actors that held every core would starve the tasks that feed them.
READ_CPUS, STAGE_CPUS, ACTOR_CPU_SHARE = 0.1, 0.1, 0.8

#: Readers at work for each actor. Every one is a process: on a small machine starting them costs more than reading.
READERS_PER_ACTOR = 2

#: Stagers at work for each actor, at most. One compresses chips as fast as a large GPU makes them, with little to
#: spare; a store that is far away takes its own time for each.
STAGERS_PER_ACTOR = 4

#: Calls that an actor has in hand: while the models are at one, the engine unpacks the next and packs the one before.
CALLS_PER_ACTOR = 2

#: Utilization of the actors, which is 0 at least, below which the engine lets some go.
NEVER = -1.0

#: Seconds between two looks at whether a node has come.
_LOOK_S = 2.0

#: What is to be done with a super-resolved chip; one that was staged before, or left alone, is none.
TO_STAGE, STAGED, LEFT = 0, 1, 2

#: Chips that one task reads, at most: what is lost when its worker is killed, and what a task's own cost is spread
#: over.
_CHIPS_A_TASK = 32

#: Bytes that a reader gathers before it passes them on: so little that a block's few copies do not matter.
_READ_BYTES = 32_000_000

#: Ray Data keeps its table of blocks in the driver's memory: more chips make larger blocks, not more.
_MAX_BLOCKS = 10_000

#: Chips a side of the squares in which chips are computed, so that shards are complete early and few chips lie staged.
_SQUARE = 16


@dataclass(frozen=True, eq=False)
class ChipTable:
    """What workers need to know of the chips, one column an attribute.

    Attributes:
        epsg, row, col: (n,) int32.
        scenes: (n, m) int32 positions in `every_scene`, best first, −1 after the last.
        key: (n, 10) uint8, the part of the content key that a staged object's name holds.
        every_scene: the plan's scenes.
        grid, allow_cloudy: as the configuration says.
        skip: classes of the scene classification; a chip that shows nothing else is spared the networks.
    """

    epsg: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    scenes: NDArray[np.int32]
    key: NDArray[np.uint8]
    every_scene: tuple[Scene, ...]
    grid: Grid
    allow_cloudy: bool
    skip: tuple[int, ...]

    @classmethod
    def of(cls, config: RunConfig, plan: Plan) -> ChipTable:
        """The table of a plan."""
        c, key = plan.chips, plan.chips.key[:, :10]
        skip = WATER_CLASSES * config.skip.water + CLOUD_CLASSES * config.skip.cloud
        allow_cloudy = config.scenes.allow_cloudy
        return cls(c.epsg, c.row, c.col, c.scenes, key, plan.scenes, grid_of(config), allow_cloudy, skip)

    def name(self, position: int) -> str:
        """As `ChipPlan.name`."""
        return f"{self.epsg[position]}/{self.row[position]}_{self.col[position]}"

    def facts(self, position: int) -> dict[str, Any]:
        """What the actor and the stager need to know of a chip."""
        window = self.grid.chip_window(ChipIndex(int(self.row[position]), int(self.col[position])))
        return {
            "position": position,
            "name": self.name(position),
            "object": f"{self.name(position)}-{self.key[position].tobytes().hex()}.chip",
            "epsg": int(self.epsg[position]),
            "pixel_row": window.row,
            "pixel_col": window.col,
        }

    def read(self, position: int) -> dict[str, Any]:
        """Read one chip: columns as `read_row` gives them, and the seconds that it took."""
        begun = time.perf_counter()
        index = ChipIndex(int(self.row[position]), int(self.col[position]))
        scenes = [self.every_scene[number] for number in self.scenes[position] if number >= 0]
        row = {**self.facts(position), **read_row(self.grid, index, scenes, self.allow_cloudy, self.skip)}
        return {**row, "read_s": time.perf_counter() - begun}


def read_row(
    grid: Grid, index: ChipIndex, scenes: Sequence[Scene], allow_cloudy: bool, skip: Sequence[int] = ()
) -> dict[str, Any]:
    """Read one chip.

    Returns:
        `dn10`, `dn20`, `dn60`, `valid10`, `valid20`, `valid60`, `quality`, `source` as in `reader.Chip`; `error`:
        empty, or why the chip could not be read (the arrays then are zero); and `skipped`: whether it is to be spared
        the networks, in which case `quality` says so.
    """
    window = grid.chip_window(index)
    error = ""
    try:
        chip = read_chip(window, scenes, allow_cloudy=allow_cloudy)
    except DifffusrError as failure:
        error = str(failure)
    except Exception as failure:  # the one place where any failure becomes a chip's recorded failure
        error = f"{type(failure).__name__}: {one_line(failure)}"
    if error:
        chip = read_chip(window, [], allow_cloudy=False)
    skipped, quality = chip.shows_only(skip), chip.quality
    if skipped:
        of_data = np.where(quality == Quality.CLOUDY, Quality.INTERPOLATED_CLOUD, Quality.INTERPOLATED)
        quality = np.where(quality == Quality.NO_DATA, Quality.NO_DATA, of_data).astype(np.uint8)
    out: dict[str, Any] = {"error": error, "quality": quality, "source": chip.source, "skipped": skipped}
    for gsd in GROUPS:
        out[f"dn{gsd}"] = chip.dn[gsd]
        out[f"valid{gsd}"] = chip.valid[gsd].astype(np.uint8)
    return out


def in_squares(plan: Plan, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions of the wanted chips in the order in which they are computed: square by square."""
    c = plan.chips
    order = np.lexsort((c.col, c.row, c.col // _SQUARE, c.row // _SQUARE, c.epsg))
    kept: NDArray[np.int64] = order[wanted[order]]
    return kept


def chip_dataset(
    config: RunConfig,
    plan: Plan,
    positions: NDArray[np.int64],
    staging: Storage,
    board: Any,
    resolver: type[PinnedResolver] | None = None,
) -> ray.data.Dataset:
    """The engine's graph.

    Args:
        positions: of the chips to compute, in the plan.
        staging: the run's folder.
        board: as `board.put_up` makes it.
        resolver: the actor, where it is not the usual one.

    Returns:
        a lazy dataset of one row a chip: `position`, `name`, `error`, why it failed, else empty, `fate`, which is
        `LEFT` for a chip that a run asked to stop has not begun, `skipped`, whether it was spared the networks, and
        `read_s`, `resolve_s`, `stage_s`, the seconds of each step.
    """
    gpus, resolver = gpus_per_actor(config), resolver or PinnedResolver
    config = with_batch(config, plan.manifest["model"], gpus, staging, resolver, board, staging)
    compute, batch = config.compute, int(config.compute.batch)
    least, most = actor_limits(config, gpus, math.ceil(len(positions) / batch))
    table, cores = ray.put(ChipTable.of(config, plan)), int(ray.cluster_resources().get("CPU", 1))
    blocks = ray.data.from_arrow(_blocks(positions, batch, most))
    # An actor that has nothing to do for a while is kept: its models would have to be loaded again.
    blocks.context.autoscaling_config.actor_pool_util_downscaling_threshold = NEVER
    read = blocks.map_batches(
        read_chips,
        fn_kwargs={"table": table, "board": board},
        batch_size=None,
        num_cpus=READ_CPUS,
        concurrency=compute.read_concurrency or most * READERS_PER_ACTOR,
    )
    resolved = read.map_batches(
        resolver,
        fn_constructor_args=(config, board, staging),
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(
            min_size=least,
            max_size=most,
            initial_size=most,
            max_concurrent_calls_per_actor=CALLS_PER_ACTOR,
            enable_true_multi_threading=True,  # `PinnedResolver` has the models' calls wait for one another
        ),
        **actor_share(config, gpus),
        zero_copy_batch=True,
    )
    return resolved.map_batches(
        stage_rows,
        fn_kwargs={"staging": staging, "board": board, "run": (config.name, config.period.label)},
        batch_size=None,
        zero_copy_batch=True,
        num_cpus=STAGE_CPUS,
        concurrency=max(most, min(most * STAGERS_PER_ACTOR, cores)),
    )


def _blocks(positions: NDArray[np.int64], batch: int, actors: int) -> list[pa.Table]:
    """Chips a task: whole batches, enough tasks that no actor waits for the last ones, and not too many tasks."""
    fair = len(positions) // (8 * actors)
    rows = max(min(_CHIPS_A_TASK, fair) // batch * batch, batch, math.ceil(len(positions) / _MAX_BLOCKS))
    return [pa.table({"position": positions[i : i + rows]}) for i in range(0, len(positions), rows)]


def read_chips(batch: Batch, table: Any, board: Any) -> Iterator[Batch]:
    """Read the chips of a block one by one; none any more once the run is asked to stop.

    Args:
        batch: `position` (n,).
        table: reference to the `ChipTable`.
    """
    keep_freed_memory()
    chips, pin = _fetched(table), _pin(board)
    rows: list[dict[str, Any]] = []
    size = 0
    for position in batch["position"].tolist():
        if pin.stopping():
            break
        pin.at("read", [chips.name(position)])
        row = {name: np.asarray(value) for name, value in chips.read(position).items()}
        rows.append(row)
        size += sum(column.nbytes for column in row.values())
        if size > _READ_BYTES:
            yield _stacked(rows)
            rows, size = [], 0
    pin.done()
    if rows:
        yield _stacked(rows)


def _stacked(rows: list[dict[str, Any]]) -> Batch:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@lru_cache(maxsize=2)  # every task of a worker asks
def _fetched(table: Any) -> ChipTable:
    fetched: ChipTable = ray.get(table)
    return fetched


@lru_cache(maxsize=2)
def _pin(board: Any) -> Pin:
    return Pin(board)


@lru_cache(maxsize=2)  # Ray does not tell two instances of a meter apart
def _meters(run: str, period: str) -> Meters:
    return Meters(run, period)


class PinnedResolver(SuperResolver):
    """The run's actor, which tells the board what it is at.

    Calls come two at a time. The models have a thread of their own, in which they are loaded and take one batch after
    the other: that batch is what the board hears of. What is around them is done beside it, in the calls' own threads.
    """

    def __init__(self, config: RunConfig, board: Any, staging: Storage) -> None:
        self.prepare(board, staging)
        self._models.submit(SuperResolver.__init__, self, config).result()
        if ray.get_runtime_context().was_current_actor_reconstructed:
            _meters(config.name, config.period.label).actor_restarted("death")

    def prepare(self, board: Any, staging: Storage) -> None:
        """All that there is to an actor besides its models."""
        self._pin, self._staging = Pin(board), staging
        self._models = ThreadPoolExecutor(max_workers=1, thread_name_prefix="models")

    def rate(self, size: int, chip_px: int) -> float | None:
        """As `SuperResolver`, in the models' thread."""
        return self._models.submit(SuperResolver.rate, self, size, chip_px).result()

    def __call__(self, batch: Batch) -> Batch:
        """As `SuperResolver`; a chip that no actor survives is given up, and one that is staged is not computed again.

        Ray repeats a task whose worker or node is lost, and with it chips that came through before.

        Returns:
            besides what `SuperResolver` returns, `fate` (B,): of `TO_STAGE`, `STAGED`, `LEFT`, and `resolve_s` (B,),
            the seconds that the models' thread had a chip.
        """
        resolved, fate, seconds = self._models.submit(self._resolve, batch).result()
        out = self.fetch(resolved)
        out["error"] = np.where(fate == TO_STAGE, out["error"], "")
        return {**out, "fate": fate, "resolve_s": np.full(len(fate), seconds / len(fate))}

    def _resolve(self, batch: Batch) -> tuple[Resolved, NDArray[np.uint8], float]:
        """In the models' thread: what was made of a batch, its chips' fates, the seconds that it took."""
        begun = time.perf_counter()
        names = [str(name) for name in batch["name"]]
        readable = [i for i, error in enumerate(batch["error"]) if not error]
        errors, fate = batch["error"].copy(), np.full(len(names), TO_STAGE, np.uint8)
        if self._pin.stopping():
            fate[readable], attempts = LEFT, []
        else:
            attempts = self._pin.begin("super_resolve", [names[i] for i in readable])
        for i, attempt in zip(readable, attempts, strict=False):
            if attempt != 1 and is_staged(self._staging, str(batch["object"][i])):
                fate[i] = STAGED
            elif attempt > ATTEMPTS:
                errors[i] = _given_up(attempt)
        resolved = self.resolve({**batch, "error": np.where(fate == TO_STAGE, errors, "not to be computed")})
        self._pin.done([names[i] for i in readable] if attempts else ())
        return resolved, fate, time.perf_counter() - begun


def _given_up(attempts: int) -> str:
    return (
        f"super_resolve: given up after {attempts - 1} workers ended or stalled at it; the workers' memory may not be "
        "enough (lower compute.batch or grid.chip_px), see the log"
    )


def stage_rows(batch: Batch, staging: Storage, board: Any, run: tuple[str, str]) -> Batch:
    """Write super-resolved chips to the staging folder; `error` says why one could not be.

    Args:
        run: name and period, for the meters.
    """
    keep_freed_memory()
    pin, meters = _pin(board), _meters(*run)
    errors = [str(error) for error in batch["error"]]
    seconds = np.zeros(len(errors))
    for i, error in enumerate(errors):
        if error or batch["fate"][i] != TO_STAGE:
            continue
        begun = time.perf_counter()
        pin.at("stage", [str(batch["name"][i])])
        std = batch["std"][i] if "std" in batch else None
        chip = StagedChip(batch["dn"][i], batch["quality"][i], batch["source"][i], std)
        try:
            meters.staged(_write_patiently(staging, str(batch["object"][i]), chip))
        except StoreError as failure:
            errors[i] = str(failure)
        seconds[i] = time.perf_counter() - begun
    pin.done()
    kept = {name: batch[name] for name in ("position", "name", "fate", "skipped", "read_s", "resolve_s")}
    for i in np.flatnonzero((batch["fate"] == TO_STAGE) & (np.array(errors) == "")).tolist():
        meters.chip("read", batch["read_s"][i])
        meters.chip("super_resolve", batch["resolve_s"][i])
        meters.chip("stage", seconds[i])
    return {**kept, "error": np.array(errors, dtype=object), "stage_s": seconds}


def _write_patiently(staging: Storage, name: str, chip: StagedChip) -> int:
    """Write a chip; a store that refuses is asked again twice, after a while. Returns the object's size in bytes."""
    attempts = Retrying(
        retry=retry_if_exception_type(StoreError),
        stop=stop_after_attempt(3),
        wait=wait_random_exponential(multiplier=0.5, max=8),
    )
    try:
        return attempts(write_chip, staging, name, chip)
    except RetryError as error:
        raise StoreError(str(error.last_attempt.exception())) from None


def gpus_per_actor(config: RunConfig) -> float:
    """GPUs of each actor on the cluster in use."""
    wanted = config.compute.gpus_per_actor
    if wanted == "auto":
        return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    return float(wanted)


def actor_share(config: RunConfig, gpus: float) -> dict[str, float]:
    """What an actor asks for, as Ray's options."""
    cpus = ACTOR_CPU_SHARE * (1 if gpus else config.compute.cpus_per_actor)
    return {"num_cpus": cpus, "num_gpus": gpus}


def await_node(config: RunConfig, stopping: Callable[[], bool]) -> None:
    """Wait until the cluster has a node that holds an actor; at once where nothing is to be waited for.

    What is asked for is a task as large as an actor: an autoscaler sees it pending, and forgets it if this driver dies.

    Raises:
        DifffusrError: there is none after `compute.wait_minutes`.
    """
    minutes = config.compute.wait_minutes
    if not minutes:
        return
    share = actor_share(config, gpus_per_actor(config))
    room = ray.remote(**share)(_nothing).remote()
    until, told = time.monotonic() + minutes * 60, False
    while not ray.wait([room], timeout=_LOOK_S)[0]:
        if stopping() or time.monotonic() > until:
            ray.cancel(room)
            break
        if not told:
            log.warning("no node holds an actor yet: waiting up to %g minutes for the cluster to start one", minutes)
            told = True
    else:
        return
    if not stopping():
        asked = " and ".join(f"{amount:g} {name[4:-1].upper()}" for name, amount in share.items() if amount)
        raise DifffusrError(
            f"no node of the cluster has {asked} for an actor, and none was started within compute.wait_minutes = "
            f"{minutes:g}; look at the autoscaler's log and at quotas, then run again"
        )


def _nothing() -> None:
    """Only that there is room for it matters."""


def actor_limits(config: RunConfig, gpus: float, batches: int) -> tuple[int, int]:
    """Least and greatest number of actors: as many as the cluster's GPUs, or else its cores, can hold.

    Where nodes are waited for, `compute.actors_max`: what is not there yet cannot be counted.

    Raises:
        DifffusrError: an actor asks for more GPUs than there are.
    """
    resources: Mapping[str, float] = ray.cluster_resources()
    if config.compute.wait_minutes and config.compute.actors_max:
        fit = config.compute.actors_max  # pending actors are what an autoscaler starts nodes for
    elif gpus:
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
