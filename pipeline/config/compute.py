"""The sections of a run's configuration that say what computes, and what happens when something fails."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difffusr.pipeline.config.section import Section, rule_error
from difffusr.pipeline.config.values import Integer, Number, Share, Text


class ComputeSection(Section):
    """The Ray cluster, and what each actor takes from it."""

    address: Text | None = Field(default=None, description="a Ray cluster address, or null to start Ray locally")
    actors_min: Integer = Field(default=1, ge=1, description="an integer ≥ 1")
    actors_max: Integer | None = Field(default=None, ge=1, description="an integer ≥ compute.actors_min, or null")
    gpus_per_actor: Number | Literal["auto"] = Field(
        default="auto", description="'auto', a share from 0 to 1, or a whole number of GPUs"
    )
    cpus_per_actor: Integer = Field(default=1, ge=1, description="an integer ≥ 1")
    batch: Annotated[Integer, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="an integer ≥ 1, or 'auto' (found on a GPU, one a core on CPUs)"
    )
    read_concurrency: Integer | None = Field(default=None, ge=1, description="an integer ≥ 1, or null")
    wait_minutes: Number = Field(
        default=0.0, ge=0, description="a number ≥ 0 (minutes to wait for the cluster to start nodes)"
    )
    precision: Literal["float32", "bfloat16"] = Field(default="float32", description="'float32' or 'bfloat16'")
    execution: Literal["auto", "eager", "fused"] = Field(
        default="auto", description="'auto' (fused on a GPU where that works), 'eager' or 'fused'"
    )

    preemption: Literal["auto", "none", "file", "aws", "gcp"] = Field(
        default="auto",
        description="'auto' (who may take this machine away, if anybody), 'none', 'file', 'aws' or 'gcp'",
    )

    @property
    def batch_on_cores(self) -> int:
        """Chips that an actor without a GPU takes at a time: a chip has one core, whatever the actor has."""
        return self.cpus_per_actor if self.batch == "auto" else self.batch

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.actors_max is not None and self.actors_max < self.actors_min:
            raise rule_error("actors_max", self.actors_max, f"an integer ≥ compute.actors_min = {self.actors_min}")
        gpus = self.gpus_per_actor
        if gpus != "auto" and (gpus < 0 or (gpus > 1 and gpus != int(gpus))):
            raise rule_error("gpus_per_actor", gpus, self.allowed("gpus_per_actor"))
        if self.wait_minutes and (gpus == "auto" or self.actors_max is None):
            # Nodes that do not exist yet cannot be counted.
            expected = "0, or compute.gpus_per_actor and compute.actors_max as numbers"
            raise rule_error("wait_minutes", self.wait_minutes, expected)
        return self


class FailuresSection(Section):
    """What happens when chips fail or nothing progresses."""

    max_failed: Share = Field(
        default=0.01,
        ge=0,
        le=1,
        description="a share such as 1% (of the chips; more than that, and more than 10, stop)",
    )
    on_failed: Literal["fill", "refuse"] = Field(
        default="fill",
        description="'fill' (publish, the gaps flagged in `quality`) or 'refuse' (publish only what is complete)",
    )
    stall_minutes: Number = Field(
        default=15.0, gt=0, description="a number > 0 (minutes without progress after which a worker is restarted)"
    )
