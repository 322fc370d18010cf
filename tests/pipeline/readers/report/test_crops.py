"""Pictures show clear ground before and after."""

from __future__ import annotations

import numpy as np
from reported_cubes import QUALITY, REFLECTANCE, WINDOW

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.ground.pixels import Quality


def test_pictures_show_clear_ground_and_its_average(told):
    crops = told.periods[0].crops
    assert crops
    for crop in crops:
        rows = slice(crop.window.row - WINDOW.row, crop.window.row_stop - WINDOW.row)
        cols = slice(crop.window.col - WINDOW.col, crop.window.col_stop - WINDOW.col)
        order = [BANDS.index(band) for band in ("B04", "B03", "B02", "B08")]
        np.testing.assert_allclose(crop.after, REFLECTANCE[order, rows, cols] * 1e-4, rtol=1e-6)
        assert (QUALITY[rows, cols] == Quality.CLEAR).mean() >= 0.95
        n = crop.window.height // 4
        averaged = crop.after.reshape(4, n, 4, n, 4).mean(axis=(2, 4))
        np.testing.assert_allclose(crop.before, averaged, rtol=1e-5)
        assert not crop.measured
