"""How many chips the models take at a time: found once on the device, remembered in the run's folder.

On a GPU the last digits of a chip may depend on the size of its batch. All actors of a run, and all its resumptions,
therefore use one number. On CPUs they do not: there the batch only keeps an actor's cores busy.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import ray
from pydantic import Field

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.storage import Storage, read_document

if TYPE_CHECKING:
    from difffusr.pipeline.chips.resolver import PinnedResolver

log = logging.getLogger("difffusr.batch")


class ActorKind(NamedTuple):
    """What every actor of a run is.

    Attributes:
        resolver: its class.
        board: handle of the run's board.
        staging: the run's folder.
        gpus: of each actor.
    """

    resolver: type[PinnedResolver] | None
    board: Any
    staging: Storage
    gpus: float


def with_batch(config: RunConfig, fingerprint: str, kind: ActorKind) -> RunConfig:
    """A configuration whose `compute.batch` is a number.

    On CPUs that is one chip for each of an actor's cores.

    Args:
        fingerprint: of the model.
    """
    compute = config.compute
    if compute.batch == "auto" and kind.gpus:
        return _sized(config, remembered_batch(config, fingerprint, kind))
    if not kind.gpus and (idle := compute.cpus_per_actor - compute.batch_on_cores) > 0:
        log.warning("compute.batch %s leaves %d cores of each actor idle: a chip has one core", compute.batch, idle)
    return _sized(config, compute.batch_on_cores)


def remembered_batch(config: RunConfig, fingerprint: str, kind: ActorKind) -> int:
    """The largest batch that pays on the device of the cluster's actors; measured unless the run's folder has it.

    It is measured operation by operation, which takes more memory than the fused kernels do.

    Args:
        fingerprint: of the model.

    Raises:
        StoreError: the staging folder cannot be read or written.
    """
    from difffusr.pipeline.chips.actor import device_facts  # with torch: only where the batch is measured
    from difffusr.pipeline.chips.resolver import PinnedResolver

    share = {"num_gpus": kind.gpus, "num_cpus": 0}
    device, memory = ray.get(ray.remote(max_calls=1, **share)(device_facts).remote())
    facts = (
        fingerprint[:16], f"{config.grid.chip_px}px", f"{config.model.uncertainty_samples}samples",
        re.sub(r"[^A-Za-z0-9]+", "-", device), str(memory),
    )  # fmt: skip
    name = f"batch/{'_'.join(facts)}.json"
    if kind.staging.exists(name):
        return read_document(kind.staging, name, _Measured, "delete it, and run again").batch
    actor = ray.remote(**share)(kind.resolver or PinnedResolver).remote(
        _sized(config, 1, execution="eager"), kind.board, kind.staging
    )
    try:
        batch, rates = largest_batch(lambda size: ray.get(actor.rate.remote(size, config.grid.chip_px)))
    finally:
        ray.kill(actor)
    kind.staging.write(name, json.dumps({"batch": batch, "chips_per_s": rates}).encode())
    log.info("batches of %d on %s: chips a second by batch %s", batch, device, rates)
    return batch


@dataclass(frozen=True)
class _Measured:
    """What was measured: the batch that is used."""

    batch: Annotated[int, Field(ge=1)]


#: Batches are doubled only while the throughput grows by this factor.
_GROWTH = 1.05


def largest_batch(rate: Callable[[int], float | None]) -> tuple[int, dict[int, float]]:
    """Double the batch as long as it fits and pays.

    Args:
        rate: chips a second in batches of a size, None where the device's memory is not enough.

    Returns:
        the size, and the rates of all that fitted; 1 where not even that fits: the run says so of each chip.
    """
    rates: dict[int, float] = {}
    size, best = 1, 0.0
    while (found := rate(size)) is not None:
        rates[size] = round(found, 3)
        if found < _GROWTH * best:
            break
        size, best = 2 * size, found
    return max(size // 2, 1), rates


def _sized(config: RunConfig, batch: int, **more: Any) -> RunConfig:
    return config.model_copy(update={"compute": config.compute.model_copy(update={"batch": batch, **more})})
