"""What super-resolution takes on kinds of GPUs, without a calibration."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from small_estimates import config_of, plan_of

from difffusr.pipeline.commands import plan as command
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.run.cost.gpu_rates import GpuRate, rates_for
from difffusr.pipeline.run.cost.on_gpus import by_gpu
from difffusr.pipeline.run.cost.words import by_gpu_notes, by_gpu_tables

MODEL = {"preset": "published", "stage1": "/weights/a.ckpt", "fusion": "/weights/b.ckpt"}


def run_of(overlap_px: int = 24, **sections: Any):
    grid = {"chip_px": 144, "overlap_px": overlap_px}
    return config_of(**{"model": MODEL, "grid": grid, "compute": {"precision": "bfloat16"}, **sections})


def priced(**prices: float | None):
    return run_of(costs={"prices": prices, "currency": "CHF"})


@pytest.mark.parametrize(("chips", "done"), [(1, 0), (100, 0), (100, 40), (7, 7), (5000, 1)])
def test_hours_are_of_the_chips_to_compute_and_costs_of_the_hours(chips, done):
    config = priced(gpu_hour=3.0, gpu_hour_spot=1.0)
    found = by_gpu(plan_of(chips), config, rates_for(config), done)
    assert found.chips == chips - done
    assert found.km2 == pytest.approx((chips - done) * 1.2**2)
    assert {kind.rate.execution for kind in found.kinds} == {"eager", "sketch"}
    for kind in found.kinds:
        assert kind.gpu_hours * 3600 * kind.rate.chips_per_s == pytest.approx(chips - done)
        assert kind.cost == pytest.approx(3 * kind.gpu_hours)
        assert kind.spot == pytest.approx(kind.gpu_hours)
        assert kind.km2_per_s == pytest.approx(kind.rate.km2_per_s, rel=1e-3)
        assert kind.cost_per_1000_km2 == pytest.approx(3 * kind.rate.gpu_hours_per_1000_km2, rel=1e-3)
        if found.km2:  # whole chips: both ways to reckon agree
            assert kind.spot / found.km2 * 1000 == pytest.approx(kind.spot_per_1000_km2)


@pytest.mark.parametrize("overlap_px", [12, 24, 36, 60])
def test_chips_that_overlap_more_make_less_ground(overlap_px):
    config = run_of(overlap_px)
    found = by_gpu(plan_of(10), config, rates_for(config))
    assert found.km2 == pytest.approx(10 * ((144 - overlap_px) / 100) ** 2)
    for kind in found.kinds:
        assert kind.km2_per_s == pytest.approx(kind.rate.chips_per_s * ((144 - overlap_px) / 100) ** 2)


def test_ground_without_scenes_is_not_counted_but_its_chips_are_computed():
    plan = plan_of(10)
    plan.chips.covered[:4] = np.float32(0.25)
    found = by_gpu(plan, run_of(), rates_for(run_of()))
    assert (found.chips, found.km2) == (10, pytest.approx(7 * 1.44))


@pytest.mark.parametrize(
    ("prices", "cost", "spot"),
    [
        ({}, None, None),
        ({"gpu_hour": 0.0}, None, None),
        ({"gpu_hour": 2.0}, 2.0, None),
        ({"gpu_hour_spot": 1.0}, None, 1.0),
        ({"gpu_hour": 2.0, "gpu_hour_spot": 0.0}, 2.0, 0.0),
        ({"gpu_hour": 2.0, "gpu_hour_spot": None}, 2.0, None),
        ({"cpu_hour_spot": 1.0}, None, None),
    ],
)
def test_without_a_price_there_is_no_cost(prices, cost, spot):
    config = priced(**prices)
    kind = by_gpu(plan_of(10), config, rates_for(config)).kinds[0]
    hours = kind.gpu_hours
    assert kind.cost == (None if cost is None else pytest.approx(cost * hours))
    assert kind.spot == (None if spot is None else pytest.approx(spot * hours))
    ((_, rows),) = by_gpu_tables(by_gpu(plan_of(10), config, rates_for(config)))
    labels = {row[0] for row in rows}
    assert ("cost on spot" in labels) == (spot is not None)
    assert ("costs.prices.gpu_hour is not set" in str(rows)) == (cost is None and spot is None)


def test_every_kind_has_a_table_and_the_notes_say_what_is_not_in_it():
    config = priced(gpu_hour=2.95, gpu_hour_spot=1.25)
    rates = rates_for(config)
    other = GpuRate.model_validate({**rates[1].model_dump(), "gpu": "another", "execution": "fused"})
    found = by_gpu(plan_of(10_000), config, [*rates, other])
    (first, rows), (second, _) = by_gpu_tables(found)
    assert (first, second) == tuple(f"super-resolution alone on {gpu}" for gpu in ("NVIDIA H100 80 GB", "another"))
    assert dict((label, values) for label, *values in rows) == {
        "networks": ["published sizes"] * 2,
        "run": ["fused in a sketch, bfloat16, batch 16", "eager, bfloat16, batch 8"],
        "measured": ["2026-11-26, version 96603b4"] * 2,
        "rate": ["14.0 km²/s (9.7 chips/s)", "6.84 km²/s (4.75 chips/s)"],
        "GPU-hours": ["0.286", "0.585"],
        "cost": ["0.84 CHF", "1.73 CHF"],
        "cost on spot": ["0.36 CHF", "0.73 CHF"],
        "cost per 1000 km²": ["0.059 CHF", "0.12 CHF"],
        "… on spot": ["0.025 CHF", "0.051 CHF"],
    }
    assert "counted, not timed" in by_gpu_notes(found)
    assert "reading" in by_gpu_notes(found)
    assert "sketch" not in by_gpu_notes(by_gpu(plan_of(10), config, [other]))
    assert json.loads(json.dumps(found.to_dict()))["kinds"][0]["rate"]["measured"] == "2026-11-26"


def test_the_command_shows_it_within_80_columns(monkeypatch, tmp_path):
    out = io.StringIO()
    monkeypatch.setattr(command, "console", Console(file=out, width=80))
    config = run_of(store={"url": str(tmp_path / "cube.zarr")}, costs={"prices": {"gpu_hour": 2.0}})
    told = command._show_by_gpu(config, plan_of(5), command._measured_rates(config, (None, None, None)))
    assert json.loads(json.dumps(told))["chips"] == 5
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "NVIDIA H100" in lines[0]
    assert "│ rate " in out.getvalue()


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {}}, "small networks, ddim with 10 steps, bfloat16 and chips of 144 px"),
        ({"compute": {"precision": "float32", "execution": "fused"}}, "ddim with 20 steps, float32"),
        ({"grid": {"chip_px": 96}}, "chips of 96 px"),
        ({"model": {**MODEL, "sampler": "fast"}}, "multistep with 4 steps"),
        ({"model": {**MODEL, "sampler": "draft"}}, "none with 0 steps"),
    ],
)
def test_where_nothing_was_measured_it_says_so_in_one_line(sections, said):
    with pytest.raises(ConfigError) as caught:
        command._measured_rates(run_of(**sections), (None, None, None))
    assert said in str(caught.value)
    assert "costs.calibration is not set" in str(caught.value)
    assert "difffusr calibrate" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cluster", [(2, None, None), (None, 1.0, None), (None, 0.0, None), (None, None, 8), (1, 1, 1)])
def test_a_cluster_is_not_estimated_from_rates_alone(cluster):
    with pytest.raises(ConfigError, match=r"--actors, --gpus, --cpus: costs\.calibration is not set"):
        command._measured_rates(run_of(), cluster)
