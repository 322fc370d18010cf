"""Statistics of reflectance are those of the pixels with data."""

from __future__ import annotations

import numpy as np
from reported_cubes import HOLDS, REFLECTANCE

from difffusr.kernels.bands import BANDS


def test_figures_of_reflectance_are_those_of_the_pixels_that_hold_data(told):
    bands = told.periods[0].survey.bands
    values = REFLECTANCE[:, HOLDS] * 1e-4
    assert bands.pixels == HOLDS.sum()
    np.testing.assert_allclose(bands.mean, values.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(bands.std, values.std(axis=1), rtol=1e-6)
    np.testing.assert_allclose(bands.zeros, (values == 0).mean(axis=1))
    assert bands.zeros[3] > 0
    np.testing.assert_allclose(bands.share_above(1.0), (REFLECTANCE[:, HOLDS] > 10_000).mean(axis=1))
    assert bands.share_above(1.0)[9] > 0
    for percent in (1, 50, 99):
        expected = np.percentile(values, percent, axis=1, method="inverted_cdf")
        np.testing.assert_allclose(bands.percentile(percent), expected, atol=1e-12)
    edges = np.linspace(0, 0.6, 61)
    expected = np.stack([np.histogram(REFLECTANCE[i, HOLDS], np.round(edges * 1e4))[0] for i in range(len(BANDS))])
    # NumPy's last bin includes its upper edge.
    np.testing.assert_allclose(bands.histogram(edges)[:, :-1], expected[:, :-1] / HOLDS.sum())
