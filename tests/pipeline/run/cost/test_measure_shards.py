"""What a calibration makes of its measurements."""

from __future__ import annotations

import pytest

from difffusr.pipeline.run.cost.measure_shards import fit_line


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0.2, 3.0), (0.6, 5.0), (1.0, 7.0)], (2.0, 5.0)),
        ([(1.0, 4.0), (1.0, 6.0)], (0.0, 5.0)),  # at one place: through nothing
        ([(0.5, 1.0), (1.0, 4.0)], (0.0, 3.6)),  # would begin below nothing
        ([(0.0, 6.0), (1.0, 4.0)], (5.0, 0.0)),  # would fall
        ([(0.0, 3.0)], (3.0, 0.0)),
    ],
)
def test_a_line_through_measurements_is_never_below_nothing(points, expected):
    assert fit_line(points) == pytest.approx(expected)
