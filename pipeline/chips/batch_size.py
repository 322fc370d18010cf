"""How many chips the models take at a time: found once on the device, remembered beside what is staged.

The last digits of a chip may depend on the size of its batch. All actors of a run, and all its resumptions, therefore
use one number.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import ray

from difffusr.pipeline.chips.actor import SuperResolver, device_facts
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.storage.objects import Storage

log = logging.getLogger("difffusr.batch")


#: A batch twice as large must give so many times the chips a second, or it is not worth its memory.
_GROWTH = 1.05


def with_batch(
    config: RunConfig,
    fingerprint: str,
    gpus: float,
    staging: Storage,
    resolver: Callable[..., SuperResolver],
    *more: Any,
) -> RunConfig:
    """A configuration whose `compute.batch` is a number.

    On CPUs that is 1: one chip's convolutions keep a core busy, and more only leave its caches (the small networks, two
    cores, 96 px: 1.6 s a chip alone, 1.8 in pairs, 1.9 in fours).

    Args:
        fingerprint: of the model.
        gpus: of each actor.
        staging: the run's folder.
        resolver, more: the actor's class, and what it takes besides the configuration.
    """
    batch = config.compute.batch
    if batch == "auto":
        batch = remembered_batch(config, fingerprint, gpus, staging, resolver, *more) if gpus else 1
    return _sized(config, batch)


def _sized(config: RunConfig, batch: int, **more: Any) -> RunConfig:
    return config.model_copy(update={"compute": config.compute.model_copy(update={"batch": batch, **more})})


def remembered_batch(
    config: RunConfig,
    fingerprint: str,
    gpus: float,
    staging: Storage,
    resolver: Callable[..., SuperResolver],
    *more: Any,
) -> int:
    """As large a batch as pays on the device of the cluster's actors; tried out if that was not done before.

    It is tried operation by operation: compiling for every size would take longer than all else, and saves memory.

    Args:
        as for `with_batch`.

    Raises:
        StoreError: the staging folder cannot be read or written.
    """
    there = {"num_gpus": gpus, "num_cpus": 0}
    device, memory = ray.get(ray.remote(max_calls=1, **there)(device_facts).remote())
    facts = (
        fingerprint[:16], f"{config.grid.chip_px}px", f"{config.model.uncertainty_samples}samples",
        re.sub(r"[^A-Za-z0-9]+", "-", device), str(memory),
    )  # fmt: skip
    name = f"batch/{'_'.join(facts)}.json"
    if staging.exists(name):
        return int(json.loads(staging.read(name))["batch"])
    actor = ray.remote(**there)(resolver).remote(_sized(config, 1, execution="eager"), *more)
    try:
        batch, rates = largest_batch(lambda size: ray.get(actor.rate.remote(size, config.grid.chip_px)))
    finally:
        ray.kill(actor)
    staging.write(name, json.dumps({"batch": batch, "chips_per_s": rates}).encode())
    log.info("batches of %d on %s: chips a second by batch %s", batch, device, rates)
    return batch


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
