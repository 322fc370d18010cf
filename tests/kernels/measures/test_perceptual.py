"""Perceptual measures: equal images have no distance, blurred ones a large one, whatever their pixel error says."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from difffusr.kernels.measures.metrics import psnr
from difffusr.kernels.measures.perceptual import (
    fine_colour,
    laplacian_pyramid,
    radial_power_spectrum,
    sliced_wasserstein,
    spectrum_error_db,
    texture_energy,
)


@pytest.fixture(scope="module")
def texture():
    """A smooth scene with fine texture on it, (3, 96, 96)."""
    generator = torch.Generator().manual_seed(3)
    smooth = F.interpolate(torch.rand((1, 3, 8, 8), generator=generator), size=(96, 96), mode="bicubic")[0]
    return 0.2 * smooth + 0.02 * torch.randn((3, 96, 96), generator=generator)


def blurred(x):
    return F.avg_pool2d(F.pad(x[None], [2] * 4, mode="reflect"), 5, stride=1)[0]


@pytest.mark.parametrize("own_scale", [True, False])
def test_an_image_has_no_distance_from_itself(texture, own_scale):
    assert sliced_wasserstein(texture, texture, own_scale).abs().max() == 0
    assert spectrum_error_db(texture, texture) == 0


def test_other_texture_of_the_same_kind_is_nearer_than_none_although_its_pixel_error_is_larger(texture):
    generator = torch.Generator().manual_seed(4)
    smooth = blurred(texture)
    other = smooth + 0.02 * torch.randn(texture.shape, generator=generator)
    assert psnr(other, texture) < psnr(smooth, texture)
    for own_scale in (True, False):
        sample, mean = (sliced_wasserstein(x, texture, own_scale).mean() for x in (other, smooth))
        assert sample < 0.75 * mean
    assert spectrum_error_db(other, texture) < 0.3 * spectrum_error_db(smooth, texture)


def test_only_the_scaled_distance_counts_a_lack_of_contrast(texture):
    faint = texture.mean() + 0.5 * (texture - texture.mean())
    assert sliced_wasserstein(faint, texture).mean() < 0.01
    assert sliced_wasserstein(faint, texture, own_scale=False).mean() > 100


def test_the_distance_ignores_brightness_and_is_the_same_every_time(texture):
    first, again = (sliced_wasserstein(blurred(texture), texture) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.allclose(sliced_wasserstein(blurred(texture) + 0.1, texture), first)


def test_images_too_small_or_of_two_sizes_are_refused(texture):
    with pytest.raises(ValueError, match="one shape"):
        sliced_wasserstein(texture, texture[:, :90])
    with pytest.raises(ValueError, match="at least 16"):
        sliced_wasserstein(texture[:, :12], texture[:, :12])


def test_the_pyramid_adds_up_to_the_image_and_separates_scales(texture):
    pyramid = laplacian_pyramid(texture.double(), 3)
    assert [level.shape[-1] for level in pyramid] == [96, 48, 24]
    flat = laplacian_pyramid(torch.full((1, 64, 64), 0.3, dtype=torch.float64), 3)
    assert max(float(level.abs().max()) for level in flat[:-1]) < 1e-12
    assert torch.allclose(flat[-1], torch.full_like(flat[-1], 0.3))


@pytest.mark.parametrize("cycles", [4, 11, 29])
def test_a_wave_has_its_power_at_its_frequency(cycles):
    x = torch.sin(2 * torch.pi * cycles * torch.arange(64) / 64).expand(1, 64, 64)
    assert abs(int(radial_power_spectrum(x).argmax()) - cycles) <= 1


def test_white_noise_has_a_flat_spectrum():
    x = torch.randn((8, 128, 128), generator=torch.Generator().manual_seed(0))
    spectrum = radial_power_spectrum(x)[4:]
    assert float(spectrum.min() / spectrum.mean()) > 0.7
    assert float(spectrum.max() / spectrum.mean()) < 1.4


def test_texture_energy_is_nothing_where_an_image_is_flat_or_a_slope():
    assert texture_energy(torch.full((2, 32, 32), 0.4)) < 1e-6
    slope = torch.linspace(0, 1, 64).expand(1, 64, 64)
    assert texture_energy(slope[..., 8:-8]) < 0.2 * texture_energy(slope + 0.05 * torch.randn(64, 64))


@pytest.mark.parametrize(("brightness", "colour"), [(1.0, 0.0), (1.0, 0.5), (0.2, 1.0), (0.0, 1.0), (0.0, 0.0)])
def test_fine_colour_tells_colour_from_brightness(brightness, colour):
    generator = torch.Generator().manual_seed(1)
    grey = torch.randn(1, 128, 128, generator=generator)
    own = torch.randn(3, 128, 128, generator=generator)
    own = own - own.mean(0, keepdim=True)  # of variance 2/3
    power = fine_colour(0.3 + brightness * grey + colour * own)
    expected = torch.tensor([brightness**2, 2 / 3 * colour**2], dtype=torch.float64)
    torch.testing.assert_close(power, expected, rtol=0.1, atol=1e-9)


def test_fine_colour_does_not_see_what_is_coarse():
    rows = torch.arange(128)[:, None] * torch.ones(1, 128)
    wave = torch.sin(2 * math.pi * rows / 32)
    coarse = torch.stack([wave, -wave, 0 * wave])
    assert fine_colour(coarse).max() < 1e-4 * coarse.square().mean()
