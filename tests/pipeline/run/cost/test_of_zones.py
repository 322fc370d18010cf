"""What a cube of one CRS would take: from a few of its shards, and refused where it is over the budget."""

from __future__ import annotations

import numpy as np
import pytest
from continental import continent_config
from two_zones import publish_zones, waves, windows_at

from difffusr.pipeline.assemble.continent.planning import ContinentPlan, plan_continent
from difffusr.pipeline.config.costs import CostsSection, PricesSection
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.run.cost.of_zones import enforce_zone_budget, estimate_zones
from difffusr.pipeline.storage.objects import Storage


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, ContinentPlan]:
    """Zones on both sides of 12° E, and the plan of one CRS of them."""
    folder = tmp_path_factory.mktemp("zones")
    windows = windows_at(12.0, 48.0, (32632, 32633), (2, 4))
    publish_zones(Storage(f"{folder}/zones.zarr"), windows, dict.fromkeys(windows, waves(12.0, 48.0)))
    config = continent_config(f"{folder}/zones.zarr", f"{folder}/laea.zarr")
    return config, plan_continent(config)


def priced(config: RunConfig, budget: float | None = None, **prices: float) -> RunConfig:
    return config.model_copy(update={"budget": budget, "costs": CostsSection(prices=PricesSection(**prices))})


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_an_estimate_grows_with_what_is_to_do(asked, share):
    config, plan = asked
    todo = np.arange(len(plan.shards)) < share * len(plan.shards)
    made = estimate_zones(priced(config, cpu_hour=3600.0, gb_written=1.0), plan, 8, todo)
    assert made.shards == todo.sum()
    assert made.of_several == (todo & (plan.zones_of.sum(axis=1) > 1)).sum()
    if not share:
        assert made.cost == made.bytes_cube == 0
        return
    assert made.seconds > 0
    assert made.bytes_cube > made.shards * 1000
    of_shards = (made.shards - made.of_several) * made.seconds + made.of_several * made.several_seconds
    assert made.cpu_hours * 3600 == pytest.approx(of_shards + made.overviews * made.overview_seconds)
    assert made.cost == pytest.approx(made.cpu_hours * 3600 + made.bytes_cube / 1e9)
    labels = [label for label, _ in made.rows()]
    assert labels == ["shards to make", "a shard", "to write", "CPU-hours", "wall clock", "cost"]


def test_it_writes_nothing(asked):
    config, plan = asked
    estimate_zones(config, plan, 8, np.ones(len(plan.shards), bool))
    assert not Storage(config.store.url).names("")


@pytest.mark.parametrize(("budget", "refused"), [(None, False), (0.0, True), (1e-9, True), (1e9, False)])
def test_a_run_over_its_budget_does_not_start(asked, budget, refused):
    config, plan = asked
    costly = priced(config, budget, cpu_hour=100.0)
    todo = np.ones(len(plan.shards), bool)
    if not refused:
        made = enforce_zone_budget(costly, plan, 8, todo)
        assert (made is None) == (budget is None)
        return
    with pytest.raises(DifffusrError, match=r"^budget: this run would cost about .* nothing was started: raise budget"):
        enforce_zone_budget(costly, plan, 8, todo)
