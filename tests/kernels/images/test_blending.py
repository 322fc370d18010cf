"""Blending rectangle by rectangle against the plain sums over every pixel of every chip: the same, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from plain_blending import PlainBlend

from difffusr.kernels.images.blending import WEIGHT_ONE, Layer, blend, chip_window

Blended = tuple[NDArray[np.uint16], list[NDArray[np.uint16]]]


def blended(
    layers: Sequence[Layer], window: NDArray[np.int64], shape: tuple[int, int], labels: int, fill: int = 0
) -> Blended:
    """A target that held something else before."""
    values = np.full((3, *shape), 777, np.uint16)
    targets = [np.full(shape, 77, np.uint16) for _ in range(labels)]
    blend(layers, window, values, targets, fill)
    return values, targets


def plainly(
    layers: Sequence[Layer], window: NDArray[np.int64], shape: tuple[int, int], labels: int, fill: int = 0
) -> Blended:
    sums = PlainBlend.empty(3, labels, *shape)
    for layer in layers:
        factor = layer.values.shape[1] // layer.valid.shape[0]
        fine = [array.repeat(factor, axis=0).repeat(factor, axis=1) for array in (layer.valid, *layer.labels)]
        marks = np.array(fine[1:], np.uint16).reshape(labels, *window.shape)
        sums.add(layer.values, marks, window, fine[0], layer.at, layer.rank)
    values, marks = sums.result()
    values[:, sums.weight == 0] = fill
    return values, list(marks)


def a_layer(
    rng: np.random.Generator, size: int, factor: int, at: tuple[int, int], rank: int, holes: float, labels: int
) -> Layer:
    coarse = size // factor, size // factor
    # The greatest values and the equal ones are where sums overflow and rounding shows.
    values = rng.choice(np.array([0, 1, 2, 9_999, 65_534, 65_535], np.uint16), (3, size, size))
    marks = [rng.integers(0, 9, coarse).astype(np.uint16) for _ in range(labels)]
    return Layer(values, marks, rng.random(coarse) >= holes, at, rank)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    factor=st.sampled_from([1, 2, 4]),
    margin=st.integers(0, 3),
    ramp=st.integers(1, 8),
    count=st.integers(0, 9),
    holes=st.sampled_from([0.0, 0.0, 0.1, 0.9]),
    labels=st.integers(0, 2),
    fill=st.sampled_from([0, 65_535]),
)
def test_chips_anywhere_blend_as_plain_sums_do(seed, factor, margin, ramp, count, holes, labels, fill):
    rng = np.random.default_rng(seed)
    size, shape = 24, (int(rng.integers(1, 70)), int(rng.integers(1, 70)))
    window = chip_window(size, min(ramp + 2 * margin, size // 2), margin if ramp + 2 * margin <= size // 2 else 0)
    layers = [
        a_layer(rng, size, factor, (int(rng.integers(-30, 75)), int(rng.integers(-30, 75))), rank, holes, labels)
        for rank in range(count)
    ]
    layers = [layers[i] for i in rng.permutation(count)]
    values, marks = blended(layers, window, shape, labels, fill)
    expected, expected_marks = plainly(layers, window, shape, labels, fill)
    assert np.array_equal(values, expected)
    assert np.array_equal(marks, expected_marks)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    holes=st.sampled_from([0.0, 0.0, 0.02, 0.5]),
    gaps=st.sampled_from([0.0, 0.0, 0.4]),
    factor=st.sampled_from([1, 4]),
)
def test_the_chips_of_a_lattice_blend_as_plain_sums_do(seed, holes, gaps, factor):
    """As the assembly has them: whole rectangles of one chip, of two and of four, the target cut out anywhere."""
    rng = np.random.default_rng(seed)
    size, overlap, margin = 48, 12, 2
    window = chip_window(size, overlap, margin)
    row, col = rng.integers(-size, 0, 2).tolist()
    places = [(row + 36 * i, col + 36 * j) for i in range(4) for j in range(4)]
    layers = [a_layer(rng, size, factor, at, rank, holes, 1) for rank, at in enumerate(places) if rng.random() >= gaps]
    values, marks = blended(layers, window, (90, 101), 1)
    expected, expected_marks = plainly(layers, window, (90, 101), 1)
    assert np.array_equal(values, expected)
    assert np.array_equal(marks, expected_marks)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_many_chips_of_full_weight_on_one_spot_do_not_overflow(count):
    """Twice the full weight is what 32 bits hold; more must find more of them."""
    window = np.full((4, 4), WEIGHT_ONE, np.int64)
    layers = [Layer(np.full((3, 4, 4), 65_535, np.uint16), (), np.ones((4, 4), bool), (0, 0), i) for i in range(count)]
    values, _ = blended(layers, window, (4, 4), 0)
    assert (values == 65_535).all()


def test_half_way_between_two_values_is_rounded_up():
    window = np.full((2, 2), WEIGHT_ONE, np.int64)
    layers = [Layer(np.full((3, 2, 2), value, np.uint16), (), np.ones((2, 2), bool), (0, 0), value) for value in (7, 8)]
    assert (blended(layers, window, (2, 2), 0)[0] == 8).all()


def test_labels_follow_the_heavier_chip_and_the_lower_rank_among_equals():
    window = chip_window(8, 4, 0)
    left, right = (
        Layer(np.ones((3, 8, 8), np.uint16), [np.full((8, 8), mark, np.uint16)], np.ones((8, 8), bool), at, rank)
        for mark, at, rank in ((1, (0, 0), 1), (2, (0, 4), 0))
    )
    marks = blended([left, right], window, (8, 12), 1)[1][0][4]
    assert marks.tolist() == [1] * 6 + [2] * 6
    on_top = Layer(left.values, right.labels, left.valid, left.at, 0)
    assert (blended([left, on_top], window, (8, 8), 1)[1][0] == 2).all()
    assert (blended([on_top, left], window, (8, 8), 1)[1][0] == 2).all()


@given(size=st.integers(40, 200), share=st.floats(0.05, 0.5), margin=st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_windows_of_neighbours_add_up_to_one(size, share, margin):
    overlap = max(int(size * share), 2 * margin + 1)
    if overlap >= size // 2:  # no row has full weight
        return
    w = chip_window(size, overlap, margin)[size // 2]
    inner = slice(size - overlap, size)
    assert np.abs(w[inner] + w[:overlap] - WEIGHT_ONE).max() <= 1
    assert (w[:margin] == 0).all()


def _scattered_chips(rng, count=9, size=48):
    for rank in range(count):
        at = tuple(rng.integers(-30, 80, 2).tolist())
        values = rng.integers(1, 65535, (3, size, size)).astype(np.uint16)
        marks = rng.integers(0, 9, (2, size, size)).astype(np.uint16)
        valid = rng.random((size, size)) > 0.2
        yield Layer(values, marks, valid, at, rank)


def _blended(layers, window, shape, labels):
    values, marks = np.empty((layers[0].values.shape[0], *shape), np.uint16), np.empty((labels, *shape), np.uint16)
    blend(layers, window, values, list(marks))
    return values, marks


def test_chips_blended_in_any_order_give_the_same_array():
    rng = np.random.default_rng(5)
    chips, window = list(_scattered_chips(rng)), chip_window(48, 16, 2)
    results = [_blended([chips[i] for i in rng.permutation(len(chips))], window, (96, 96), 2) for _ in range(6)]
    for values, labels in results[1:]:
        assert np.array_equal(values, results[0][0])
        assert np.array_equal(labels, results[0][1])


def test_blending_equal_chips_changes_nothing_and_invalid_pixels_stay_empty():
    window = chip_window(48, 12, 2)
    world = np.random.default_rng(0).integers(1, 20_000, (2, 48, 84)).astype(np.uint16)
    valid = np.ones((48, 84), bool)
    valid[20:24, 40:44] = False
    layers = [
        Layer(world[:, :, col : col + 48], (), valid[:, col : col + 48], (0, col), rank)
        for rank, col in enumerate((0, 36))
    ]
    values, _ = _blended(layers, window, (48, 84), 0)
    inner = np.s_[2:-2, 2:-2]
    expected = np.where(valid, world, 0)
    assert np.array_equal(values[(slice(None), *inner)], expected[(slice(None), *inner)])
