"""What kinds of GPUs were measured to do: the table that ships, what of it fits a configuration, and README's copy."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from beside import ROOT
from pydantic import ValidationError
from small_estimates import config_of

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.run.cost.add_gpu_rates import markdown
from difffusr.pipeline.run.cost.gpu_rates import GpuRate, GpuRates, gpu_rates, rates_for

PUBLISHED = {"preset": "published", "stage1": "/weights/a.ckpt", "fusion": "/weights/b.ckpt"}


def rate_of(**wishes: Any) -> GpuRate:
    content: dict[str, Any] = {
        "gpu": "A", "models": "published", "preset": "reference", "precision": "bfloat16", "execution": "eager",
        "side": 144, "batch": 8, "chips_per_s": 5.0, "measured": "2026-01-02", "version": "1", "source": "a test",
        **wishes,
    }  # fmt: skip
    content.setdefault("km2_per_s", content["chips_per_s"] * ((content["side"] - 24) / 100) ** 2)
    return GpuRate.model_validate(content)


def wanted(model: dict[str, Any] | None = None, chip_px: int = 144, **compute: Any) -> RunConfig:
    return config_of(
        model={**PUBLISHED, **(model or {})}, grid={"chip_px": chip_px}, compute={"precision": "bfloat16", **compute}
    )


def test_the_table_that_ships_holds_what_was_measured_and_nothing_twice():
    rates = gpu_rates().rates
    figures = {(r.precision, r.execution, r.side, r.batch): r.chips_per_s for r in rates if "H100" in r.gpu}
    assert figures["bfloat16", "eager", 144, 8] == 4.75
    assert figures["bfloat16", "sketch", 144, 16] == 9.7
    assert figures["bfloat16", "sketch", 192, 16] == 5.6
    assert len({rate.case for rate in rates}) == len(rates)
    text = files("difffusr.pipeline.run.cost").joinpath("gpu_rates.json").read_text()
    assert gpu_rates().with_later([]).to_json() == text


def test_what_was_only_counted_is_not_in_it():
    counted = json.loads((ROOT / "tests" / "bench" / "counted.json").read_text())
    rates = gpu_rates().rates
    assert "chips_per_s" not in json.dumps(counted["tables"])
    assert all(rate.version == "96603b4" for rate in rates if rate.execution == "sketch")
    assert all("not the kernels that ship" in rate.source for rate in rates if rate.execution == "sketch")


def test_readme_has_the_table_and_a_price_that_follows_from_it():
    text = (ROOT / "README.md").read_text()
    section = text.split("## What it costs\n")[1].split("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("|")] == markdown(gpu_rates()).splitlines()
    on_demand, spot = map(float, re.search(r"At ([\d.]+) USD on demand and ([\d.]+) USD on spot", section).groups())
    said = re.search(r"the first line\s+is ([\d.]+) and ([\d.]+) USD for 1000 km²", section).groups()
    rate = gpu_rates().rates[0]
    hours = 1000 / (rate.chips_per_s * (rate.side - 24) ** 2 / 100**2) / 3600
    assert said == (f"{on_demand * hours:.2g}", f"{spot * hours:.2g}")


@pytest.mark.parametrize(
    "model",
    [{}, {"sampler": "reference"}, {"sampler_steps": 20}, {"temperature": 0.3}, {"seed": 7}, {"sampler": "reference",
     "temperature": 0.0}],
)  # fmt: skip
def test_what_does_not_change_the_time_finds_the_same_figure(model):
    assert rates_for(wanted(model), [rate_of()]) == [rate_of()]


@pytest.mark.parametrize(
    "config",
    [
        wanted({"sampler_steps": 10}),
        wanted({"sampler": "fast"}),
        wanted({"sampler": "draft"}),
        wanted({"consistency": False}),
        wanted({"uncertainty_samples": 4}),
        wanted(chip_px=192),
        wanted(precision="float32"),
        wanted(execution="fused"),
        config_of(grid={"chip_px": 144}, compute={"precision": "bfloat16"}),
        config_of(model={"sampler": "reference"}, grid={"chip_px": 144}, compute={"precision": "bfloat16"}),
    ],
)
def test_figures_of_something_else_are_never_taken(config):
    assert rates_for(config, [rate_of()]) == []


def test_the_small_networks_have_figures_of_their_own_but_not_weights_of_any_size():
    small = rate_of(models="small", preset="fast")
    both = [rate_of(preset="fast"), small]
    grid, compute = {"chip_px": 144}, {"precision": "bfloat16"}
    assert rates_for(config_of(model={"sampler": "fast"}, grid=grid, compute=compute), both) == [small]
    own = {"sampler": "fast", "stage1": "/mine.ckpt"}
    assert rates_for(config_of(model=own, grid=grid, compute=compute), both) == []


@pytest.mark.parametrize(
    ("execution", "measured", "expected"),
    [
        ("auto", ["eager"], ["eager"]),
        ("auto", ["eager", "sketch"], ["sketch", "eager"]),
        ("auto", ["eager", "sketch", "fused"], ["fused"]),
        ("fused", ["eager", "sketch"], ["sketch"]),
        ("fused", ["eager"], []),
        ("eager", ["eager", "sketch", "fused"], ["eager"]),
        ("eager", ["fused"], []),
    ],
)
def test_a_sketch_stands_in_only_where_fused_execution_was_not_measured(execution, measured, expected):
    found = rates_for(wanted(execution=execution), [rate_of(execution=one) for one in measured])
    assert [rate.execution for rate in found] == expected


@pytest.mark.parametrize(("batch", "expected"), [("auto", 16), (1, 4), (4, 4), (7, 8), (13, 16), (64, 32)])
def test_of_several_batches_the_nearest_or_the_fastest(batch, expected):
    speeds = {4: 5.0, 8: 7.0, 16: 8.0, 32: 7.5}
    rates = [rate_of(batch=size, chips_per_s=speed) for size, speed in speeds.items()]
    assert [rate.batch for rate in rates_for(wanted(batch=batch), rates)] == [expected]


def test_every_kind_of_gpu_that_was_measured_is_found():
    rates = [rate_of(gpu=gpu, chips_per_s=speed) for gpu, speed in (("B", 9.0), ("A", 3.0), ("C", 1.0))]
    assert [rate.gpu for rate in rates_for(wanted(), rates)] == ["A", "B", "C"]


@pytest.mark.parametrize(
    "wrong",
    [{"km2_per_s": 14.4}, {"chips_per_s": 0.0}, {"chips_per_s": float("nan")}, {"side": 24}, {"execution": "hoped"},
     {"preset": "quick"}, {"gpu": ""}, {"measured": "soon"}, {"colour": "blue"}],
)  # fmt: skip
def test_a_row_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        rate_of(**wrong)


def test_a_later_figure_of_the_same_replaces_the_earlier_one():
    later = rate_of(chips_per_s=6.0, measured="2026-03-01")
    other = rate_of(batch=16)
    assert set(GpuRates(rates=(rate_of(), other)).with_later([later]).rates) == {later, other}
