"""What a run will take and cost, from its plan and a calibration; nothing is read or computed for it."""

from __future__ import annotations

import heapq
import math
import os
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine import (
    READERS_PER_ACTOR,
    Resources,
    actors_that_fit,
    gpus_per_actor,
    in_cluster,
    resources,
)
from difffusr.pipeline.ground.errors import BudgetError, ConfigError
from difffusr.pipeline.plan import Plan
from difffusr.pipeline.run.cost.calibration import Calibration, conditions_of, load_calibration
from difffusr.pipeline.run.cost.figures import GIGABYTE, Cluster, CostLines, Estimate, Ground, Seconds
from difffusr.pipeline.run.cost.planning import planning_differs, planning_seconds, planning_work
from difffusr.pipeline.run.cost.words import money
from difffusr.pipeline.run.cost.workload import Workload, km2_of_a_chip


def enforce_budget(config: RunConfig, plan: Plan, done: int) -> Estimate | None:
    """Refuse a run that would cost more than its budget; without a budget nothing is estimated.

    Args:
        done: chips of the plan that are staged already.

    Returns:
        the estimate, or None without a budget.

    Raises:
        ConfigError: the calibration cannot be used for this configuration.
        BudgetError: the run would cost more than `config.budget`.
    """
    if config.budget is None or config.costs.calibration is None:
        return None
    made = estimate(plan, config, load_calibration(config.costs.calibration), cluster_of(config), done)
    check_budget(config, made)
    return made


def check_budget(config: RunConfig, made: Estimate) -> None:
    """Raise BudgetError when an estimate is over the configuration's budget."""
    if config.budget is None or made.total <= config.budget:
        return
    dearest = max(fields(made.costs), key=lambda field: getattr(made.costs, field.name)).name
    raise BudgetError(
        f"budget: this run would cost about {money(made.total, made.currency)}, the budget is "
        f"{money(config.budget, made.currency)} (most of it: {dearest}); nothing was started: raise budget, or "
        "choose a smaller area, a faster model.sampler or fewer model.sampler_steps"
    )


def cluster_of(
    config: RunConfig, actors: int | None = None, gpus: float | None = None, cpus: int | None = None
) -> Cluster:
    """The cluster a configuration would run on: as given, else the Ray cluster in use, else this machine.

    It has as many actors as fit, at most `compute.actors_max`.

    Raises:
        ConfigError: an actor asks for more GPUs than there are.
    """
    if gpus is None or cpus is None:
        found = resources() if in_cluster() else _this_machine()
        gpus, cpus = found.gpus if gpus is None else gpus, int(found.cpus) if cpus is None else cpus
    fit = actors_that_fit(config, Resources(gpus, cpus))
    on_gpus = gpus_per_actor(config, gpus) > 0
    return Cluster(actors or min(config.compute.actors_max or fit, fit), gpus if on_gpus else 0.0, cpus)


def _this_machine() -> Resources:
    import torch  # seconds to import: only where its GPUs are counted

    return Resources(float(torch.cuda.device_count()), os.cpu_count() or 1)


def estimate(plan: Plan, config: RunConfig, calibration: Calibration, cluster: Cluster, done: int = 0) -> Estimate:
    """What carrying out a plan will take and cost. Pure: the same in, the same out.

    How figures of the calibrated machine become those of a cluster:

    - An actor takes as long for a batch as on the calibrated machine, where its neighbours computed too.
    - Actors compute in rounds. A round lasts as long as its slowest part: an actor's batch; the readers' work, with
      `READERS_PER_ACTOR` readers an actor; the core seconds of computing (without GPUs), reading and staging, over all
      cores. With GPUs reading thus overlaps with computing; without them both share the cores, and the times add up.
    - Shards are written one a core; the time of each grows with the chips that it is blended from, that of an overview
      with the shards it is made of, level by level. Start-up takes as long as it took.
    - Planning reads scenes side by side, one a core (a few on threads), and compares and solves on one core.
    - The cluster is paid from planning to publishing, all its GPUs and cores.
    - Square kilometres are of cube: a chip without its overlap. A rate is that of a round in which all actors compute.

    Args:
        done: chips of the plan that are staged already, pro rata.

    Raises:
        ConfigError: the calibration was made for another model, chip, batch or device.
    """
    check_conditions(config, calibration, cluster)
    work = Workload.of(plan, config, calibration, done)
    planning = planning_work(plan, config, calibration.planning)
    plan_s = planning_seconds(planning, config, calibration.planning, cluster.cpus)
    seconds = _seconds(plan_s, work, config, calibration, cluster)
    hours = seconds.total / 3600
    gpu_hours, cpu_hours = cluster.gpus * hours, cluster.cpus * hours
    price = config.costs.prices
    written = work.bytes_staged + work.bytes_cube
    objects = work.objects + planning.objects
    costs = CostLines(
        gpu=gpu_hours * price.gpu_hour,
        cpu=cpu_hours * price.cpu_hour,
        read=(work.bytes_read + planning.bytes) / GIGABYTE * price.gb_read,
        written=written / GIGABYTE * price.gb_written,
        storage=written / GIGABYTE * price.gb_month,
        requests=objects / 1000 * price.thousand_requests,
    )
    ground = Ground(work.km2, _km2_per_s(work, config, calibration, cluster), calibration.machine)
    return Estimate(
        chips=len(plan.chips),
        done=done,
        shards=len(plan.shards),
        scenes=len(plan.scenes),
        planning=planning,
        chips_by_scenes=work.chips_by_scenes,
        looks=work.looks,
        bytes_read=work.bytes_read,
        bytes_staged=work.bytes_staged,
        bytes_cube=work.bytes_cube,
        objects=objects,
        gpu_hours=gpu_hours,
        cpu_hours=cpu_hours,
        seconds=seconds,
        costs=costs,
        spot=_on_spot(costs, config, gpu_hours, cpu_hours),
        ground=ground,
        currency=config.costs.currency,
        cluster=cluster,
    )


def _seconds(plan_s: float, work: Workload, config: RunConfig, calibration: Calibration, cluster: Cluster) -> Seconds:
    start = calibration.start_up
    chips = start.actors + _chip_seconds(work, config, calibration, cluster) if work.chips else 0.0
    shards = _shared_out(work.shard_seconds, cluster.cpus) if len(work.shard_seconds) else 0.0
    each = calibration.overview.seconds_per_shard
    overviews = math.fsum(_shared_out(children * each, cluster.cpus) for children in work.overviews)
    return Seconds(plan_s, start.ray, chips, shards, overviews, work.zones * calibration.publish.seconds)


def _on_spot(costs: CostLines, config: RunConfig, gpu_hours: float, cpu_hours: float) -> CostLines | None:
    """Costs where machines may be taken away; what has no price of its own there costs what it costs on demand."""
    price = config.costs.prices
    gpu, cpu = price.gpu_hour_spot, price.cpu_hour_spot
    if gpu is None and cpu is None:
        return None
    return replace(
        costs,
        gpu=costs.gpu if gpu is None else gpu_hours * gpu,
        cpu=costs.cpu if cpu is None else cpu_hours * cpu,
    )


def _chip_seconds(work: Workload, config: RunConfig, calibration: Calibration, cluster: Cluster) -> float:
    """Seconds that the actors take: full rounds, and a last one in which some actors have nothing left to do."""
    rounds, rest = divmod(math.ceil(work.chips / _batch(config, calibration, cluster)), cluster.actors)
    full = rounds * _round_seconds(cluster.actors, work, config, calibration, cluster)
    return full + (_round_seconds(rest, work, config, calibration, cluster) if rest else 0.0)


def _round_seconds(busy: int, work: Workload, config: RunConfig, calibration: Calibration, cluster: Cluster) -> float:
    """Seconds of a round in which so many actors have a batch; a partial batch takes as long as a full one."""
    batch = _batch(config, calibration, cluster)
    looks = work.looks / work.chips
    calls = max(config.model.uncertainty_samples, 1)
    model = calibration.model[batch] * calls
    on_cores = 0.0 if cluster.gpus else model * config.compute.cpus_per_actor
    core_seconds = on_cores + looks * calibration.read.cpu_seconds + calibration.stage.cpu_seconds
    readers = config.compute.read_concurrency or READERS_PER_ACTOR * cluster.actors
    by_actor = batch * max(model, calibration.stage.seconds)
    by_readers = busy * batch * looks * calibration.read.seconds / readers
    by_cores = busy * batch * core_seconds / cluster.cpus
    return max(by_actor, by_readers, by_cores)


def _km2_per_s(work: Workload, config: RunConfig, calibration: Calibration, cluster: Cluster) -> float:
    """Cube a second while all actors compute; 0 where nothing is left to compute."""
    if not work.chips:
        return 0.0
    seconds = _round_seconds(cluster.actors, work, config, calibration, cluster)
    return cluster.actors * _batch(config, calibration, cluster) * km2_of_a_chip(config) / seconds if seconds else 0.0


def _batch(config: RunConfig, calibration: Calibration, cluster: Cluster) -> int:
    """Chips of a batch. On a GPU, where a run would look for the fastest size, the fastest of those measured."""
    if config.compute.batch != "auto" or not cluster.gpus:
        return config.compute.batch_on_cores
    return min(calibration.model, key=lambda size: calibration.model[size])


def _shared_out(seconds: NDArray[np.floating], workers: int) -> float:
    """Wall clock of tasks started in order, each by the first free worker."""
    free = [0.0] * min(workers, len(seconds))
    for task in seconds.tolist():
        heapq.heapreplace(free, free[0] + task)
    return max(free)


def check_conditions(config: RunConfig, calibration: Calibration, cluster: Cluster) -> None:
    """Refuse a calibration made under other conditions.

    Raises:
        ConfigError: model, chip, planning, batch or device differ; every difference is named.
    """
    wanted, had = conditions_of(config).model_dump(), calibration.conditions.model_dump()
    differs = [f"{name} {had[name]} instead of {wanted[name]}" for name in wanted if had[name] != wanted[name]]
    differs += planning_differs(config, calibration.planning)
    if calibration.gpu != (cluster.gpus > 0):
        differs.append("GPUs instead of none" if calibration.gpu else "no GPU instead of some")
    if (batch := _batch(config, calibration, cluster)) not in calibration.model:
        measured = ", ".join(map(str, sorted(calibration.model)))
        differs.append(f"batch {measured} instead of {batch}")
    if differs:
        raise ConfigError(
            f"costs.calibration: was measured with {'; '.join(differs)}; run `difffusr calibrate` again, with this "
            "configuration"
        )
