"""What a plan's super-resolution takes on kinds of GPUs, from rates measured there: without a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.plan import Plan
from difffusr.pipeline.run.cost.gpu_rates import THOUSAND_KM2, GpuRate
from difffusr.pipeline.run.cost.workload import km2_of_a_chip, km2_to_compute


@dataclass(frozen=True)
class OnGpu:
    """Super-resolution alone, on GPUs of one kind.

    Attributes:
        rate: as measured.
        km2_per_s: of cube, by one GPU, with the overlap of the configuration.
        gpu_hours: for the chips to compute.
        cost, spot: of those hours; None where there is no such price.
        cost_per_1000_km2, spot_per_1000_km2: of chips that are wholly covered; None likewise.
    """

    rate: GpuRate
    km2_per_s: float
    gpu_hours: float
    cost: float | None
    spot: float | None
    cost_per_1000_km2: float | None
    spot_per_1000_km2: float | None


@dataclass(frozen=True)
class ByGpu:
    """What a plan's super-resolution takes, by kind of GPU.

    Attributes:
        chips: to compute.
        km2: of cube that they cover, as far as scenes cover them.
        kinds: one for each kind and way to run the networks.
        currency: of all costs.
    """

    chips: int
    km2: float
    kinds: tuple[OnGpu, ...]
    currency: str

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        kinds = [{**asdict(kind), "rate": kind.rate.model_dump(mode="json")} for kind in self.kinds]
        return {**asdict(self), "kinds": kinds}


def by_gpu(plan: Plan, config: RunConfig, rates: Sequence[GpuRate], done: int = 0) -> ByGpu:
    """What the super-resolution of a plan takes on each of the kinds that `rates_for` found.

    Args:
        done: chips of the plan that are staged already, pro rata.
    """
    chips = max(len(plan.chips) - done, 0)
    kinds = tuple(_on_gpu(rate, chips, config) for rate in rates)
    return ByGpu(chips, km2_to_compute(plan, config, done), kinds, config.costs.currency)


def _on_gpu(rate: GpuRate, chips: int, config: RunConfig) -> OnGpu:
    prices = config.costs.prices
    on_demand, spot = prices.gpu_hour or None, prices.gpu_hour_spot
    km2_per_s = rate.chips_per_s * km2_of_a_chip(config)
    hours, hours_per_1000_km2 = chips / rate.chips_per_s / 3600, THOUSAND_KM2 / km2_per_s / 3600
    return OnGpu(
        rate,
        km2_per_s,
        hours,
        _product(hours, on_demand),
        _product(hours, spot),
        _product(hours_per_1000_km2, on_demand),
        _product(hours_per_1000_km2, spot),
    )


def _product(hours: float, price: float | None) -> float | None:
    return None if price is None else hours * price
