"""What a run will take and cost: laws that hold for every plan, and errors that say what to do."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_estimates import CALIBRATION, CONFIG, PRICES, calibration_of, config_of, plan_of

from difffusr.pipeline.ground.errors import ConfigError, DifffusrError
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.run.cost.calibration import Conditions, Reading
from difffusr.pipeline.run.cost.estimates import check_budget, cluster_of, enforce_budget, estimate
from difffusr.pipeline.run.cost.figures import Cluster, Seconds

ON_CORES = Cluster(actors=2, gpus=0, cpus=2)

counts = st.integers(1, 300)
batches = st.sampled_from([1, 4])
clusters = st.one_of(
    st.builds(lambda n: Cluster(n, 0, n), st.integers(1, 64)),
    st.builds(lambda n, cores: Cluster(n, n, n * cores), st.integers(1, 16), st.integers(1, 16)),
)


def estimated(chips: int, batch: int, cluster: Cluster, **more: Any):
    config = config_of(compute={"batch": batch})
    calibration = calibration_of(config, gpu=cluster.gpus > 0)
    return estimate(plan_of(chips), config, calibration, cluster, **more)


@given(counts, st.integers(0, 40), batches, clusters)
@settings(deadline=None)
def test_more_chips_are_never_cheaper_or_sooner(chips, more, batch, cluster):
    fewer, all_of_them = estimated(chips, batch, cluster), estimated(chips + more, batch, cluster)
    assert all_of_them.seconds.total >= fewer.seconds.total
    assert all_of_them.total >= fewer.total
    for name in ("bytes_read", "bytes_staged", "bytes_cube", "objects"):
        assert getattr(all_of_them, name) >= getattr(fewer, name)


@given(counts, batches, clusters)
@settings(deadline=None)
def test_twice_the_actors_are_never_slower(chips, batch, cluster):
    twice = Cluster(2 * cluster.actors, cluster.gpus, cluster.cpus)
    bigger = Cluster(2 * cluster.actors, 2 * cluster.gpus, 2 * cluster.cpus)
    alone = estimated(chips, batch, cluster).seconds.total
    assert estimated(chips, batch, twice).seconds.total <= alone + 1e-9
    assert estimated(chips, batch, bigger).seconds.total <= alone + 1e-9


@given(counts, st.data())
@settings(deadline=None)
def test_what_is_staged_already_is_not_computed_or_paid_again(chips, data):
    done = data.draw(st.integers(0, chips))
    whole, rest = estimated(chips, 1, ON_CORES), estimated(chips, 1, ON_CORES, done=done)
    assert rest.seconds.total <= whole.seconds.total
    assert rest.bytes_staged == pytest.approx(whole.bytes_staged * (chips - done) / chips)
    assert rest.total <= whole.total
    if done == chips:
        assert rest.seconds.chips == rest.bytes_read == 0


@given(counts, clusters)
@settings(deadline=None)
def test_costs_add_up(chips, cluster):
    made = estimated(chips, 1, cluster)
    lines = [getattr(made.costs, field.name) for field in fields(made.costs)]
    assert made.total == pytest.approx(sum(lines))
    assert made.costs.cpu == pytest.approx(made.seconds.total / 3600 * cluster.cpus * PRICES["cpu_hour"])
    assert made.costs.gpu == pytest.approx(made.seconds.total / 3600 * cluster.gpus * PRICES["gpu_hour"])
    assert made.costs.read == pytest.approx((made.bytes_read + made.planning.bytes) / 1e9 * PRICES["gb_read"])
    assert made.seconds.total == pytest.approx(sum(getattr(made.seconds, field.name) for field in fields(Seconds)))
    assert json.loads(json.dumps(made.to_dict()))["costs"]["total"] == made.total


@given(counts, clusters, st.data())
@settings(deadline=None)
def test_the_area_is_of_what_is_left_and_costs_are_of_the_area(chips, cluster, data):
    done = data.draw(st.integers(0, chips))
    made = estimated(chips, 1, cluster, done=done)
    assert made.ground.km2 == pytest.approx((chips - done) * 1.68**2)
    if done == chips:
        assert made.per_1000_km2 == {"on_demand": None, "spot": None}
        assert made.ground.km2_per_s == 0
    else:
        assert made.per_1000_km2["on_demand"] * made.ground.km2 == pytest.approx(1000 * made.total)
        # No plan is computed faster than all actors can.
        assert made.ground.km2 <= made.ground.km2_per_s * made.seconds.chips * (1 + 1e-9)
    assert (made.km2_per_s_of_a_gpu is None) == (cluster.gpus == 0)


@pytest.mark.parametrize(
    ("cluster", "batch", "km2_per_s"),
    [
        (Cluster(1, 1, 64), 1, 1.68**2 / 8),
        (Cluster(4, 4, 64), 1, 4 * 1.68**2 / 8),
        (Cluster(4, 4, 64), 4, 4 * 1.68**2 / 7),
        (Cluster(4, 2, 64), 1, 4 * 1.68**2 / 8),
        (Cluster(2, 0, 2), 1, 1.68**2 * 2 / (8 + 0.03 + 0.1)),
    ],
)
def test_a_rate_is_what_all_actors_compute_whatever_the_plan(cluster, batch, km2_per_s):
    for chips in (1, 7, 400):
        made = estimated(chips, batch, cluster)
        assert made.ground.km2_per_s == pytest.approx(km2_per_s)
        assert made.km2_per_s_of_a_gpu == (pytest.approx(km2_per_s / cluster.gpus) if cluster.gpus else None)


def test_ground_that_no_scene_covers_is_no_area():
    plan = plan_of(10)
    plan.chips.covered[:5] = 0.5
    made = estimate(plan, CONFIG, CALIBRATION, ON_CORES)
    assert made.ground.km2 == pytest.approx(7.5 * 1.68**2)
    assert made.ground.km2_per_s == estimate(plan_of(10), CONFIG, CALIBRATION, ON_CORES).ground.km2_per_s


@pytest.mark.parametrize(
    ("spot", "gpu", "cpu"),
    [
        ({}, None, None),
        ({"gpu_hour_spot": 1.0}, 1.0, 0.05),
        ({"cpu_hour_spot": 0.01}, 2.5, 0.01),
        ({"gpu_hour_spot": 0.0, "cpu_hour_spot": 0.0}, 0.0, 0.0),
        ({"gpu_hour_spot": 1.0, "cpu_hour_spot": 0.01}, 1.0, 0.01),
    ],
)
def test_on_spot_only_machines_cost_less(spot, gpu, cpu):
    config = config_of(costs={"prices": {**PRICES, **spot}}, compute={"batch": 1})
    made = estimate(plan_of(40), config, calibration_of(config, gpu=True), Cluster(2, 2, 16))
    told = json.loads(json.dumps(made.to_dict()))
    if gpu is None:
        assert made.spot is told["spot"] is told["per_1000_km2"]["spot"] is None
        return
    assert made.spot.gpu == pytest.approx(made.gpu_hours * gpu)
    assert made.spot.cpu == pytest.approx(made.cpu_hours * cpu)
    for name in ("read", "written", "storage", "requests"):
        assert getattr(made.spot, name) == getattr(made.costs, name)
    assert told["spot"]["total"] == made.spot.total
    assert told["per_1000_km2"]["spot"] == pytest.approx(1000 * made.spot.total / made.ground.km2)


def test_on_cores_reading_and_computing_add_up_on_gpus_they_overlap():
    plan = plan_of(40)
    slow = Reading(seconds=4.0, cpu_seconds=4.0, bytes=1, further_share=1.0)
    on_cores = estimate(plan, CONFIG, calibration_of(CONFIG, read=slow), ON_CORES).seconds.chips
    assert on_cores == pytest.approx(10 + 20 * (8.0 + 4.0 + 0.1))
    on_gpus = calibration_of(CONFIG, read=slow, gpu=True)
    one, gpus = config_of(compute={"batch": 1}), Cluster(2, 2, 16)
    assert estimate(plan, one, on_gpus, gpus).seconds.chips == pytest.approx(10 + 20 * 8.0)
    assert estimate(plan, CONFIG, on_gpus, gpus).seconds.chips == pytest.approx(10 + 5 * 4 * 7.0)  # the fastest batch


def test_further_scenes_are_read_only_as_often_as_was_measured():
    assert estimate(plan_of(10), CONFIG, CALIBRATION, ON_CORES).looks == 10
    made = estimate(plan_of(10, scenes_a_chip=3), CONFIG, CALIBRATION, ON_CORES)
    assert made.looks == 10 * (1 + 2 * 0.5)
    assert made.chips_by_scenes == {3: 10}
    assert made.bytes_read == made.looks * 500_000


@pytest.mark.parametrize("composite", ["medoid", "geomedian"])
@pytest.mark.parametrize("looks", [1, 2, 5, 8])
def test_a_composite_reads_every_look_that_is_planned(looks, composite):
    config = config_of(scenes={"composite": composite})
    plan = plan_of(10, scenes_a_chip=looks)
    made, alone = (estimate(plan, one, CALIBRATION, ON_CORES) for one in (config, CONFIG))
    assert made.looks == 10 * looks
    assert alone.looks == 10 * (1 + (looks - 1) * 0.5)
    assert made.bytes_read == made.looks * 500_000
    per_look = made.seconds.chips - estimate(plan_of(10), config, CALIBRATION, ON_CORES).seconds.chips
    assert per_look == pytest.approx(10 * (looks - 1) * CALIBRATION.read.cpu_seconds / ON_CORES.cpus)
    assert made.objects > alone.objects  # the variable `looks`


def test_a_cube_has_the_bytes_of_the_ground_that_the_chips_cover():
    plan = plan_of(100)
    ground_px = 100 * (168 * 4) ** 2
    made = estimate(plan, CONFIG, CALIBRATION, ON_CORES)
    tops = overview_shards(plan)
    of_levels = ground_px * 18 * sum(0.25**level for level in range(1, 1 + len(tops)))
    assert made.bytes_cube == pytest.approx(ground_px * 15 + of_levels + (len(plan.shards) + sum(tops)) * 100_000)


def overview_shards(plan: Plan) -> list[int]:
    """Shards of overviews of a plan of one zone, by level, until one shard of four chunks holds it."""
    places = {(int(row), int(col)) for row, col in zip(plan.shards.row, plan.shards.col, strict=True)}
    top, left = (min(place[axis] for place in places) for axis in (0, 1))
    places = {(row - top, col - left) for row, col in places}
    side, counts = 2048 * (1 + max(max(place) for place in places)), []
    while side > 512:
        places, side = {(row // 2, col // 2) for row, col in places}, side / 2
        counts.append(len(places))
    return counts


def test_overviews_take_as_long_as_the_shards_that_they_are_made_of():
    plan = plan_of(100)
    made = estimate(plan, CONFIG, CALIBRATION, Cluster(actors=1, gpus=0, cpus=1))
    below = [len(plan.shards), *overview_shards(plan)[:-1]]
    assert made.seconds.overviews == pytest.approx(0.5 * sum(below))
    shards = len(plan.shards) + sum(overview_shards(plan))
    assert made.objects == 100 + 4 * shards + 19 * (1 + len(overview_shards(plan))) + 3 + 20


def test_samples_of_uncertainty_take_the_time_of_the_model_as_often():
    config = config_of(model={"uncertainty_samples": 8})
    once = estimate(plan_of(2), CONFIG, CALIBRATION, ON_CORES)
    often = estimate(plan_of(2), config, calibration_of(config), ON_CORES)
    assert often.seconds.chips - once.seconds.chips == pytest.approx(7 * 8.0)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"sampler_steps": 50}}, "steps 10 instead of 50"),
        ({"grid": {"chip_px": 96}}, "chip_px 192 instead of 96"),
        ({"compute": {"precision": "bfloat16"}}, "precision float32 instead of bfloat16"),
        ({"compute": {"cpus_per_actor": 2}}, "threads 1 instead of 2"),
        ({"model": {"uncertainty_samples": 2}}, "uncertainty False instead of True"),
        ({"compute": {"batch": 2}}, "batch 1, 4 instead of 2"),
        (
            {"model": {"preset": "published", "stage1": "/a", "fusion": "/b", "sampler_steps": 10}},
            "preset small instead of published",
        ),
    ],
)
def test_a_calibration_of_something_else_is_refused(sections, said):
    calibration = calibration_of(CONFIG, conditions=Conditions(**{**CALIBRATION.conditions.model_dump(), "steps": 10}))
    config = config_of(**{"model": {"sampler_steps": 10}, **sections})
    with pytest.raises(ConfigError, match=said) as caught:
        estimate(plan_of(1), config, calibration, ON_CORES)
    assert "difffusr calibrate" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_figures_of_cores_say_nothing_of_gpus():
    with pytest.raises(ConfigError, match="no GPU instead of some"):
        estimate(plan_of(1), CONFIG, CALIBRATION, Cluster(1, 1, 8))


def test_a_run_over_its_budget_does_not_start(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(CALIBRATION.to_json())
    costs = {"prices": {"cpu_hour": 100.0}, "currency": "CHF", "calibration": str(path)}
    plan = plan_of(50)
    with pytest.raises(DifffusrError) as caught:
        enforce_budget(config_of(costs=costs, budget=0.5), plan, 0)
    assert caught.value.exit_code == 1
    assert "CHF, the budget is 0.50 CHF" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert enforce_budget(config_of(costs=costs), plan, 0) is None
    affordable = enforce_budget(config_of(costs=costs, budget=1e6), plan, 0)
    assert affordable is not None
    check_budget(config_of(costs=costs, budget=affordable.total), affordable)


def test_a_cluster_holds_as_many_actors_as_its_gpus_or_cores_and_no_more_than_are_allowed():
    assert cluster_of(CONFIG, gpus=0, cpus=8) == Cluster(8, 0, 8)
    assert cluster_of(CONFIG, gpus=4, cpus=64) == Cluster(4, 4, 64)
    halves = config_of(compute={"gpus_per_actor": 0.5, "actors_max": 6})
    assert cluster_of(halves, gpus=2, cpus=8) == Cluster(4, 2, 8)
    assert cluster_of(halves, gpus=4, cpus=8) == Cluster(6, 4, 8)
    assert cluster_of(config_of(compute={"cpus_per_actor": 16}), gpus=0, cpus=8).actors == 1
    assert cluster_of(config_of(compute={"gpus_per_actor": 0}), gpus=4, cpus=8) == Cluster(8, 0, 8)
    with pytest.raises(ConfigError, match=r"compute\.gpus_per_actor"):
        cluster_of(config_of(compute={"gpus_per_actor": 2}), gpus=1, cpus=8)
