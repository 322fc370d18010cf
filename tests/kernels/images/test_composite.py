"""Geometric median and medoid of several looks, against brute force and by the laws that they obey."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from difffusr.kernels.images import geomedian_weights, medoid_weights

MAKERS = {"geomedian": geomedian_weights, "medoid": medoid_weights}


def weights_of(looks: np.ndarray, clear: np.ndarray | None = None, make=geomedian_weights, **more) -> np.ndarray:
    """Weights (K, n) of looks (K, C, n)."""
    clear = np.ones((len(looks), looks.shape[2]), bool) if clear is None else clear
    made = make(torch.from_numpy(looks)[..., None], torch.from_numpy(clear)[..., None], **more)
    return made[..., 0].numpy()


def median_of(looks: np.ndarray, clear: np.ndarray | None = None, **more) -> np.ndarray:
    """(C, n)."""
    return np.einsum("kn,kcn->cn", weights_of(looks, clear, **more), looks)


def summed(looks: np.ndarray, clear: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(n,): sum of the distances of clear looks to points (C, n)."""
    return (np.linalg.norm(looks - at, axis=1) * clear).sum(axis=0)


def random_looks(count: int, pixels: int, bands: int = 10, seed: int = 0) -> np.ndarray:
    """Ground whose brightness changes from look to look, with noise: DN, and here and there cloud."""
    rng = np.random.default_rng(seed)
    ground = rng.uniform(300, 3000, (1, bands, pixels))
    looks = ground * (1 + 0.1 * rng.normal(size=(count, 1, pixels))) + 60 * rng.normal(size=(count, bands, pixels))
    looks += 5000 * (rng.random((count, 1, pixels)) < 0.1)
    return np.round(looks.clip(1))


def with_clouds(looks: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((len(looks), looks.shape[2])) >= share


def by_force(looks: np.ndarray) -> float:
    """Least sum of distances to looks (K, C), by a minimiser that starts at every look and at their mean."""

    def total(y: np.ndarray) -> float:
        return float(np.sqrt(((looks - y) ** 2).sum(axis=1) + 1e-12).sum())

    starts = [*looks, looks.mean(axis=0)]
    found = (minimize(total, start, method="BFGS", options={"gtol": 1e-10}).fun for start in starts)
    return min(*found, *(total(look) for look in looks))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("count", "bands"), [(3, 2), (4, 3), (5, 10), (8, 10), (16, 4), (7, 1)])
def test_no_point_is_nearer_to_the_looks_than_their_median(count, bands, dtype):
    looks = random_looks(count, 6, bands, seed=count)
    clear = with_clouds(looks, 0.2)
    made = weights_of(looks.astype(dtype), clear)
    assert made.dtype == dtype
    reached = summed(looks, clear, np.einsum("kn,kcn->cn", made.astype(np.float64), looks))
    for pixel in range(looks.shape[2]):
        seen = clear[:, pixel]
        if seen.any():
            least = by_force(looks[seen, :, pixel])
            assert reached[pixel] <= least * (1 + 3e-5) + 1e-3, (pixel, seen.sum())


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-5, 1e-7])
def test_the_tolerance_bounds_how_far_the_sum_of_distances_is_above_the_least(tolerance):
    looks = random_looks(6, 400)
    clear = with_clouds(looks, 0.2)
    best = summed(looks, clear, median_of(looks, clear, tolerance=1e-13, max_steps=3000))
    reached = summed(looks, clear, median_of(looks, clear, tolerance=tolerance, max_steps=3000))
    assert (reached <= best * (1 + tolerance) + 1e-9).all()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_weights_add_up_to_one_and_are_of_clear_looks_alone(make):
    looks = random_looks(6, 500)
    clear = with_clouds(looks, 0.6)
    made = weights_of(looks, clear, make)
    assert (made >= 0).all()
    assert not made[~clear].any()
    np.testing.assert_allclose(made.sum(axis=0), clear.any(axis=0), rtol=1e-12)
    assert not clear.any(axis=0).all()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("nothing", [0.0, np.nan, np.inf, 65535.0])
def test_what_a_look_holds_where_it_is_not_clear_does_not_matter(make, nothing):
    looks = random_looks(5, 300)
    clear = with_clouds(looks, 0.4)
    other = np.where(clear[:, None], looks, nothing)
    assert np.array_equal(weights_of(looks, clear, make), weights_of(other, clear, make))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_same_looks_give_the_same_weights_whatever_pixels_are_beside(make):
    looks = random_looks(7, 300)
    clear = with_clouds(looks, 0.3)
    whole = weights_of(looks, clear, make)
    assert np.array_equal(whole, weights_of(looks, clear, make))
    assert np.allclose(whole[:, 100:117], weights_of(looks[..., 100:117], clear[:, 100:117], make), atol=1e-12)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_one_look_is_itself(make):
    assert (weights_of(random_looks(1, 20), make=make) == 1).all()


def test_the_median_of_two_looks_is_their_midpoint_and_their_medoid_the_first():
    looks = random_looks(2, 50)
    assert np.allclose(weights_of(looks), 0.5)
    assert weights_of(looks, make=medoid_weights).tolist() == [[1] * 50, [0] * 50]
    clear = np.ones((5, 50), bool)
    clear[[0, 2, 3]] = False
    assert np.allclose(weights_of(random_looks(5, 50), clear)[[1, 4]], 0.5)
    assert (weights_of(random_looks(5, 50), clear, medoid_weights)[1] == 1).all()


@pytest.mark.parametrize("count", [2, 3, 6])
def test_equal_looks_share_their_weight(count):
    same = np.repeat(random_looks(1, 30), count, axis=0)
    assert np.allclose(weights_of(same), 1 / count)
    assert (weights_of(same, make=medoid_weights)[0] == 1).all()


@pytest.mark.parametrize(("copies", "others"), [(2, 1), (2, 2), (3, 2), (3, 3), (4, 3)])
def test_a_look_that_half_of_them_repeat_is_the_median(copies, others):
    looks = random_looks(1 + others, 40, seed=copies)
    looks = np.concatenate([np.repeat(looks[:1], copies, axis=0), looks[1:]])
    np.testing.assert_allclose(median_of(looks), looks[0], rtol=1e-9)


@pytest.mark.parametrize("at", [(0, 1, 5), (0, 4, 9, 10, 40), (0, 1, 5, 6), (0, 2, 7, 8, 20, 21), (3, 3, 9, 9)])
def test_on_a_line_the_median_is_the_middle_look_or_halfway_between_two(at):
    along = np.array(at, float)
    looks = 500 + along[:, None, None] * np.array([3.0, -4.0, 12.0])[None, :, None]
    middle = np.median(along)
    assert np.allclose(median_of(looks)[:, 0], 500 + middle * np.array([3, -4, 12]), atol=1e-6)


@pytest.mark.parametrize("nudge", [1e-7, 1e-4, 0.01, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_median_that_nearly_is_a_look_is_found(nudge, seed):
    """Four looks around a fifth that is a little out of balance: where plain steps creep."""
    rng = np.random.default_rng(seed)
    out = rng.normal(size=(2, 10, 8))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    looks = np.stack([0 * out[0], out[0] * 80, -out[0] * 95, out[1] * 70, -out[1] * (60 + nudge)]) + 1000
    looks[1] += nudge * rng.normal(size=out[0].shape)
    clear = np.ones((5, 8), bool)
    best = summed(looks, clear, median_of(looks, tolerance=1e-12, max_steps=3000))
    assert (summed(looks, clear, median_of(looks)) <= best * (1 + 1.01e-5)).all()


STACKS = st.integers(1, 6).flatmap(
    lambda count: st.tuples(
        arrays(np.float64, (count, 3, 4), elements=st.integers(1, 60).map(float)), arrays(np.bool_, (count, 4))
    )
)


@given(STACKS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=25)
def test_the_order_of_the_looks_does_not_matter(stack, random):
    looks, clear = stack
    order = random.sample(range(len(looks)), len(looks))
    tight = {"tolerance": 1e-8, "max_steps": 1000}
    one, other = weights_of(looks, clear, **tight), weights_of(looks[order], clear[order], **tight)
    found, again = (np.einsum("kn,kcn->cn", w, x) for w, x in ((one, looks), (other, looks[order])))
    np.testing.assert_allclose(summed(looks, clear, found), summed(looks, clear, again), rtol=3e-8, atol=1e-8)


@given(STACKS, st.integers(-3, 6), arrays(np.float64, (1, 3, 1), elements=st.integers(-500, 500).map(float)))
@settings(deadline=None, max_examples=25)
def test_moved_and_scaled_looks_have_a_moved_and_scaled_median(stack, power, shift):
    looks, clear = stack
    scaled = looks * 2.0**power + shift
    tight = {"tolerance": 1e-8, "max_steps": 1000}
    expected = summed(looks, clear, median_of(looks, clear, **tight)) * 2.0**power
    found = summed(scaled, clear, np.einsum("kn,kcn->cn", weights_of(scaled, clear, **tight), scaled))
    np.testing.assert_allclose(found, expected, rtol=3e-8, atol=1e-8)


@given(STACKS)
@settings(deadline=None, max_examples=25)
def test_the_medoid_is_the_look_nearest_to_all_others_and_of_equal_ones_the_first(stack):
    looks, clear = stack
    made = weights_of(looks, clear, medoid_weights)
    for pixel in range(looks.shape[2]):
        seen = np.flatnonzero(clear[:, pixel])
        if len(seen):
            sums = [sum(np.linalg.norm(looks[k, :, pixel] - looks[j, :, pixel]) for j in seen) for k in seen]
            first = seen[np.flatnonzero(np.array(sums) <= min(sums) * (1 + 1e-9))[0]]
            assert np.flatnonzero(made[:, pixel]).tolist() == [first]
        else:
            assert not made[:, pixel].any()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(("right", "wrong"), [(2, 1), (3, 2), (5, 4), (6, 1)])
@pytest.mark.parametrize("far", [1e3, 1e4, 6e4])
def test_less_than_half_of_wrong_looks_do_not_move_it_far(make, right, wrong, far):
    looks = np.random.default_rng(4).normal(1000, 30, (right + wrong, 10, 60))
    spoilt = looks.copy()
    spoilt[right:] += far
    found = np.einsum("kn,kcn->cn", weights_of(spoilt, make=make), spoilt)
    spread = np.linalg.norm(looks[:right] - looks[:right].mean(axis=0), axis=1).max()
    away = np.linalg.norm(found - looks[:right].mean(axis=0), axis=0)
    assert away.max() < 2 * right / (right - wrong) * spread
    assert (
        away.max() < 1.5 * np.linalg.norm(spoilt.mean(axis=0) - looks[:right].mean(axis=0), axis=0).min() or far < 2e3
    )
