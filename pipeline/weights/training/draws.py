"""What a training does on its device: random numbers, the same for the same seed, step and worker; networks' layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Seeds:
    """What all that a worker draws in a step depends on."""

    seed: int
    step: int
    rank: int

    def number(self, *purpose: int) -> int:
        """A seed for one purpose, independent of those for others."""
        return int(np.random.SeedSequence((self.seed, self.step, self.rank, *purpose)).generate_state(1)[0])

    def draws(self, device: torch.device, *purpose: int) -> Draws:
        """What draws on a device for one purpose."""
        return Draws(torch.Generator(device).manual_seed(self.number(*purpose)))

    def rng(self, *purpose: int) -> np.random.Generator:
        """The same on the host, for the few numbers that decide about shapes."""
        return np.random.default_rng(self.number(*purpose))


@dataclass(frozen=True)
class Draws:
    """Draws tensors on its generator's device, float32 unless it says otherwise."""

    generator: torch.Generator

    @cached_property
    def device(self) -> torch.device:
        """Where."""
        return self.generator.device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Between two values."""
        return torch.rand(shape, generator=self.generator, device=self.device) * (high - low) + low

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Between two values, their logarithm uniform."""
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def shares(self, *shape: int) -> Tensor:
        """float64 in [0, 1), fine enough to number the pixels of an image."""
        return torch.rand(shape, generator=self.generator, device=self.device, dtype=torch.float64)

    def happens(self, probability: float, *shape: int) -> Tensor:
        """bool."""
        return torch.rand(shape, generator=self.generator, device=self.device) < probability

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self.generator, device=self.device)


def on_device(module: M, device: torch.device) -> M:
    """A network on a device; convolutions of a GPU are fastest with channels last."""
    moved: Any = module.to(device)
    return cast(M, moved.to(memory_format=torch.channels_last) if device.type == "cuda" else moved)
