"""Shifts between images: known ones are found to a fraction of a pixel, and none is claimed where nothing shows it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from difffusr.kernels.measures.registration import phase_shifts


def ground(height: int = 96, width: int = 96, seed: int = 0) -> torch.Tensor:
    """A landscape's spectrum with random phases on twice the area, (2 height, 2 width)."""
    rng = np.random.default_rng(seed)
    shape = 2 * height, 2 * width
    cycles = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    cycles[0, 0] = 1
    image = np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) / cycles).real
    return torch.from_numpy(0.2 + 0.05 * image / image.std())


def moved(image: torch.Tensor, down: float, right: float) -> torch.Tensor:
    """An image shifted by turning the phases of its spectrum."""
    rows, cols = (torch.fft.fftfreq(n, dtype=torch.float64) for n in image.shape)
    phase = -2 * torch.pi * (down * rows[:, None] + right * cols)
    return torch.fft.ifft2(torch.fft.fft2(image) * torch.polar(torch.ones_like(phase), phase)).real


def window(image: torch.Tensor) -> torch.Tensor:
    """The middle, so that a shift brings in what was outside; (1, height, width)."""
    height, width = (n // 2 for n in image.shape)
    return image[None, height // 2 : height // 2 + height, width // 2 : width // 2 + width]


@pytest.mark.parametrize(
    ("down", "right"), [(0, 0), (0.5, 0), (0, -0.5), (0.33, 0.71), (-1.37, 0.05), (2, -2), (2.4, 2.4), (-0.08, 0.02)]
)
@pytest.mark.parametrize("side", [32, 48, 96])
def test_known_shifts_are_found(down, right, side):
    image = ground(side, side)
    found = phase_shifts(window(moved(image, down, right)), window(image))
    assert float(found.down) == pytest.approx(down, abs=0.1)
    assert float(found.right) == pytest.approx(right, abs=0.1)
    assert float(found.coherence) > 0.5


@pytest.mark.parametrize(("height", "width"), [(96, 60), (48, 100), (64, 65), (33, 90)])
def test_images_need_not_be_square(height, width):
    image = ground(height, width)
    found = phase_shifts(window(moved(image, -0.6, 1.3)), window(image))
    assert float(found.down) == pytest.approx(-0.6, abs=0.1)
    assert float(found.right) == pytest.approx(1.3, abs=0.1)


@pytest.mark.parametrize(
    "altered",
    [
        lambda x: 3 * x + 1, lambda x: 1e4 * x, lambda x: 1e-3 * x, lambda x: x**2, lambda x: x.clamp_max(0.22),
        lambda x: x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype),
        lambda x: x.float(),
    ],
)  # fmt: skip
def test_brightness_contrast_and_noise_do_not_matter(altered):
    image = ground()
    found = phase_shifts(altered(window(moved(image, 0.4, -0.9))).double(), window(image))
    assert float(found.down) == pytest.approx(0.4, abs=0.1)
    assert float(found.right) == pytest.approx(-0.9, abs=0.1)


@pytest.mark.parametrize(("down", "right"), [(0.3, -0.8), (1.5, 0.2), (-2.1, 1.1)])
def test_the_other_way_round_the_shift_is_the_opposite(down, right):
    x, y = window(moved(ground(), down, right)), window(ground())
    there, back = phase_shifts(x, y), phase_shifts(y, x)
    assert float(there.down) == pytest.approx(-float(back.down), abs=1e-6)
    assert float(there.right) == pytest.approx(-float(back.right), abs=1e-6)


def test_each_image_is_compared_with_each_other_one():
    image, unlike = ground(), ground(seed=7)
    shifts = [(0, 0), (0.5, 0.5), (-1, 0.25)]
    x = torch.cat([window(moved(image, *shift)) for shift in shifts])
    y = torch.cat([window(image), window(unlike)])
    found = phase_shifts(x, y)
    assert found.down.shape == found.right.shape == found.coherence.shape == (3, 2)
    for i, (down, right) in enumerate(shifts):
        assert float(found.down[i, 0]) == pytest.approx(down, abs=0.1)
        assert float(found.right[i, 0]) == pytest.approx(right, abs=0.1)
    assert found.down[:, 1].isnan().all()
    assert (found.coherence[:, 0] > found.coherence[:, 1] + 0.3).all()


@pytest.mark.parametrize("side", [16, 24, 32, 48, 96])
@pytest.mark.parametrize("rough", [False, True])
def test_nothing_is_claimed_of_unlike_images(side, rough):
    if rough:
        x, y = (torch.randn((8, side, side), generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    else:
        x, y = (torch.cat([window(ground(side, side, seed)) for seed in seeds]) for seeds in (range(8), range(8, 16)))
    assert phase_shifts(x, y).down.isnan().all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e4, -2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_claimed_of_flat_images(value, dtype):
    flat, image = torch.full((1, 96, 96), value, dtype=dtype), window(ground())
    for x, y in itertools.permutations([flat, image, 2 * flat], 2):
        found = phase_shifts(x, y)
        assert found.down.isnan().all()
        assert found.right.isnan().all()
        assert found.coherence.isfinite().all()


@pytest.mark.parametrize(("down", "right"), [(5, 0), (0, -4), (3.4, 3.4)])
def test_nothing_is_claimed_of_shifts_beyond_the_reach(down, right):
    found = phase_shifts(window(moved(ground(), down, right)), window(ground()))
    assert found.down.isnan().all()
    assert found.right.isnan().all()
    further = phase_shifts(window(moved(ground(), down, right)), window(ground()), reach_px=6)
    assert float(further.down) == pytest.approx(down, abs=0.1)
    assert float(further.right) == pytest.approx(right, abs=0.1)


def test_of_negatives_nothing_is_claimed():
    assert phase_shifts(window(ground()), 1 - window(ground())).down.isnan().all()
