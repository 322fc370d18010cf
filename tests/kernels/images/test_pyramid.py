"""Halving an image, against the same in exact fractions."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from difffusr.kernels.images.pyramid import average_2x, mode_2x

EVEN = st.tuples(st.integers(1, 5), st.integers(1, 5)).map(lambda shape: (2 * shape[0], 2 * shape[1]))


def four(values: np.ndarray, row: int, col: int) -> list[int]:
    """The pixels that become one, by rows."""
    return values[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel().tolist()


@given(st.data(), st.sampled_from([0, 65535]))
def test_a_pixel_is_the_mean_of_what_is_valid_of_its_four(data, fill):
    near = st.sampled_from([0, 1, 2, 3, 4, 65532, 65533, 65534, 65535])
    values = data.draw(arrays(np.uint16, EVEN, elements=near))
    halved = average_2x(values[None], fill)[0]
    for row, col in np.ndindex(halved.shape):
        valid = [value for value in four(values, row, col) if value != fill]
        expected = round(Fraction(sum(valid), len(valid))) if valid else fill  # Python rounds half to even
        assert halved[row, col] == expected


def test_a_pyramid_of_many_levels_does_not_drift():
    values = np.random.default_rng(3).integers(1, 4000, (1, 1024, 1024), np.uint16)
    top = values
    for _ in range(10):
        top = average_2x(top, 0)
    assert abs(float(top[0, 0, 0]) - values.mean()) < 1


@given(st.data())
def test_a_label_is_the_most_frequent_of_those_that_count(data):
    labels = data.draw(arrays(np.uint8, EVEN, elements=st.integers(0, 3)))
    counts = data.draw(arrays(np.bool_, labels.shape))
    halved = mode_2x(labels, counts)
    for row, col in np.ndindex(halved.shape):
        of_four, counted = four(labels, row, col), four(counts, row, col)
        here = [label for label, c in zip(of_four, counted, strict=True) if c] or of_four
        assert halved[row, col] == Counter(here).most_common(1)[0][0]  # of equals the first met
