"""How many actors a cluster holds, and what actors and the steps around them ask for. Pure: needs no cluster."""

from __future__ import annotations

from typing import NamedTuple

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.ground.errors import ConfigError

#: Shares of a core that the steps around the actors ask for, and the share of its cores that an actor asks for: actors
#: that held every core would starve the tasks that feed them.
READ_CPUS, STAGE_CPUS, ACTOR_CPU_SHARE = 0.1, 0.1, 0.8

#: Readers at work for each actor. Each is a process: on a small machine starting them costs more than reading.
READERS_PER_ACTOR = 2

#: Stagers at work for each actor, at most. One compresses chips as fast as a large GPU makes them, with little to
#: spare; a store that is far away takes its own time for each.
STAGERS_PER_ACTOR = 4


class Resources(NamedTuple):
    """GPUs and cores of a cluster."""

    gpus: float
    cpus: float


def actor_limits(config: RunConfig, there: Resources, batches: int) -> tuple[int, int]:
    """Least and greatest number of actors on a cluster: `compute.actors_max`, or else as many as it holds; no more than
    there are batches.

    More than it holds wait for nodes: an autoscaler starts some for them.

    Raises:
        ConfigError: an actor asks for more GPUs than there are, and nodes are not waited for.
    """
    compute = config.compute
    fit = compute.actors_max if compute.wait_minutes else None  # nodes that are still to come cannot be counted
    fit = fit or actors_that_fit(config, there)
    most = min(compute.actors_max or fit, max(batches, 1))
    return min(compute.actors_min, most), most


def actors_that_fit(config: RunConfig, there: Resources) -> int:
    """How many actors a cluster holds: by its GPUs, or by its cores where actors use no GPU.

    Raises:
        ConfigError: an actor asks for more GPUs than there are.
    """
    gpus = gpus_per_actor(config, there.gpus)
    if not gpus:
        return max(1, int(there.cpus / config.compute.cpus_per_actor))
    if there.gpus < gpus:
        raise ConfigError(
            f"compute.gpus_per_actor: an actor asks for {gpus:g} GPU, the cluster has {there.gpus:g}; set it to 'auto' "
            "to compute on CPUs where there is no GPU"
        )
    return int(there.gpus / gpus)


def gpus_per_actor(config: RunConfig, gpus: float) -> float:
    """GPUs of each actor on a cluster with so many."""
    wanted = config.compute.gpus_per_actor
    return float(gpus >= 1) if wanted == "auto" else float(wanted)


def actor_share(config: RunConfig, gpus: float) -> dict[str, float]:
    """What an actor asks for, as Ray's options.

    Args:
        gpus: of each actor.
    """
    cpus = ACTOR_CPU_SHARE * (1 if gpus else config.compute.cpus_per_actor)
    return {"num_cpus": cpus, "num_gpus": gpus}
