"""What the manifest of a plan has to hold for those who read it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from difffusr.pipeline.config import GridSection


class _Part(BaseModel):
    """What is asked for; the rest stands beside it."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")


class _Prices(_Part):
    gpu_hour: float = 0.0
    cpu_hour: float = 0.0


class _Costs(_Part):
    prices: _Prices = _Prices()


class _Choice(_Part):
    sun: str = "scene"
    max_offset: float = 0.0


class _Config(_Part):
    grid: GridSection
    scenes: _Choice = _Choice()
    costs: _Costs = _Costs()


class Manifest(_Part):
    """The manifest of a plan of any version."""

    config: _Config
    model: str
    algorithm: int | str
    versions: dict[str, str] = {}
