"""Metrics of a run for Prometheus, exported by Ray from every node."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ray.util.metrics import Counter, Gauge, Histogram

from difffusr.pipeline.watch.reasons import reason_class

Stage = Literal["read", "super_resolve", "stage"]

Cause = Literal["stall", "death", "preemption"]


@dataclass(frozen=True)
class Metric:
    """A metric of a run.

    Attributes:
        name: as given to Ray.
        kind: of Prometheus.
        unit: of its values.
        help: what it is, one sentence.
        tags: its labels besides run and period.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    tags: tuple[str, ...] = ()

    @property
    def exported(self) -> frozenset[str]:
        """Its names in Prometheus: Ray puts ray_ before each, and a histogram has three."""
        ends = ("_bucket", "_count", "_sum") if self.kind == "histogram" else ("",)
        return frozenset(f"ray_{self.name}{end}" for end in ends)


CHIPS = Metric("difffusr_chips_total", "counter", "chips", "Chips that passed a stage.", ("stage",))

CHIPS_FAILED = Metric("difffusr_chips_failed_total", "counter", "chips", "Chips that failed, by reason.", ("reason",))

CHIP_SECONDS = Metric("difffusr_chip_seconds", "histogram", "seconds", "Time a chip took in a stage.", ("stage",))

CHIPS_PLANNED = Metric("difffusr_chips_planned", "gauge", "chips", "Chips of the plan.")

CHIPS_DONE = Metric("difffusr_chips_done", "gauge", "chips", "Chips that are done, those found done included.")

CHIPS_REUSED = Metric("difffusr_chips_reused", "gauge", "chips", "Chips that were found done when the run began.")

SHARDS_PLANNED = Metric("difffusr_shards_planned", "gauge", "shards", "Shards of the plan.")

SHARDS_WRITTEN = Metric("difffusr_shards_written", "gauge", "shards", "Shards that are written, those kept included.")

BYTES_STAGED = Metric("difffusr_bytes_staged_total", "counter", "bytes", "Bytes of staged chips written.")

ACTOR_RESTARTS = Metric(
    "difffusr_actor_restarts_total",
    "counter",
    "restarts",
    "Workers killed for a stall, and actors started anew after a death, of a killed one too, or a preemption.",
    ("cause",),
)

PREEMPTED = Metric(
    "difffusr_actors_preempted_total", "counter", "actors", "Actors whose machine gave notice that it is about to go."
)

GIVEN_BACK = Metric(
    "difffusr_chips_given_back_total", "counter", "chips", "Chips that preempted actors had begun and did not end."
)

STALLED = Metric("difffusr_stalled", "gauge", "seconds", "Time since the run last got on.")

GPU_SECONDS = Metric("difffusr_gpu_seconds_total", "counter", "seconds", "GPU time held by actors, a GPU for a second.")

LEASE_AGE = Metric("difffusr_lease_age_seconds", "gauge", "seconds", "Time since the store took the lease's last beat.")

PUBLISH = Metric("difffusr_publish_total", "counter", "publications", "Publications of the cube.")

#: All metrics of a run: dashboard and alerts use no other names of ours.
METRICS = (
    CHIPS, CHIPS_FAILED, CHIP_SECONDS, CHIPS_PLANNED, CHIPS_DONE, CHIPS_REUSED, SHARDS_PLANNED, SHARDS_WRITTEN,
    BYTES_STAGED, ACTOR_RESTARTS, PREEMPTED, GIVEN_BACK, STALLED, GPU_SECONDS, LEASE_AGE, PUBLISH,
)  # fmt: skip

#: Upper bounds of the histogram's buckets, in seconds: a window read from a near disk to a large batch on a CPU.
SECONDS_BOUNDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Meters:
    """The meters of one process of a run. Ray exports them from every node; counts of all processes add up.

    Make it once a process: Ray does not distinguish two instances of a meter. Values set before `ray.init`, or in a
    process that joins no cluster, are lost; neither is an error.
    """

    def __init__(self, run: str, period: str) -> None:
        self._tags = {"run": run, "period": period}
        self._counters = {m: Counter(m.name, _description(m), _tag_keys(m)) for m in METRICS if m.kind == "counter"}
        self._gauges = {m: Gauge(m.name, _description(m), _tag_keys(m)) for m in METRICS if m.kind == "gauge"}
        self._seconds = Histogram(
            CHIP_SECONDS.name,
            _description(CHIP_SECONDS),
            boundaries=list(SECONDS_BOUNDS),
            tag_keys=_tag_keys(CHIP_SECONDS),
        )

    def plan(self, chips: int, reused: int, shards: int, written: int) -> None:
        """The run begins with so many chips and shards planned, and so many of them found done."""
        self._set(CHIPS_PLANNED, chips)
        self._set(CHIPS_REUSED, reused)
        self._set(SHARDS_PLANNED, shards)
        self.chips_done(reused)
        self.shards_written(written)

    def chips_done(self, count: int) -> None:
        """So many chips of the plan are done by now, those found done included."""
        self._set(CHIPS_DONE, count)

    def shards_written(self, count: int) -> None:
        """So many shards of the plan are written by now, those kept included."""
        self._set(SHARDS_WRITTEN, count)

    def chip(self, stage: Stage, seconds: float) -> None:
        """A chip passed a stage, which took it so long."""
        self._add(CHIPS, 1, stage=stage)
        self._seconds.observe(float(seconds), {**self._tags, "stage": stage})

    def chip_failed(self, message: str) -> str:
        """A chip failed with this message; returns the reason under which it is counted."""
        reason = reason_class(message)
        self._add(CHIPS_FAILED, 1, reason=reason)
        return reason

    def staged(self, size: int) -> None:
        """So many bytes of a staged chip were written."""
        self._add(BYTES_STAGED, size)

    def actor_restarted(self, cause: Cause) -> None:
        """An actor is started anew: it stalled, it died, or its machine was taken away."""
        self._add(ACTOR_RESTARTS, 1, cause=cause)

    def actor_preempted(self) -> None:
        """An actor's machine has given notice."""
        self._add(PREEMPTED, 1)

    def given_back(self, chips: int) -> None:
        """A preempted actor has ended amid so many chips."""
        self._add(GIVEN_BACK, chips)

    def stalled(self, seconds: float) -> None:
        """A chip or shard was last done so long ago."""
        self._set(STALLED, seconds)

    def gpu(self, seconds: float) -> None:
        """So much more GPU time was held, GPUs × seconds."""
        self._add(GPU_SECONDS, seconds)

    def lease_age(self, seconds: float) -> None:
        """The store accepted the lease's last beat so long ago."""
        self._set(LEASE_AGE, seconds)

    def published(self) -> None:
        """The cube was published."""
        self._add(PUBLISH, 1)

    def _set(self, metric: Metric, value: float) -> None:
        self._gauges[metric].set(float(value), self._tags)

    def _add(self, metric: Metric, value: float, **tags: str) -> None:
        if value > 0:  # Ray refuses to add 0
            self._counters[metric].inc(float(value), {**self._tags, **tags})


def _tag_keys(metric: Metric) -> tuple[str, ...]:
    return ("run", "period", *metric.tags)


def _description(metric: Metric) -> str:
    return f"{metric.help} Unit: {metric.unit}."


@lru_cache(maxsize=2)  # Ray does not distinguish two instances of a meter
def meters_of(run: str, period: str) -> Meters:
    """This process's meters of a run and period: steps of the engine ask for them in every task."""
    return Meters(run, period)
