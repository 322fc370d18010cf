"""How many actors a cluster holds, what each asks for, and waiting for room."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import ray
import ray.data

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import DifffusrError

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
