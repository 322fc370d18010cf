"""Gridness: a pattern that repeats is seen with its power, whatever it lies on; texture and noise are none."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from beside import SHARED
from PIL import Image

from difffusr.kernels.measures.gridness import PERIODS, grid_power

#: Share of white noise that is finer than 1/8 cycle a pixel.
FINE_OF_NOISE = 1 - np.pi / 64

GRID = torch.tensor([[3.0, -1, 0, -2], [1, 0, -1, 0], [-2, 1, 2, -1], [0, 0, 1, -1]], dtype=torch.float64) / 1000


def noise(*shape: int, sigma: float = 0.01, seed: int = 0) -> torch.Tensor:
    return sigma * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def laid(pattern: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A pattern repeated to (1, height, width)."""
    rows, cols = -(-height // pattern.shape[0]), -(-width // pattern.shape[1])
    return pattern.repeat(rows, cols)[None, :height, :width]


def wave(n: int, down: float, across: float) -> torch.Tensor:
    """A sinusoid of amplitude 1 with so many cycles a pixel, (1, n, n)."""
    place = torch.arange(n, dtype=torch.float64)
    return torch.cos(2 * torch.pi * (down * place[:, None] + across * place) + 0.4)[None]


@cache
def ground(n: int = 512, seed: int = 1) -> torch.Tensor:
    """Fields with sharp edges in all directions and a texture that falls off as that of landscapes, (1, n, n)."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:n, :n]
    fields = n * n // 5000 + 2
    apart = [(rows - row) ** 2 + (cols - col) ** 2 for row, col in rng.uniform(0, n, (fields, 2))]
    image = rng.uniform(0.03, 0.3, fields)[np.argmin(apart, axis=0)]
    cycles = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n))
    cycles[0, 0] = 1
    texture = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n))) / cycles**1.2).real
    return torch.from_numpy(image + 0.01 * texture / texture.std())[None]


@pytest.mark.parametrize(("height", "width"), [(256, 256), (256, 512), (300, 256), (192, 192), (120, 120)])
def test_noise_has_none_in_the_mean(height, width):
    shares = [grid_power(noise(4, height, width, seed=seed)) for seed in range(4)]
    pooled = sum(shares[1:], shares[0])
    for i, period in enumerate(PERIODS):
        if pooled.inside[i].isnan().any():
            assert min(height, width) < 8 * period
            continue
        assert abs(float(pooled.inside[i].sum() / pooled.fine.sum())) < 4e-3, period


@pytest.mark.parametrize("grid", [GRID, GRID.T, GRID[:, :1].repeat(1, 4), GRID[:2, :2].repeat(2, 2)])
@pytest.mark.parametrize("size", [256, 512, 300, 100])
def test_a_grid_on_noise_has_its_share_and_its_amplitude(grid, size):
    sigma, grid = 0.004, grid - grid.mean()
    found = grid_power(0.2 + noise(1, size, size, sigma=sigma) + laid(grid, size, size))
    power = float(grid.square().mean())
    assert float(found.share(4)) == pytest.approx(power / (power + FINE_OF_NOISE * sigma**2), rel=0.1, abs=0.015)
    assert float(found.amplitude(4)) == pytest.approx((2 * power) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("down", "across", "period"),
    [
        (1 / 4, 0, 4), (1 / 2, 1 / 4, 4), (1 / 4, -1 / 2, 4), (0, 3 / 4, 4),
        (1 / 8, 1 / 8, 8), (3 / 8, 0, 8), (1 / 8, 1 / 4, 8), (0, 3 / 8, 8),
        (5 / 24, 0, 24), (1 / 24, 1 / 4, 24), (7 / 24, 11 / 24, 24), (1 / 24, 1 / 3, 24),
    ],
)  # fmt: skip
def test_each_line_counts_for_one_period(down, across, period):
    found = grid_power(noise(1, 512, 512, sigma=0.002) + 0.005 * wave(512, down, across))
    share = 0.005**2 / 2 / (0.005**2 / 2 + FINE_OF_NOISE * 0.002**2)
    for other in PERIODS:
        assert float(found.share(other)) == pytest.approx(share if other == period else 0, abs=0.015)
    assert float(found.amplitude(period)) == pytest.approx(0.005, rel=0.02)


@pytest.mark.parametrize("cycles", [0.2, 0.23, 0.27, 0.31, 1 / 3, 0.41, 1 / 5, 1 / 7])
def test_waves_of_other_lengths_are_no_grid(cycles):
    found = grid_power(noise(1, 512, 512, sigma=0.002) + 0.01 * wave(512, cycles, 0))
    assert float(found.share(4)) < 0.002


@pytest.mark.parametrize(
    "turned",
    [
        lambda x: x.rot90(1, (1, 2)), lambda x: x.rot90(2, (1, 2)), lambda x: x.transpose(1, 2),
        lambda x: x.flip(1), lambda x: x.flip(2), lambda x: x.roll((1, 3), (1, 2)),
    ],
)  # fmt: skip
def test_turns_and_shifts_do_not_matter(turned):
    image = ground() + laid(GRID, 512, 512)
    before, after = grid_power(image), grid_power(turned(image))
    assert float(after.share(4)) == pytest.approx(float(before.share(4)), rel=0.05)
    assert float(after.amplitude(4)) == pytest.approx(float(before.amplitude(4)), rel=0.03)


@pytest.mark.parametrize(("gain", "offset"), [(1e4, 0), (1e-3, 0), (1, 7), (-1, 1), (255, -3)])
def test_the_share_does_not_know_units_and_the_amplitude_is_in_them(gain, offset):
    image = ground(256) + laid(GRID, 256, 256)
    before, after = grid_power(image), grid_power(gain * image + offset)
    for period in PERIODS:
        assert float(after.share(period)) == pytest.approx(float(before.share(period)), rel=1e-6, abs=1e-9)
    assert float(after.amplitude(4)) == pytest.approx(abs(gain) * float(before.amplitude(4)), rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_a_grid_is_seen_on_ground_which_has_none(seed):
    image = ground(seed=seed)
    bare, woven = grid_power(image), grid_power(image + laid(2 * GRID, 512, 512))
    assert float(bare.share(4)) < 0.001
    assert float(woven.share(4)) > 0.02
    assert float(woven.amplitude(4)) == pytest.approx(2 * float(2 * GRID.var(correction=0)) ** 0.5, rel=0.1)


def test_a_grid_that_contents_modulate_is_seen():
    strength = 1 + 0.8 * wave(512, 1 / 200, 1 / 130)
    plain = grid_power(noise(1, 512, 512, sigma=0.003) + laid(GRID, 512, 512))
    modulated = grid_power(noise(1, 512, 512, sigma=0.003) + strength * laid(GRID, 512, 512))
    assert float(modulated.share(4)) > float(plain.share(4))  # its power is 1 + 0.8² / 2 of the other's


def test_channels_are_told_apart():
    image = torch.cat([ground(), ground() + laid(GRID, 512, 512), 2 * ground(seed=3)])
    share = grid_power(image).share(4)
    assert share[1] > 0.005 > 5 * max(share[0], share[2])


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1e4, -5.0, 1 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_has_none(value, dtype):
    found = grid_power(torch.full((2, 256, 300), value, dtype=dtype))
    assert found.tiles
    for period in PERIODS:
        assert found.share(period).tolist() == [0, 0]
        assert found.amplitude(period).tolist() == [0, 0]


@pytest.mark.parametrize("fill", [0.0, torch.nan, torch.inf, 65535.0])
def test_what_is_missing_is_not_looked_at(fill):
    image = ground() + laid(GRID, 512, 512)
    valid = torch.ones(512, 512, dtype=torch.bool)
    valid[:256, :200] = False  # most of the first tile
    valid[400:404, 300:320] = False  # 0.1 % of the last
    holed = torch.where(valid, image, fill)
    found = grid_power(holed, valid)
    assert found.tiles == 3
    rest = grid_power(image[:, :256, 256:]) + grid_power(image[:, 256:, :])
    assert float(found.share(4)) == pytest.approx(float(rest.share(4)), rel=0.05)


@pytest.mark.parametrize("gap", [torch.nan, torch.inf])
def test_pixels_that_are_not_finite_are_missing(gap):
    image = (ground(256) + laid(GRID, 256, 256)).clone()
    whole = grid_power(image)
    image[0, 30, 40] = gap
    assert float(grid_power(image).share(4)) == pytest.approx(float(whole.share(4)), rel=0.1)


@pytest.mark.parametrize(("height", "width"), [(0, 40), (3, 300), (20, 20), (31, 200)])
def test_of_images_too_small_nothing_is_known(height, width):
    found = grid_power(noise(2, height, width))
    assert found.share(4).isnan().all()
    assert found.amplitude(4).isnan().all()


def test_without_a_whole_tile_nothing_is_known_and_nothing_is_added():
    nothing = grid_power(noise(2, 256, 256), torch.zeros(256, 256, dtype=torch.bool))
    something = grid_power(noise(2, 256, 256) + laid(GRID, 256, 256))
    assert nothing.tiles == 0
    assert nothing.share(4).isnan().all()
    for both in (nothing + something, something + nothing):
        torch.testing.assert_close(both.share(4), something.share(4))
    assert (nothing + nothing).share(24).isnan().all()


def test_images_are_added_by_power():
    strong, faint = ground() + laid(GRID, 512, 512), 0.01 * ground(seed=2)
    both = grid_power(strong) + grid_power(faint)
    assert float(both.share(4)) == pytest.approx(float(grid_power(strong).share(4)), rel=0.01)
    assert both.tiles == 8


def test_folding_shows_and_smooth_enlargement_does_not():
    coarse = ground(128)[None]
    smooth = F.interpolate(coarse, scale_factor=4, mode="bicubic", align_corners=False)[0]
    folded = smooth + 0.02 * coarse[0].std() * laid(GRID / GRID.std(), 512, 512)
    assert float(grid_power(smooth).share(4)) < 0.005 < 0.05 < float(grid_power(folded).share(4))


@pytest.mark.parametrize("name", ["naip_40.22553_-88.83215", "naip_42.68861_-91.29193", "naip_37.22922_-86.89366"])
def test_aerial_imagery_has_less_than_half_a_percent(name):
    path = SHARED / "data" / "hr" / "naip_midwest" / f"{name}.jpg"
    if not path.exists():
        pytest.skip(f"no aerial imagery: {path} is not there")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = torch.from_numpy(np.asarray(Image.open(path), dtype=np.float32) / 255).permute(2, 0, 1)[:, :512, :512]
    bare = grid_power(image)
    assert bare.share(4).max() < 0.005
    woven = grid_power(image + 0.25 * image.std() * laid(GRID / GRID.std(), *image.shape[-2:]))
    assert woven.share(4).min() > 0.02
