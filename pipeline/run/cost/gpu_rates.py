"""How fast kinds of GPUs were measured to super-resolve: the table that ships, `gpu_rates.json`.

It holds what was timed on such a GPU, and nothing that was counted or hoped for. `add_gpu_rates` adds to it.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from difffusr.kernels.sampling import SAMPLERS
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.plan import sampling_of

#: Pixels of 10 m by which chips overlap where a rate is told in square kilometres: the default of a configuration.
OVERLAP_PX = 24

#: Square kilometres that costs are told for.
THOUSAND_KM2 = 1000.0

#: What a way to run the networks is called where people read it.
EXECUTION_WORDS: Mapping[str, str] = {
    "eager": "eager",
    "fused": "fused",
    "sketch": "fused in a sketch",
}

#: What is to be known of a sketch, and of the kernels that ship.
SKETCH_NOTE = (
    "The sketch is not what ships: the kernels that ship have been counted, not timed, and are not in these figures."
)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class GpuRate(BaseModel):
    """What one GPU was measured to do, the networks alone.

    Attributes:
        gpu: its kind.
        models: the networks' sizes, as `model.preset` calls them.
        preset: the sampler, with its own number of steps.
        execution: "eager" or "fused" as in `compute.execution`; "sketch": with kernels that never shipped.
        side: of a chip, in pixels of 10 m.
        batch: chips at a time.
        chips_per_s: chips a second.
        km2_per_s: the same in square kilometres of cube, chips overlapping by `OVERLAP_PX`.
        measured: the day.
        version: of this project.
        source: what else is to be known, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: Annotated[str, Field(min_length=1)]
    models: Literal["published", "small"]
    preset: Literal["reference", "fast", "draft"]
    precision: Literal["float32", "bfloat16"]
    execution: Literal["eager", "fused", "sketch"]
    side: Annotated[int, Field(gt=OVERLAP_PX)]
    batch: Annotated[int, Field(ge=1)]
    chips_per_s: Positive
    km2_per_s: Positive
    measured: dt.date
    version: Annotated[str, Field(min_length=1)]
    source: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        km2_per_s = self.chips_per_s * km2_of(self.side)
        if not math.isclose(self.km2_per_s, km2_per_s, rel_tol=1e-5):
            raise ValueError(f"km2_per_s: {self.km2_per_s:g} instead of {km2_per_s:g} by chips_per_s")
        return self

    @property
    def case(self) -> tuple[str | int, ...]:
        """What was measured: a later figure of the same replaces this one."""
        return self.gpu, self.models, self.preset, self.precision, self.execution, self.side, self.batch

    @property
    def gpu_hours_per_1000_km2(self) -> float:
        """Hours of one GPU for 1000 km² of cube: times a price per hour, what they cost."""
        return THOUSAND_KM2 / self.km2_per_s / 3600


class GpuRates(BaseModel):
    """The table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rates: tuple[GpuRate, ...]

    def with_later(self, later: Iterable[GpuRate]) -> GpuRates:
        """This table, what was measured again replaced by the later figure; in a fixed order."""
        by_case = {rate.case: rate for rate in (*self.rates, *later)}
        return GpuRates(rates=tuple(by_case[case] for case in sorted(by_case, key=repr)))

    def to_json(self) -> str:
        """As a JSON document."""
        return self.model_dump_json(indent=1) + "\n"


def km2_of(side: int) -> float:
    """Square kilometres of cube that a chip adds, for chips that overlap by `OVERLAP_PX`."""
    return ((side - OVERLAP_PX) / 100) ** 2


def gpu_rates() -> GpuRates:
    """The table that ships."""
    return GpuRates.model_validate_json(files(__package__).joinpath("gpu_rates.json").read_text(encoding="utf-8"))


def rates_for(config: RunConfig, rates: Sequence[GpuRate] | None = None) -> list[GpuRate]:
    """What was measured with a configuration's networks, sampler, precision and chip: for every kind of GPU, one for
    each way to run them. Nothing is derived from figures of other networks, samplers or chips.

    Of several batches it is the one nearest to `compute.batch`, or the fastest where that is 'auto'. A sketch and, for
    `compute.execution: auto`, eager execution stand in for fused execution only where that was not measured.

    Args:
        rates: to choose from; the table that ships if None.
    """
    suitable = [rate for rate in (gpu_rates().rates if rates is None else rates) if _suits(rate, config)]
    chosen: list[GpuRate] = []
    for gpu in sorted({rate.gpu for rate in suitable}):
        here = [rate for rate in suitable if rate.gpu == gpu]
        chosen += [
            _by_batch([rate for rate in here if rate.execution == execution], config)
            for execution in _executions(config, {rate.execution for rate in here})
        ]
    return chosen


def _suits(rate: GpuRate, config: RunConfig) -> bool:
    model, sampling = config.model, sampling_of(config)
    own_weights = model.stage1 is not None or model.fusion is not None
    return (
        rate.models == model.preset
        and not (model.preset == "small" and own_weights)  # weights of one's own may have any size
        and SAMPLERS[rate.preset] == (sampling.solver, sampling.steps)
        and sampling.consistency
        and rate.precision == sampling.precision
        and rate.side == config.grid.chip_px
        and not model.uncertainty_samples
    )


def _executions(config: RunConfig, measured: set[str]) -> list[str]:
    wanted = config.compute.execution
    if wanted == "eager" or "fused" in measured:
        wished = ["eager" if wanted == "eager" else "fused"]
    else:
        wished = ["sketch", "eager"] if wanted == "auto" else ["sketch"]
    return [execution for execution in wished if execution in measured]


def _by_batch(rates: Sequence[GpuRate], config: RunConfig) -> GpuRate:
    batch = config.compute.batch
    if batch == "auto":
        return max(rates, key=lambda rate: rate.chips_per_s)
    return min(rates, key=lambda rate: (abs(rate.batch - batch), rate.batch))
