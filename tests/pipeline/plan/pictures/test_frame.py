"""A frame maps degrees to pixels and back, also across 180°."""

from __future__ import annotations

import numpy as np
from drawn_plans import FIJI, GRID, plan
from hypothesis import given, settings
from hypothesis import strategies as st

from difffusr.pipeline.plan.pictures.frame import Frame
from difffusr.pipeline.plan.pictures.rasterise import rasterise_chips


def test_an_area_across_180_degrees_is_drawn_in_one_piece() -> None:
    chips = plan(FIJI).chips
    frame = Frame.around(chips, GRID, FIJI, 900, (400, 1200))
    assert abs(abs(frame.lon) - 180) < 0.1
    (ring,) = list(frame.rings(FIJI))
    assert np.ptp(ring[:, 0]) < frame.width
    columns = np.flatnonzero((rasterise_chips(chips, GRID, frame) >= 0).any(axis=0))
    assert np.array_equal(columns, np.arange(columns[0], columns[-1] + 1))


@settings(max_examples=30, deadline=None)
@given(st.floats(-180, 180), st.floats(-75, 75), st.floats(0, 800), st.floats(0, 500))
def test_pixels_and_degrees_are_each_others_inverse(lon: float, lat: float, x: float, y: float) -> None:
    frame = Frame(lon, lat, 300.0, 800, 500)
    back = frame.pixels(*frame.degrees(np.array([x]), np.array([y])))
    np.testing.assert_allclose(back, [[x, y]], atol=1e-6)
