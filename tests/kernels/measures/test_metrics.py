"""Quality indices: what every score of likeness must keep, and Q4 against quaternions written out."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difffusr.kernels.measures.metrics import _conjugate_products, q2n, uqi

INDICES = (uqi, q2n)


def picture(channels: int = 4, size: int = 48, seed: int = 0) -> Tensor:
    """Reflectance (C, size, size) with edges and texture, alike but not equal in all bands."""
    rng = np.random.default_rng(seed)
    common = np.kron(rng.uniform(0.1, 0.5, (1, size // 4, size // 4)), np.ones((4, 4)))
    texture = rng.normal(0, 0.02, (channels, size, size))
    return torch.from_numpy(common * rng.uniform(0.5, 1.5, (channels, 1, 1)) + texture)


def noisy(image: Tensor, level: float) -> Tensor:
    return image + level * torch.randn(image.shape, generator=torch.Generator().manual_seed(1), dtype=image.dtype)


def hamilton(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The product of quaternions (..., 4), real part first, by i² = j² = k² = ijk = −1."""
    a, b, c, d = np.moveaxis(p, -1, 0)
    e, f, g, h = np.moveaxis(q, -1, 0)
    return np.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ],
        -1,
    )


def q4_written_out(x: np.ndarray, y: np.ndarray) -> float:
    """Q4 of one block (4, H, W), one quaternion a pixel."""
    z, v = (image.reshape(4, -1).T for image in (x, y))  # (pixels, 4)
    conjugate = np.array([1, -1, -1, -1])
    z_mean, v_mean = z.mean(0), v.mean(0)
    covariance = hamilton(z, v * conjugate).mean(0) - hamilton(z_mean, v_mean * conjugate)
    z_var, v_var = ((q * q).sum(1).mean() - (m * m).sum() for q, m in ((z, z_mean), (v, v_mean)))
    z_norm, v_norm = np.linalg.norm(z_mean), np.linalg.norm(v_mean)
    size = np.linalg.norm(covariance)
    return float(4 * size * z_norm * v_norm / ((z_var + v_var) * (z_norm**2 + v_norm**2)))


def uqi_written_out(x: np.ndarray, y: np.ndarray) -> float:
    covariance = np.cov(x.ravel(), y.ravel())
    mx, my = x.mean(), y.mean()
    return float(4 * covariance[0, 1] * mx * my / ((covariance[0, 0] + covariance[1, 1]) * (mx**2 + my**2)))


def test_q4_is_the_quaternions() -> None:
    x, y = picture(seed=1, size=32), picture(seed=2, size=32)
    assert float(q2n(x, y)) == pytest.approx(q4_written_out(x.numpy(), y.numpy()), rel=1e-10)
    x, y = picture(size=24), noisy(picture(size=24), 0.05)
    blocks = [(slice(r, r + 8), slice(c, c + 8)) for r in (0, 8, 16) for c in (0, 8, 16)]
    expected = np.mean([q4_written_out(x[(..., *b)].numpy(), y[(..., *b)].numpy()) for b in blocks])
    assert float(q2n(x, y, block=8, shift=8)) == pytest.approx(expected, rel=1e-10)


def test_three_bands_are_four_with_one_of_zeros() -> None:
    x, y = picture(3), noisy(picture(3), 0.05)
    zeros = torch.zeros_like(x[:1])
    assert float(q2n(x, y)) == pytest.approx(float(q2n(torch.cat([x, zeros]), torch.cat([y, zeros]))), rel=1e-12)


def test_uqi_is_its_formula_in_every_window() -> None:
    x, y = picture(2, 12), noisy(picture(2, 12), 0.05)
    windows = [(c, slice(i, i + 8), slice(j, j + 8)) for c in range(2) for i in range(5) for j in range(5)]
    expected = np.mean([uqi_written_out(x[w].numpy(), y[w].numpy()) for w in windows])
    assert float(uqi(x, y)) == pytest.approx(expected, rel=1e-9)


def test_one_band_makes_q2n_the_uqi_of_the_same_blocks() -> None:
    x, y = picture(1, 96), noisy(picture(1, 96), 0.02)
    assert float(q2n(x, y)) == pytest.approx(float(uqi(x, y, window=32, shift=32)), rel=1e-9)


def test_two_bands_make_q2n_a_complex_correlation() -> None:
    x, y = picture(2, 32), noisy(picture(2, 32), 0.05)
    z, v = ((image[0] + 1j * image[1]).numpy().ravel() for image in (x, y))
    covariance = abs(((z - z.mean()) * (v - v.mean()).conj()).mean())
    level = abs(z.mean()) * abs(v.mean()) / (abs(z.mean()) ** 2 + abs(v.mean()) ** 2)
    assert float(q2n(x, y)) == pytest.approx(4 * covariance * level / (z.var() + v.var()), rel=1e-10)


@pytest.mark.parametrize("bands", [2, 4, 8])
def test_hypercomplex_lengths_multiply_up_to_eight_bands(bands: int) -> None:
    # |p q*| = |p| |q| holds for complex numbers, quaternions and octonions, and for no longer ones
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(2, bands))
    product = np.einsum("i,j,ijk->k", p, q, _conjugate_products(bands).numpy())
    assert np.linalg.norm(product) == pytest.approx(np.linalg.norm(p) * np.linalg.norm(q), rel=1e-12)


@pytest.mark.parametrize("bands", [2, 4, 12, 16])
def test_a_hypercomplex_number_times_its_own_conjugate_is_its_squared_length(bands: int) -> None:
    p = np.random.default_rng(0).normal(size=bands)
    product = np.einsum("i,j,ijk->k", p, p, _conjugate_products(bands).numpy())
    np.testing.assert_allclose(product, [p @ p] + [0] * (len(product) - 1), atol=1e-12)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("shape", [(1, 64, 64), (4, 40, 70), (12, 33, 32), (2, 5, 6), (2, 3, 4, 32, 32), (3, 1, 1)])
def test_equal_images_score_one(index, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    score = index(x, x)
    assert score.shape == ()
    assert score.dtype == torch.float64
    assert float(score) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("level", [0.0, 0.3, 3000.0])
def test_equal_constant_images_score_one(index, level: float) -> None:
    x = torch.full((3, 40, 40), level)
    assert float(index(x, x)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("index", INDICES)
def test_unequal_constant_images_are_judged_by_their_level(index) -> None:
    x, y = torch.full((1, 40, 40), 0.2), torch.full((1, 40, 40), 0.4)
    assert float(index(x, y)) == pytest.approx(2 * 0.2 * 0.4 / (0.2**2 + 0.4**2), rel=1e-6)


@pytest.mark.parametrize("index", INDICES)
def test_texture_against_none_scores_nothing(index) -> None:
    x = picture(2)
    assert abs(float(index(x, torch.full_like(x, 0.3)))) < 1e-9


@pytest.mark.parametrize("index", INDICES)
def test_more_noise_or_blur_scores_less(index) -> None:
    truth = picture(4, 64)
    by_noise = [float(index(noisy(truth, level), truth)) for level in (0.0, 0.01, 0.05, 0.2)]
    by_blur = [float(index(blurred(truth, side), truth)) for side in (1, 3, 5, 9)]
    for scores in (by_noise, by_blur):
        assert all(a > b for a, b in pairwise(scores))


def blurred(image: Tensor, side: int) -> Tensor:
    return torch.nn.functional.avg_pool2d(image, side, stride=1, padding=side // 2, count_include_pad=False)


@pytest.mark.parametrize("index", INDICES)
def test_a_change_of_level_or_of_contrast_costs(index) -> None:
    truth = picture()
    assert float(index(truth + 0.1, truth)) < 0.99
    assert float(index(truth * 1.2, truth)) < 0.99


def test_uqi_of_a_picture_turned_negative_is_negative_and_q2n_is_not() -> None:
    truth = picture(1)
    assert float(uqi(1 - truth, truth)) < 0
    assert 0 < float(q2n(1 - truth, truth)) < 1


def test_q2n_sees_a_change_of_colour_that_uqi_of_each_band_sees_as_well() -> None:
    truth = picture()
    swapped = truth[[1, 0, 3, 2]]
    assert float(q2n(swapped, truth)) < 0.995


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bands=st.integers(1, 8),
    scale=st.floats(1e-3, 1e4),
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_scores_stay_in_bounds_do_not_mind_units_and_treat_both_images_alike(seed, bands, scale, sides) -> None:
    x, y = torch.rand(2, bands, *sides, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for index, lowest in ((uqi, -1.0), (q2n, 0.0)):
        score = float(index(x, y))
        assert lowest - 1e-9 <= score <= 1 + 1e-9
        assert float(index(scale * x, scale * y)) == pytest.approx(score, abs=1e-8)
        assert float(index(y, x)) == pytest.approx(score, abs=1e-8)


def test_blocks_reach_the_edge_of_an_image_that_is_no_multiple_of_them() -> None:
    truth = picture(2, 48)
    spoiled = truth.clone()
    spoiled[:, -4:] = spoiled[:, -4:].flip(-1)
    assert float(q2n(spoiled, truth)) < 0.9999
    assert float(uqi(spoiled, truth, window=32, shift=32)) < 0.9999


def test_a_batch_scores_the_mean_of_its_images() -> None:
    x, y = torch.stack([picture(seed=1), picture(seed=2)]), torch.stack([picture(seed=3), noisy(picture(seed=2), 0.05)])
    for index in INDICES:
        singles = [float(index(a, b)) for a, b in zip(x, y, strict=True)]
        assert float(index(x, y)) == pytest.approx(reduce(float.__add__, singles) / 2, rel=1e-9)
