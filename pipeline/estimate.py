"""What a run will take and cost, from its plan and from figures measured before; nothing is read or computed for it."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

import fsspec
import numpy as np
import ray
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kernels.bands import SCALE
from pipeline.access import bare_href
from pipeline.actor import sampling_of
from pipeline.config import RunConfig
from pipeline.cube import overviews_over
from pipeline.errors import ConfigError, DifffusrError
from pipeline.plan import Plan, Shards
from pipeline.planner import grid_of
from pipeline.storage import STORE_FAILURES, first_line

#: Bytes of a gigabyte as stores and price lists count.
GIGABYTE = 10**9

#: Readers at work for each actor, as `chip_stream.chip_dataset` sets them.
_READERS_PER_ACTOR = 2

#: Objects of a run beside chips and shards: four of the plan, twice, report, progress, lease, claims, history.
_OBJECTS_PER_RUN = 13


@dataclass(frozen=True)
class Cluster:
    """What a run has to compute with.

    Attributes:
        actors: actors that compute at a time.
        gpus: GPUs in all; 0 where actors compute on cores.
        cpus: cores in all.
    """

    actors: int
    gpus: float
    cpus: int


@dataclass(frozen=True)
class Seconds:
    """Wall clock by stage, in seconds. Planning is past when a plan is there to be estimated.

    Attributes:
        start_up: until the cluster answers.
        chips: from there until the last chip is staged, with what the actors take to begin.
        shards: until the last shard is written.
        overviews: until the last shard of an overview is.
        publish: until readers see it.
    """

    start_up: float
    chips: float
    shards: float
    overviews: float
    publish: float

    @property
    def total(self) -> float:
        """All stages, one after the other."""
        return self.start_up + self.chips + self.shards + self.overviews + self.publish


@dataclass(frozen=True)
class CostLines:
    """What each part costs, in the currency of the configuration."""

    gpu: float
    cpu: float
    read: float
    written: float
    storage: float
    requests: float

    @property
    def total(self) -> float:
        """The sum of all lines."""
        return math.fsum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Estimate:
    """What a run will take and cost.

    Attributes:
        chips: of the plan.
        done: chips of it that are staged already.
        shards, scenes: of the plan.
        chips_by_scenes: chips to compute by how many scenes are planned for each.
        looks: times that a chip will be read from a scene; further scenes are read only where the better ones are
            masked.
        bytes_read: fetched from the source.
        bytes_staged, bytes_cube: written to the staging folder and to the cube.
        objects: written to both.
        gpu_hours, cpu_hours: of the cluster's GPUs and cores, held from start to end.
        seconds: wall clock by stage.
        costs: by line; `storage` is cube and staged chips kept for one month.
        currency: of all costs.
        cluster: what it was estimated for.
    """

    chips: int
    done: int
    shards: int
    scenes: int
    chips_by_scenes: Mapping[int, int]
    looks: float
    bytes_read: float
    bytes_staged: float
    bytes_cube: float
    objects: int
    gpu_hours: float
    cpu_hours: float
    seconds: Seconds
    costs: CostLines
    currency: str
    cluster: Cluster

    @property
    def total(self) -> float:
        """What all of it costs."""
        return self.costs.total

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-able values, sums included."""
        data = asdict(self)
        data["chips_by_scenes"] = {str(count): chips for count, chips in self.chips_by_scenes.items()}
        data["seconds"]["total"] = self.seconds.total
        data["costs"]["total"] = self.total
        return data


def enforce_budget(config: RunConfig, plan: Plan, done: int) -> Estimate | None:
    """Refuse a run that would cost more than its budget; without a budget nothing is looked at.

    Args:
        done: chips of the plan that are staged already.

    Returns:
        the estimate, or None without a budget.

    Raises:
        ConfigError: the calibration cannot be used for this configuration.
        DifffusrError: the run would cost more than `config.budget`.
    """
    if config.budget is None or config.costs.calibration is None:
        return None
    made = estimate(plan, config, load_calibration(config.costs.calibration), cluster_of(config), done)
    check_budget(config, made)
    return made


def check_budget(config: RunConfig, made: Estimate) -> None:
    """Raise DifffusrError when an estimate is over the configuration's budget."""
    if config.budget is None or made.total <= config.budget:
        return
    dearest = max(fields(made.costs), key=lambda field: getattr(made.costs, field.name)).name
    raise DifffusrError(
        f"budget: this run would cost about {_money(made.total, made.currency)}, the budget is "
        f"{_money(config.budget, made.currency)} (most of it: {dearest}); nothing was started: raise budget, or "
        "choose a smaller area, a faster model.sampler or fewer model.sampler_steps"
    )


def cluster_of(
    config: RunConfig, actors: int | None = None, gpus: float | None = None, cpus: int | None = None
) -> Cluster:
    """The cluster a configuration would run on: what is given, else the Ray cluster in use, else this machine.

    As many actors as the GPUs can hold, or else the cores, but no more than `compute.actors_max`.

    Raises:
        ConfigError: an actor asks for more than there is.
    """
    found = ray.cluster_resources() if ray.is_initialized() else {}
    here = float(torch.cuda.device_count())
    gpus = gpus if gpus is not None else float(found.get("GPU", 0)) if found else here
    cpus = cpus if cpus is not None else int(found.get("CPU", 1)) if found else os.cpu_count() or 1
    wanted = config.compute.gpus_per_actor
    share = float(gpus >= 1) if wanted == "auto" else float(wanted)
    fit = int(gpus / share) if share else max(cpus // config.compute.cpus_per_actor, 1)
    if fit < 1:
        raise ConfigError(f"compute.gpus_per_actor: {share:g} GPU wanted, the cluster to estimate for has {gpus:g}")
    return Cluster(actors or min(config.compute.actors_max or fit, fit), gpus if share else 0.0, cpus)


def estimate(plan: Plan, config: RunConfig, calibration: Calibration, cluster: Cluster, done: int = 0) -> Estimate:
    """What carrying out a plan will take and cost. Pure: the same in, the same out.

    How figures of the calibrated machine become those of a cluster:

    - An actor takes as long for a batch as on the calibrated machine, with its neighbours computing, too.
    - Actors compute in rounds. A round lasts as long as its slowest part: an actor's batch; the readers' work, at so
      many readers an actor; the seconds of core that computing (without GPUs), reading and staging need, over all
      cores. With GPUs reading thus goes on beside computing; without them all shares the cores, and the times add up.
    - Shards are written one a core, each by the chips that it is blended from; those of overviews, level by level, by
      the shards that they are made of; start-up takes what it took.
    - The cluster is paid from start-up to publishing, all GPUs and cores of it.

    Args:
        done: chips of the plan that are staged already; which ones is not looked at.

    Raises:
        ConfigError: the calibration was made for another model, chip, batch or device.
    """
    check_conditions(config, calibration, cluster)
    work = _Work.of(plan, config, calibration, done)
    seconds = _seconds(work, config, calibration, cluster)
    hours = seconds.total / 3600
    gpu_hours, cpu_hours = cluster.gpus * hours, cluster.cpus * hours
    price = config.costs.prices
    written = work.bytes_staged + work.bytes_cube
    costs = CostLines(
        gpu=gpu_hours * price.gpu_hour,
        cpu=cpu_hours * price.cpu_hour,
        read=work.bytes_read / GIGABYTE * price.gb_read,
        written=written / GIGABYTE * price.gb_written,
        storage=written / GIGABYTE * price.gb_month,
        requests=work.objects / 1000 * price.thousand_requests,
    )
    return Estimate(
        chips=len(plan.chips),
        done=done,
        shards=len(plan.shards),
        scenes=len(plan.scenes),
        chips_by_scenes=work.chips_by_scenes,
        looks=work.looks,
        bytes_read=work.bytes_read,
        bytes_staged=work.bytes_staged,
        bytes_cube=work.bytes_cube,
        objects=work.objects,
        gpu_hours=gpu_hours,
        cpu_hours=cpu_hours,
        seconds=seconds,
        costs=costs,
        currency=config.costs.currency,
        cluster=cluster,
    )


# ---------------------------------------------------------------------------------------------------------------------
# How much there is to do
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """What a plan leaves to do: chips to compute, looks at scenes, (shards,) seconds of each, by level of how many
    shards each of an overview is made, bytes, objects."""

    chips: int
    chips_by_scenes: Mapping[int, int]
    looks: float
    shard_seconds: NDArray[np.float64]
    overviews: list[NDArray[np.int64]]
    bytes_read: float
    bytes_staged: float
    bytes_cube: float
    objects: int
    zones: int

    @classmethod
    def of(cls, plan: Plan, config: RunConfig, calibration: Calibration, done: int) -> _Work:
        planned = (plan.chips.scenes >= 0).sum(axis=1)
        chips = max(len(plan.chips) - done, 0)
        left = chips / max(len(plan.chips), 1)
        counts, numbers = np.unique(planned, return_counts=True)
        # Pro rata: which chips are done is not known here, and hardly matters.
        by_scenes = {int(count): round(int(number) * left) for count, number in zip(counts, numbers, strict=True)}
        read, shard = calibration.read, calibration.shard
        looks = left * float((1 + (planned - 1) * read.further_share).sum())
        pairs = np.diff(plan.shards.first)
        zones = len(plan.zones())
        variables = 4 if config.model.uncertainty_samples else 3
        pixels = _pixels(plan.shards, config)
        overviews = _overviews(plan, config)
        levels = sum(1 + overviews_over(plan.extent(epsg, grid_of(config)), grid_of(config)) for epsg in plan.zones())
        shards = len(plan.shards) + sum(map(len, overviews))
        return cls(
            chips,
            by_scenes,
            looks,
            shard.seconds + shard.seconds_per_chip * pairs,
            overviews,
            looks * read.bytes,
            chips * calibration.stage.bytes + left * calibration.stage.bytes_covered * float(plan.chips.covered.sum()),
            # A level has a quarter of the pixels of the one below.
            shards * shard.bytes
            + shard.bytes_per_pixel * pixels
            + calibration.overview.bytes_per_pixel * pixels * sum(0.25 ** (1 + n) for n in range(len(overviews))),
            chips + shards * (variables + 1) + levels * calibration.publish.objects + zones + 1 + _OBJECTS_PER_RUN,
            zones,
        )


def _overviews(plan: Plan, config: RunConfig) -> list[NDArray[np.int64]]:
    """By level of overviews, the number of shards below that each of its shards is made of."""
    grid, shards = grid_of(config), plan.shards
    levels: list[list[NDArray[np.int64]]] = []
    for epsg in plan.zones():
        extent, here = plan.extent(epsg, grid), shards.epsg == epsg
        places = np.stack([shards.row[here], shards.col[here]]).astype(np.int64)
        places -= np.array([[extent.row], [extent.col]]) // grid.shard_px
        for level in range(overviews_over(extent, grid)):
            places, children = np.unique(places // 2, axis=1, return_counts=True)
            levels += [[]] if level == len(levels) else []
            levels[level].append(children.astype(np.int64))
    return [np.concatenate(of_zones) for of_zones in levels]


def _pixels(shards: Shards, config: RunConfig) -> float:
    """Pixels of 2.5 m with data in all shards: of each chip's core, what lies in the shard, by its covered share.

    The rim of the plan, half an overlap wide, is left out.
    """
    step = (config.grid.chip_px - config.grid.overlap_px) * SCALE
    inset = config.grid.overlap_px * SCALE // 2
    size = config.grid.shard_px
    of_pair = np.repeat(np.arange(len(shards)), np.diff(shards.first))
    area = np.ones(len(of_pair))
    for shard_at, chip_at in ((shards.row, shards.chips.row), (shards.col, shards.chips.col)):
        low = shard_at[of_pair].astype(np.int64) * size
        start = chip_at[shards.members].astype(np.int64) * step + inset
        area *= np.clip(np.minimum(start + step, low + size) - np.maximum(start, low), 0, None)
    return float((area * shards.chips.covered[shards.members]).sum())


# ---------------------------------------------------------------------------------------------------------------------
# How long it takes
# ---------------------------------------------------------------------------------------------------------------------


def _seconds(work: _Work, config: RunConfig, calibration: Calibration, cluster: Cluster) -> Seconds:
    start = calibration.start_up
    chips = start.actors + _chip_seconds(work, config, calibration, cluster) if work.chips else 0.0
    shards = _shared_out(work.shard_seconds, cluster.cpus) if len(work.shard_seconds) else 0.0
    each = calibration.overview.seconds_per_shard
    overviews = math.fsum(_shared_out(children * each, cluster.cpus) for children in work.overviews)
    return Seconds(start.ray, chips, shards, overviews, work.zones * calibration.publish.seconds)


def _chip_seconds(work: _Work, config: RunConfig, calibration: Calibration, cluster: Cluster) -> float:
    """Seconds that the actors take in rounds: whole ones, and one in which some have nothing left to do."""
    batch = _batch(config, calibration, cluster)
    looks = work.looks / work.chips
    calls = max(config.model.uncertainty_samples, 1)
    model = calibration.model[batch] * calls
    on_cores = 0.0 if cluster.gpus else model * config.compute.cpus_per_actor
    core_seconds = on_cores + looks * calibration.read.cpu_seconds + calibration.stage.cpu_seconds
    readers = config.compute.read_concurrency or _READERS_PER_ACTOR * cluster.actors

    def round_of(busy: int) -> float:
        """Seconds of a round in which so many actors have a batch; a batch that is not full takes as long."""
        by_actor = batch * max(model, calibration.stage.seconds)
        by_readers = busy * batch * looks * calibration.read.seconds / readers
        by_cores = busy * batch * core_seconds / cluster.cpus
        return max(by_actor, by_readers, by_cores)

    rounds, rest = divmod(math.ceil(work.chips / batch), cluster.actors)
    return rounds * round_of(cluster.actors) + (round_of(rest) if rest else 0.0)


def _batch(config: RunConfig, calibration: Calibration, cluster: Cluster) -> int:
    """Chips of a batch. Where a run would look for the fastest size on a GPU, that is the fastest of those measured."""
    if config.compute.batch != "auto":
        return config.compute.batch
    return min(calibration.model, key=lambda size: calibration.model[size]) if cluster.gpus else 1


def _shared_out(seconds: NDArray[np.floating], workers: int) -> float:
    """Wall clock of tasks begun in their order, each by the first worker that is free."""
    free = [0.0] * min(workers, len(seconds))
    for task in seconds.tolist():
        heapq.heapreplace(free, free[0] + task)
    return max(free)


# ---------------------------------------------------------------------------------------------------------------------
# Figures measured before
# ---------------------------------------------------------------------------------------------------------------------

Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Conditions(_Figures):
    """What the figures hold for; a configuration that differs in any of them needs a calibration of its own."""

    preset: str
    solver: str = "ddim"  # the only one when calibrations did not say
    steps: int
    consistency: bool
    chip_px: int
    shard_px: int
    precision: str
    threads: int
    uncertainty: bool


class StartUp(_Figures):
    """Seconds until Ray answers, and from there until actors have loaded the model and could begin."""

    ray: Figure
    actors: Figure


class Reading(_Figures):
    """One look at one scene over a chip: wall clock, seconds of core, bytes fetched; and how large a share of planned
    further scenes is looked at."""

    seconds: Figure
    cpu_seconds: Figure
    bytes: Figure
    further_share: Figure


class Staging(_Figures):
    """One chip written to the staging folder: wall clock, seconds of core; bytes of one that no scene covers, and bytes
    more of one that is all covered."""

    seconds: Figure
    cpu_seconds: Figure
    bytes: Figure
    bytes_covered: Figure


class ShardWriting(_Figures):
    """One shard blended and written with all cores at it: seconds and bytes of an empty one, seconds more for each chip
    that touches it, bytes more for each pixel with data."""

    seconds: Figure
    seconds_per_chip: Figure
    bytes: Figure
    bytes_per_pixel: Figure


class OverviewWriting(_Figures):
    """One shard of an overview made and written with all cores at it: seconds for each shard that it is made of, bytes
    for each of its pixels with data."""

    seconds_per_shard: Figure
    bytes_per_pixel: Figure


class Publishing(_Figures):
    """Publishing one zone: seconds, and objects of metadata and coordinates of each of its levels."""

    seconds: Figure
    objects: int


class Calibration(_Figures):
    """What a machine takes for the parts of a run.

    Attributes:
        version: of this layout.
        measured: when, ISO 8601, UTC.
        machine: cores and GPUs in words.
        gpu: whether actors computed on GPUs.
        actors: how many computed at a time.
        load: processes per core that were at work on the machine before: figures taken at more than a few tenths are
            too high.
        source: whether chips were read from the configuration's own scenes or from generated ones on this machine.
        conditions: what the figures hold for.
        model: seconds per chip and call of the model by batch, in one actor while all compute.
        start_up, read, stage, shard, overview, publish: the parts.
    """

    version: Literal[2]
    measured: str
    machine: str
    gpu: bool
    actors: int
    load: Figure
    source: Literal["own", "generated"]
    conditions: Conditions
    model: Annotated[dict[int, Figure], Field(min_length=1)]
    start_up: StartUp
    read: Reading
    stage: Staging
    shard: ShardWriting
    overview: OverviewWriting
    publish: Publishing

    def to_json(self) -> str:
        """As a JSON document; `from_json` gives an equal one back."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "calibration") -> Calibration:
        """A calibration from its JSON document.

        Args:
            where: what an error calls the document.

        Raises:
            ConfigError: it is none, or one of another version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise ConfigError(
                f"{where}: is no calibration of this version ({f'{key}: ' if key else ''}{first['msg']}); "
                "make it again with `difffusr calibrate`"
            ) from None


def load_calibration(path_or_url: str) -> Calibration:
    """The calibration in a file.

    Raises:
        ConfigError: the file cannot be read or holds something else.
    """
    shown = bare_href(path_or_url)
    try:
        with fsspec.open(path_or_url, "rb") as file:
            data: bytes = file.read()
    except STORE_FAILURES as error:
        raise ConfigError(
            f"{shown}: cannot be read as a calibration ({first_line(error)}); `difffusr calibrate` makes one"
        ) from None
    return Calibration.from_json(data, shown)


def conditions_of(config: RunConfig) -> Conditions:
    """What a calibration made with a configuration holds for."""
    sampling = sampling_of(config)
    return Conditions(
        preset=config.model.preset,
        solver=sampling.solver,
        steps=sampling.steps,
        consistency=sampling.consistency,
        chip_px=config.grid.chip_px,
        shard_px=config.grid.shard_px,
        precision=sampling.precision,
        threads=config.compute.cpus_per_actor,
        uncertainty=config.model.uncertainty_samples > 0,
    )


def check_conditions(config: RunConfig, calibration: Calibration, cluster: Cluster) -> None:
    """Refuse a calibration of something else.

    Raises:
        ConfigError: model, chip, batch or device differ; every difference is named.
    """
    wanted, had = conditions_of(config).model_dump(), calibration.conditions.model_dump()
    differs = [f"{name} {had[name]} instead of {wanted[name]}" for name in wanted if had[name] != wanted[name]]
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


# ---------------------------------------------------------------------------------------------------------------------
# For people
# ---------------------------------------------------------------------------------------------------------------------


def estimate_rows(made: Estimate) -> list[tuple[str, str]]:
    """(label, value) of what people want to know of an estimate, in units for people."""
    cluster, seconds, costs = made.cluster, made.seconds, made.costs
    scenes = ", ".join(f"{chips:,} from {count}" for count, chips in made.chips_by_scenes.items() if chips)
    rows = [
        ("chips to compute", f"{made.chips - made.done:,}" + (f" of {made.chips:,}" if made.done else "")),
        ("scenes a chip", scenes or "–"),
        ("shards", f"{made.shards:,}"),
        ("to read", _size(made.bytes_read)),
        ("to write", f"{_size(made.bytes_staged)} staged, {_size(made.bytes_cube)} cube, {made.objects:,} objects"),
        ("on", f"{cluster.actors:,} actors, {cluster.gpus:g} GPUs, {cluster.cpus:,} cores"),
        ("start-up", _span(seconds.start_up)),
        ("chips", _span(seconds.chips)),
        ("shards written", _span(seconds.shards)),
        ("overviews", _span(seconds.overviews)),
        ("publish", _span(seconds.publish)),
        ("wall clock", _span(seconds.total)),
        ("GPU-hours", f"{made.gpu_hours:,.2f}"),
        ("CPU-hours", f"{made.cpu_hours:,.2f}"),
    ]
    labels = {
        "gpu": "cost: GPUs",
        "cpu": "cost: cores",
        "read": "cost: reading",
        "written": "cost: writing",
        "storage": "cost: a month of storage",
        "requests": "cost: requests",
    }
    rows += [(label, _money(getattr(costs, name), made.currency)) for name, label in labels.items()]
    return [*rows, ("cost", _money(made.total, made.currency))]


def calibration_rows(found: Calibration) -> list[tuple[str, str]]:
    """(label, value) of a calibration for people."""
    rows = [("machine", f"{found.machine}, {found.actors} actors")]
    rows += [(f"model, batch {size}", f"{seconds:.2f} s a chip") for size, seconds in found.model.items()]
    rows += [
        ("start-up", f"Ray {found.start_up.ray:.1f} s, actors {found.start_up.actors:.1f} s"),
        ("read", _moved(found.read.bytes, found.read.seconds, "a scene and chip")),
        ("stage", _moved(found.stage.bytes + found.stage.bytes_covered, found.stage.seconds, "a whole chip")),
        ("shard", f"{found.shard.seconds:.2f} s and {found.shard.seconds_per_chip:.2f} s a chip"),
        ("overview", f"{found.overview.seconds_per_shard:.2f} s a shard below"),
        ("publish", f"{found.publish.seconds:.2f} s a zone"),
    ]
    if found.load > 0.3:
        rows.append(("warning", f"the machine was busy (load {found.load:.1f} a core): measure again when it is not"))
    return rows


def _moved(size: float, seconds: float, each: str) -> str:
    rate = f", {size / 1e6 / seconds:.0f} MB/s" if seconds else ""
    return f"{seconds:.2f} s, {size / 1e6:.1f} MB {each}{rate}"


def _size(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e3:,.1f} kB"


def _span(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _money(amount: float, currency: str) -> str:
    return f"{amount:,.2f} {currency}"
