"""The sections of a run's configuration that say what things cost."""

from __future__ import annotations

from pydantic import Field

from difffusr.pipeline.config.section import Section
from difffusr.pipeline.config.values import Number, PathOrUrl, Text


class PricesSection(Section):
    """Prices, in `costs.currency`."""

    gpu_hour: Number = Field(default=0.0, ge=0, description="a number ≥ 0 (one GPU for one hour)")
    gpu_hour_spot: Number | None = Field(
        default=None, ge=0, description="a number ≥ 0 (the same on machines that may be taken away), or null"
    )
    cpu_hour: Number = Field(default=0.0, ge=0, description="a number ≥ 0 (one core for one hour)")
    cpu_hour_spot: Number | None = Field(
        default=None, ge=0, description="a number ≥ 0 (the same on machines that may be taken away), or null"
    )
    gb_read: Number = Field(default=0.0, ge=0, description="a number ≥ 0 (one GB, 10^9 bytes, fetched from the source)")
    gb_written: Number = Field(default=0.0, ge=0, description="a number ≥ 0 (one GB, 10^9 bytes, sent to the store)")
    gb_month: Number = Field(default=0.0, ge=0, description="a number ≥ 0 (one GB, 10^9 bytes, kept for a month)")
    thousand_requests: Number = Field(default=0.0, ge=0, description="a number ≥ 0 (1000 objects written)")


#: Prices that came after the first cubes were made.
LATER_PRICES = ("gpu_hour_spot", "cpu_hour_spot")


class CostsSection(Section):
    """What the estimate of a run's cost is based on."""

    calibration: PathOrUrl | None = Field(
        default=None, description="the path or URL of the file that `difffusr calibrate` wrote, or null"
    )
    currency: Text = Field(default="EUR", description="the name of a currency")
    prices: PricesSection = Field(default_factory=PricesSection, description="a section with gpu_hour, cpu_hour, …")
