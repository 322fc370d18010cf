"""Blur and reduction in one step give what they give one after the other."""

from __future__ import annotations

import math

import pytest
import torch

from difffusr.kernels.images.degradation import bicubic_downsample, blur, blur_and_reduce, gaussian_kernels


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(3, 2, 3), (2, 1), (1, 4)])
def test_one_step_gives_what_two_give_away_from_the_edges(factor: int, shape: tuple[int, ...]):
    generator = torch.Generator().manual_seed(factor)
    image = torch.rand((*shape, 16 * factor, 12 * factor + 2 * factor), generator=generator)
    sigma, angle = torch.rand((2, shape[0]), generator=generator) * 3.8 + 0.2, torch.rand(shape[0]) * math.pi
    kernels = gaussian_kernels(*sigma, angle)
    one, two = blur_and_reduce(image, kernels, factor), bicubic_downsample(blur(image, kernels), factor)
    assert one.shape == two.shape
    torch.testing.assert_close(one[..., 2:-2, 2:-2], two[..., 2:-2, 2:-2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.2, 1.0])
def test_an_even_image_stays_even_up_to_its_edges(value: float):
    kernels = gaussian_kernels(torch.tensor([4.0]), torch.tensor([0.2]), torch.tensor([0.7]))
    reduced = blur_and_reduce(torch.full((1, 3, 48, 48), value), kernels, 4)
    torch.testing.assert_close(reduced, torch.full((1, 3, 12, 12), value))
