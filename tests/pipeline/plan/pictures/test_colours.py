"""Dates can be told apart by their colours."""

from __future__ import annotations

import numpy as np
from drawn_plans import TWO_ZONES, plan

from difffusr.pipeline.plan.pictures.colours import Dates, date_colours


def test_twelve_dates_can_be_told_apart_by_every_eye() -> None:
    days = np.arange("2024-06-01", "2024-06-13", dtype="datetime64[D]")
    linear = (date_colours(days) / 255.0) ** 2.2
    for eye in _EYES:
        colours = _oklab(np.clip(linear @ eye.T, 0, 1))
        apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)[~np.eye(12, dtype=bool)]
        assert apart.min() > 0.09


def test_more_dates_run_along_time() -> None:
    days = np.array(["2024-01-01", "2024-01-02", *(f"2024-06-{k:02d}" for k in range(1, 21))], "datetime64[D]")
    steps = np.abs(np.diff(date_colours(days).astype(int), axis=0)).sum(axis=1)
    assert steps[1] > 5 * steps[0]


def test_dates_count_the_chips_that_show_them() -> None:
    made = plan(TWO_ZONES, 4)
    dates = Dates.of(made)
    assert dates.chips.sum() == len(made.chips)
    assert [str(day) for day in dates.days] == ["2024-06-01", "2024-06-02", "2024-06-03", "2024-06-04"]


#: What normal, protan, deutan and tritan eyes make of linear RGB (Machado et al. 2009, severity 1).
_EYES = (
    np.eye(3),
    np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
)


def _oklab(linear: np.ndarray) -> np.ndarray:
    cones = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
    lab = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    return np.cbrt(linear @ cones.T) @ lab.T
