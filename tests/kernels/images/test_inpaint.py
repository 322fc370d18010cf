"""Pixels without data are filled from around them before a network sees them."""

from __future__ import annotations

import torch

from difffusr.kernels.images.inpaint import fill_invalid


def test_filled_pixels_continue_their_surroundings():
    x = torch.full((1, 2, 37, 50), 0.3)
    valid = torch.ones(1, 1, 37, 50, dtype=torch.bool)
    valid[..., 10:, 20:] = False
    holed = torch.where(valid, x, torch.nan).nan_to_num(0.0)
    filled = fill_invalid(holed, valid)
    assert torch.allclose(filled, x, atol=1e-6)
    for fill in (torch.nan, torch.inf, -9999.0):  # whatever stands for no data
        assert torch.equal(fill_invalid(torch.where(valid, x, fill), valid), filled)
    assert torch.equal(fill_invalid(x, torch.ones_like(valid)), x)
