"""Only pixels whose whole neighbourhood shows one scene are compared with it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from difffusr.pipeline.readers.fidelity import erode


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24)), st.integers(1, 6))
def test_a_pixel_stays_if_all_pixels_within_reach_are_true(mask: NDArray[np.bool_], reach: int) -> None:
    rows, cols = mask.shape
    padded = np.pad(mask, reach)
    side = 2 * reach + 1
    expected = [[padded[row : row + side, col : col + side].all() for col in range(cols)] for row in range(rows)]
    np.testing.assert_array_equal(erode(mask, reach), np.array(expected))


def test_pixels_beyond_the_edge_are_false() -> None:
    whole = np.ones((9, 7), bool)
    expected = np.zeros_like(whole)
    expected[2:-2, 2:-2] = True
    np.testing.assert_array_equal(erode(whole, 2), expected)
