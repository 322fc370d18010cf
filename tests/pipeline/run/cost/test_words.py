"""Estimates and calibrations in units for people."""

from __future__ import annotations

import pytest
from small_estimates import CALIBRATION, CONFIG, PRICES, calibration_of, config_of, plan_of

from difffusr.pipeline.run.cost.estimates import estimate
from difffusr.pipeline.run.cost.figures import Cluster
from difffusr.pipeline.run.cost.words import calibration_rows, digits, estimate_rows

ON_CORES = Cluster(actors=2, gpus=0, cpus=2)


def test_tables_are_for_people():
    rows = dict(estimate_rows(estimate(plan_of(1000, wide=40), CONFIG, CALIBRATION, ON_CORES)))
    assert rows["to read"] == "500.0 MB"
    assert rows["wall clock"].endswith(" h")
    assert rows["cost"].endswith(" EUR")
    busy = dict(calibration_rows(calibration_of(CONFIG, load=1.2)))
    assert "measure again" in busy["warning"]


def test_an_estimate_speaks_of_square_kilometres():
    config = config_of(costs={"prices": {**PRICES, "gpu_hour_spot": 1.0}}, compute={"batch": 1})
    calibration = calibration_of(config, gpu=True, machine="16 cores, 2 × NVIDIA H100 80GB HBM3")
    made = estimate(plan_of(1000), config, calibration, Cluster(2, 2, 16))
    rows = dict(estimate_rows(made))
    assert rows["area"] == "2,822 km² of cube"
    assert rows["rate"] == "0.706 km²/s, 0.353 a GPU (NVIDIA H100 80GB HBM3)"
    assert rows["cost per 1000 km²"] == f"{made.total / 2.8224:,.2f} EUR"
    assert rows["… on spot"] == f"{made.spot.total / 2.8224:,.2f} EUR"
    assert rows["cost on spot"] == f"{made.spot.total:,.2f} EUR"


def test_without_gpus_spot_or_chips_the_rows_say_only_what_there_is():
    rows = dict(estimate_rows(estimate(plan_of(10), CONFIG, CALIBRATION, ON_CORES)))
    assert rows["rate"].endswith(" km²/s")
    assert not any("spot" in label for label in rows)
    nothing_left = dict(estimate_rows(estimate(plan_of(10), CONFIG, CALIBRATION, ON_CORES, done=10)))
    assert nothing_left["rate"] == "nothing left to compute"
    assert "cost per 1000 km²" not in nothing_left


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0.00"), (0.000458, "0.000458"), (6.84, "6.84"), (14, "14.0"), (99.94, "99.9"), (99.96, "100"), (100, "100"),
     (1234567.8, "1,234,568")],
)  # fmt: skip
def test_numbers_have_three_digits(number, said):
    assert digits(number) == said
