"""A model that computes nothing worth the name, to see what everything around it takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from difffusr.kernels.bands import BANDS, GROUPS, SCALE
from difffusr.pipeline.chips.batch import Batch
from difffusr.pipeline.chips.resolver import PinnedResolver
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.storage.objects import Storage


class NullResolver(PinnedResolver):
    """The first 10 m band, each pixel repeated, in every band."""

    def __init__(self, config: RunConfig, board: Any, staging: Storage) -> None:
        self.batch, self.samples = config.compute.batch, 0
        self.prepare(board, staging)

    def super_resolve(self, batch: Batch, chosen: list[int]) -> Batch:
        """See `SuperResolver`."""
        first = batch[f"dn{min(GROUPS)}"][chosen, :1].repeat(SCALE, axis=2).repeat(SCALE, axis=3)
        return {"dn": np.broadcast_to(first, (len(chosen), len(BANDS), *first.shape[2:]))}
