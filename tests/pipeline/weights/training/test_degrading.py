"""Degraded images stay physical."""

from __future__ import annotations

import numpy as np
import torch

from difffusr.pipeline.weights.training.degrading import degrade
from difffusr.pipeline.weights.training.patches import PatchSource


def test_degradation_keeps_reflectance_and_brightness(fields):
    rng = np.random.default_rng(1)
    source = PatchSource.build([fields], 144)
    hr = torch.stack([source.draw(rng) for _ in range(16)])
    lr = degrade(hr, rng, margin=2)
    assert lr.shape == (16, 2, 3, 32, 32)
    assert torch.isfinite(lr).all()
    assert lr.min() > -0.6
    assert lr.max() < 1.6  # noise of 0.1 at most
    inner = hr[..., 8:-8, 8:-8].mean((1, 2, 3, 4))
    assert torch.allclose(lr.mean((1, 2, 3, 4)), inner, atol=0.02)
