"""What of an image is more than noise, and how dark its pixels may be."""

from __future__ import annotations

import pytest
import torch

from difffusr.kernels.images import not_darker, signal_share


@pytest.mark.parametrize("level", [0.0, 0.02, 0.1, 0.6])
@pytest.mark.parametrize(("spread", "low", "high"), [(0.0, 0, 0), (0.0005, 0, 0.05), (0.004, 0.85, 1), (0.05, 0.99, 1)])
def test_what_varies_no_more_than_noise_has_no_signal(level, spread, low, high):
    noise = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    share = signal_share(level + spread * noise)
    assert share.shape == (1, 1, 40, 40)
    assert low <= share.mean() <= high


@pytest.mark.parametrize("dark", [0.0001, 0.003, 0.02, 0.2])
def test_nothing_is_much_darker_than_what_is_measured_around_it(dark):
    measured = torch.full((1, 2, 12, 12), 0.3)
    measured[..., 5:7, :] = dark  # a river
    fine = torch.full((1, 2, 48, 48), 0.3)
    fine[..., 20:28, :] = -0.05
    lifted = not_darker(fine, measured)
    assert lifted.min() >= 0.199 * dark
    assert torch.equal(lifted[..., :12, :], fine[..., :12, :])
    assert torch.equal(not_darker(lifted, measured), lifted)
