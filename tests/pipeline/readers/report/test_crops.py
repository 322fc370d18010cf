"""Pictures show clear ground before and after."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from reported_cubes import QUALITY, REFLECTANCE, WINDOW

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.readers.report.facts import SHOWN_BANDS
from difffusr.pipeline.readers.report.period_figures import _picture


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


def test_what_is_grey_stays_grey_in_a_picture_and_what_is_coloured_coloured():
    grey = np.linspace(0.05, 0.3, 64, dtype=np.float32).reshape(8, 8)
    bands = {"B02": 0.0, "B03": 0.0, "B04": 0.15, "B08": 0.3}  # ground that is reddish everywhere
    pixels = np.stack([grey + bands[name] for name in SHOWN_BANDS])
    uri = _picture(pixels, pixels, "true")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)
    middle = shown[4, 4]
    assert middle[0] > middle[1] + 40
    assert abs(middle[1] - middle[2]) < 12
