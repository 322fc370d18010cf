"""The diffusion network."""

from __future__ import annotations

import torch

from difffusr.kernels.networks.stage1 import SMALL, Stage1


def test_one_noise_level_for_all_is_as_good_as_one_each():
    unet = Stage1(SMALL).ema
    x, ctx, vector = torch.randn(3, 3, 32, 32), torch.randn(3, 32, 8, 8), torch.randn(3, 64)
    each = unet(x, torch.full((3, 1), 0.4), ctx, vector)
    torch.testing.assert_close(unet(x, torch.full((1, 1), 0.4), ctx, vector), each, atol=1e-5, rtol=1e-5)
