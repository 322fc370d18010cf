"""The diffusion network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from difffusr.kernels.measures import grid_power
from difffusr.kernels.networks.stage1 import SMALL, Stage1
from difffusr.kernels.networks.unet import DiffusionUNet


def test_one_noise_level_for_all_is_as_good_as_one_each():
    unet = Stage1(SMALL).ema
    x, ctx, vector = torch.randn(3, 3, 32, 32), torch.randn(3, 32, 8, 8), torch.randn(3, 64)
    each = unet(x, torch.full((3, 1), 0.4), ctx, vector)
    torch.testing.assert_close(unet(x, torch.full((1, 1), 0.4), ctx, vector), each, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("fold", "channels", "taps_seed"), [(4, 3, 0), (2, 3, 1), (4, 1, 2), (8, 2, 3), (3, 4, 4)])
def test_no_pixel_of_a_fold_stands_out_once_the_weights_are_evened_out(fold, channels, taps_seed):
    torch.manual_seed(taps_seed)
    unet = DiffusionUNet(
        channels, 16, (1, 2), 1, (), fold, 4, ctx_channels=8, degradation_dim=8, kernel_dim=8, even_phases=True
    ).requires_grad_(False)
    torch.nn.init.normal_(unet.final_conv.conv.bias)
    side = fold * 64
    inputs = torch.zeros(1, channels, side, side), torch.ones(1, 1), torch.rand(1, 8, 1, 1).expand(1, 8, 64, 64)
    inner = slice(28 * fold, -28 * fold)

    def spread() -> torch.Tensor:
        """Of flat inputs, away from edges: how much the result differs within a fold."""
        out = unet(*inputs, torch.ones(1, 8))[0, :, inner, inner]
        return (out - out.mean((1, 2), keepdim=True)).abs().max()

    assert spread() > 0.05
    unet.even_out()
    assert spread() < 1e-4
    before = unet.final_conv.conv.weight.clone()
    unet.even_out()
    torch.testing.assert_close(unet.final_conv.conv.weight, before, atol=1e-6, rtol=0)


def test_published_networks_are_left_as_they_are():
    unet = DiffusionUNet(3, 16, (1, 2), 1, (), 4, 4, ctx_channels=8, degradation_dim=8, kernel_dim=8)
    before = {name: x.clone() for name, x in unet.state_dict().items()}
    unet.even_out()
    assert all(torch.equal(x, before[name]) for name, x in unet.state_dict().items())


def test_a_network_with_any_weights_draws_no_grid_once_it_is_evened_out():
    torch.manual_seed(3)
    stage1 = Stage1(SMALL)
    lr = 0.1 + 0.03 * torch.rand(1, 3, 64, 64)
    noise = torch.randn(1, 3, 256, 256)
    final = stage1.ema.final_conv.conv
    torch.nn.init.normal_(final.weight, std=0.05)
    shares = []
    for _ in range(2):
        rest = stage1.sample_multistep(lr, noise, 3)[0] - stage1.deterministic(lr)[0]
        shares.append(grid_power(rest, periods=(4,)).share(4).max())
        stage1.ema.even_out()
    assert shares[0] > 0.01
    assert shares[1] < 0.003


@pytest.mark.parametrize("kept", [0.0, 0.25, 0.5, 1.0])
def test_colour_of_what_is_invented_is_damped_and_its_brightness_is_not(kept):
    torch.manual_seed(4)
    stage1 = Stage1(replace(SMALL, diffusion=replace(SMALL.diffusion, chroma=1.0)))
    damped = Stage1(replace(SMALL, diffusion=replace(SMALL.diffusion, chroma=kept)))
    damped.load_state_dict(stage1.state_dict())
    lr, noise = 0.1 + 0.03 * torch.rand(1, 3, 16, 16), torch.randn(1, 3, 64, 64)
    base = stage1.deterministic(lr)
    whole, less = (one.sample_multistep(lr, noise, 2) - base for one in (stage1, damped))
    grey = whole.mean(1, keepdim=True)
    torch.testing.assert_close(less.mean(1, keepdim=True), grey, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(less - grey, kept * (whole - grey), atol=1e-5, rtol=1e-4)
