"""How a model is run: solver, steps, temperature, precision; and the fingerprint of a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Final, Literal

Solver = Literal["ddim", "multistep", "none"]

#: The samplers that a user chooses by name: solver and steps of each.
SAMPLERS: Final[Mapping[str, tuple[Solver, int]]] = {
    "reference": ("ddim", 20),
    "fast": ("multistep", 4),
    "draft": ("none", 0),
}


@dataclass(frozen=True)
class Sampling:
    """How a model is run.

    Attributes:
        solver: "ddim", the published sampler; "multistep", DPM-Solver++(2M), which follows the same path from noise to
            image in fewer steps; "none", no diffusion: the context encoder's own image. "none" ignores noise, steps,
            temperature and denoised.
        steps: sampler steps; for "ddim" a divisor of 1000, 20 as published; the network is evaluated once less.
        consistency: back-project the result onto the measurement.
        precision: of the networks' features; the rest stays float32.
        denoised: return the sampler's last estimate, without the noise of 0.0032 reflectance that the published sampler
            leaves in every pixel and that is visible on dark water. "multistep" always does.
        temperature: standard deviation of the initial noise, 1 as published. Lower values stay closer to the most
            probable image: fewer invented details, a better PSNR, less texture. 0 is deterministic.
    """

    solver: Solver = "ddim"
    steps: int = 20
    consistency: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    denoised: bool = False
    temperature: float = 1.0

    def by(self, sampler: str) -> Sampling:
        """The same with solver and steps of one of `SAMPLERS`; temperature and denoised stay."""
        solver, steps = SAMPLERS[sampler]
        return replace(self, solver=solver, steps=steps)


def fingerprint(sampling: Sampling, sha256: Mapping[str, str]) -> str:
    """Identifies a model: hash of its sampling and of its weights' sha256, `stage1` and `fusion`."""
    content = [sha256["stage1"], sha256["fusion"], *astuple(sampling)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
