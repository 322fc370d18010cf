"""A made-up 12-band scene, better known to classical methods than to an untrained network."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from difffusr.kernels.bands import GROUPS
from difffusr.pipeline.weights.training.scenes import NativeScene


def mixed_scene() -> NativeScene:
    """1.44 km of ground whose bands are mixtures of three materials, on native grids."""
    generator = torch.Generator().manual_seed(2)
    cover = F.interpolate(torch.rand((1, 3, 36, 36), generator=generator), size=(144, 144), mode="nearest")[0]
    spectra = dict(zip(sum(GROUPS.values(), ()), torch.rand((12, 3), generator=generator), strict=True))
    bands = {}
    for gsd, names in GROUPS.items():
        for name in names:
            fine = (spectra[name][:, None, None] * cover).sum(0) / 5 + 0.02
            bands[name] = F.avg_pool2d(fine[None, None], gsd // 10)[0, 0]
    return NativeScene("mixtures", bands)
