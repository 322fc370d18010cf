"""Estimates and calibrations in units for people."""

from __future__ import annotations

from small_estimates import CALIBRATION, CONFIG, calibration_of, plan_of

from difffusr.pipeline.run.cost.estimates import estimate
from difffusr.pipeline.run.cost.figures import Cluster
from difffusr.pipeline.run.cost.words import calibration_rows, estimate_rows

ON_CORES = Cluster(actors=2, gpus=0, cpus=2)


def test_tables_are_for_people():
    rows = dict(estimate_rows(estimate(plan_of(1000, wide=40), CONFIG, CALIBRATION, ON_CORES)))
    assert rows["to read"] == "500.0 MB"
    assert rows["wall clock"].endswith(" h")
    assert rows["cost"].endswith(" EUR")
    busy = dict(calibration_rows(calibration_of(CONFIG, load=1.2)))
    assert "measure again" in busy["warning"]
