"""Chips through the engine: read on CPUs → super-resolve in an actor pool, pinned to GPUs where there are any → stage.

Ray Data is the engine: it does back-pressure, autoscaling, retries and lost nodes. The driver sends a chip's number;
everything else is in one table in the object store.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, SCALE
from difffusr.pipeline.chips.batch_size import chips_of_a_call
from difffusr.pipeline.chips.reading import read_chips
from difffusr.pipeline.chips.resolving import SuperResolve
from difffusr.pipeline.chips.storing import stage_rows
from difffusr.pipeline.chips.table import ChipTable
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine import (
    READ_CPUS,
    READERS_PER_ACTOR,
    STAGE_CPUS,
    STAGERS_PER_ACTOR,
    actor_limits,
    actor_share,
    gpus_per_actor,
    resources,
)
from difffusr.pipeline.plan import Plan
from difffusr.pipeline.storage import staging_of

if TYPE_CHECKING:
    from difffusr.pipeline.chips.resolver import PinnedResolver

#: Calls that an actor has at a time: two have their chips on the device, the engine packs the last or unpacks the next.
_CALLS_PER_ACTOR = 3

#: Utilisation of the actors below which the engine lets some go. It is never negative, so none go: their models would
#: have to be loaded again.
_NEVER = -1.0


def chip_dataset(
    config: RunConfig,
    plan: Plan,
    positions: NDArray[np.int64],
    board: Any,
    resolver: type[PinnedResolver] | None = None,
) -> ray.data.Dataset:
    """The engine's graph.

    Args:
        positions: of the chips to compute, in the plan.
        board: handle of the run's board.
        resolver: the actor's class where it is not the usual one.

    Returns:
        a lazy dataset of one row a chip: `position`, `name`, `error`, why it failed, else empty, `fate`, which is
        `LEFT` for a chip not started because the run was asked to stop, `skipped`, whether it skipped the networks,
        `unread`, the scenes that made it fail (`table.read_row`), and `read_s`, `resolve_s`, `stage_s`, the seconds of
        each step.
    """
    there, staging = resources(), staging_of(config)
    gpus = gpus_per_actor(config, there.gpus)
    compute, batch = config.compute, chips_of_a_call(config, gpus)
    least, most = actor_limits(config, there, math.ceil(len(positions) / batch))
    table = ray.put(ChipTable.of(config, plan))
    blocks = ray.data.from_blocks(_blocks(positions, batch, most))  # unlike others without a task for each
    blocks.context.autoscaling_config.actor_pool_util_downscaling_threshold = _NEVER
    blocks.context.target_max_block_size = _result_bytes(config, batch, blocks.context.target_max_block_size)
    if compute.address is not None and hasattr(blocks.context, "max_consecutive_actor_init_deaths"):
        # A machine may be taken away while its actor begins.
        blocks.context.max_consecutive_actor_init_deaths = max(most, _LEAST_DEATHS)
    read = blocks.map_batches(
        read_chips,
        fn_kwargs={"table": table, "board": board},
        batch_size=None,
        num_cpus=READ_CPUS,
        concurrency=compute.read_concurrency or most * READERS_PER_ACTOR,
    )
    resolved = read.map_batches(
        resolver or SuperResolve,
        fn_constructor_args=(config, board, staging),
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(
            min_size=least,
            max_size=most,
            initial_size=most,
            max_concurrent_calls_per_actor=_CALLS_PER_ACTOR,
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
        concurrency=max(most, min(most * STAGERS_PER_ACTOR, int(there.cpus))),
    )


#: Actors that may end, one after the other, while they begin, before the run fails; or as many as there are.
_LEAST_DEATHS = 2


def _result_bytes(config: RunConfig, batch: int, most: int | None) -> int:
    """Bytes of results that the engine gathers before it passes them on: a batch's. If it were more, chips that are
    done would wait in an actor for others of their task, and be lost with it."""
    chip = len(BANDS) * (SCALE * config.grid.chip_px) ** 2 * 2 * (2 if config.model.uncertainty_samples else 1)
    return min(int(0.9 * batch * chip), most or 2**27)


#: Chips that one task reads, at most: what is lost when its worker is killed, and what a task's overhead is spread
#: over.
_CHIPS_A_TASK = 32

#: Ray Data keeps its table of blocks in the driver's memory: more chips make larger blocks, not more.
_MAX_BLOCKS = 10_000


def _blocks(positions: NDArray[np.int64], batch: int, actors: int) -> list[pa.Table]:
    """Chips a task: whole batches, enough tasks that no actor waits for the last ones, and not too many tasks."""
    fair = len(positions) // (8 * actors)
    rows = max(min(_CHIPS_A_TASK, fair) // batch * batch, batch, math.ceil(len(positions) / _MAX_BLOCKS))
    return [pa.table({"position": positions[i : i + rows]}) for i in range(0, len(positions), rows)]


#: Chips a side of the squares in which chips are computed, so that shards are complete early and few chips lie staged.
_SQUARE = 16


def in_squares(plan: Plan, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions of the wanted chips in the order in which they are computed: square by square.

    Args:
        wanted: (chips,) bool.
    """
    c = plan.chips
    order = np.lexsort((c.col, c.row, c.col // _SQUARE, c.row // _SQUARE, c.epsg))
    kept: NDArray[np.int64] = order[wanted[order]]
    return kept
