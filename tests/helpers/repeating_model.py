"""An actor with a model that repeats what it is given, and batches for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difffusr.kernels.bands import BANDS, GROUPS, SCALE
from difffusr.kernels.sampling.settings import Sampling
from difffusr.pipeline.chips.actor import SuperResolver
from difffusr.pipeline.chips.batch import Batch

PX = 12


class Repeating:
    """A model that repeats a chip's first 10 m band in every band, and keeps what it was given."""

    sampling, execution = Sampling(), "eager"

    def __init__(self) -> None:
        self.given: list[Mapping[int, Tensor]] = []

    def __call__(self, bands: Mapping[int, Tensor], valid: Mapping[int, Tensor], noise: Tensor) -> Tensor:
        self.given.append(bands)
        first = bands[10][:, :1].repeat_interleave(SCALE, dim=2).repeat_interleave(SCALE, dim=3)
        return first.expand(-1, len(BANDS), -1, -1)


def actor(batch: int) -> Any:
    made: Any = object.__new__(SuperResolver)
    made.batch, made.samples, made.seed, made.device, made.model = batch, 0, 0, torch.device("cpu"), Repeating()
    return made


def read(chips: int) -> Batch:
    """Chips with every DN that there is somewhere."""
    batch: Batch = {
        "error": np.array([""] * chips, object),
        "epsg": np.full(chips, 32648),
        "pixel_row": np.full(chips, -8_000),
        "pixel_col": 4_000 + np.arange(chips) * PX * SCALE,
        "quality": np.ones((chips, PX, PX), np.uint8),
        "source": np.ones((chips, PX, PX), np.uint16),
    }
    rng = np.random.default_rng(1)
    for gsd, bands in GROUPS.items():
        n = PX * 10 // gsd
        batch[f"dn{gsd}"] = rng.integers(1, 65536, (chips, len(bands), n, n)).astype(np.uint16)
        batch[f"valid{gsd}"] = np.ones((chips, n, n), np.uint8)
    batch["dn10"][:, 0, 0, :4] = 1, 32_767, 32_768, 65_535
    return batch
