"""Degraded images stay physical."""

from __future__ import annotations

import pytest
import torch
from held_image import Held

from difffusr.pipeline.weights.training.degrading import degrade
from difffusr.pipeline.weights.training.draws import Seeds
from difffusr.pipeline.weights.training.patches import patch_source

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch", [1, 2, 5, 16])
@pytest.mark.parametrize("margin", [2, 3])
def test_degradation_keeps_reflectance_and_brightness(fields, batch: int, margin: int):
    seeds = Seeds(1, batch, 0)
    hr, _ = patch_source([Held(fields)], 144, CPU, 1).draw(seeds, batch)
    lr = degrade(hr, seeds.draws(CPU), margin)
    assert lr.shape == (batch, 2, 3, 36 - 2 * margin, 36 - 2 * margin)
    assert torch.isfinite(lr).all()
    assert lr.min() > -0.6
    assert lr.max() < 1.6  # noise of 0.1 at most
    inner = slice(4 * margin, -4 * margin)
    assert torch.allclose(lr.mean((1, 2, 3, 4)), hr[..., inner, inner].mean((1, 2, 3, 4)), atol=0.02)


def test_a_single_sample_is_degraded_in_either_way(fields):
    """In a batch of one there is no half."""
    hr, _ = patch_source([Held(fields)], 144, CPU, 1).draw(Seeds(0, 0, 0), 1)
    sharp = torch.stack([degrade(hr, Seeds(s, 0, 0).draws(CPU)).diff().abs().mean() for s in range(12)])
    assert sharp.max() > 1.2 * sharp.min()
