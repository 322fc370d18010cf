"""What planning takes: by scenes, balance, masks and cluster; and calibrations that do not know it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_estimates import PRICES, calibration_of, config_of, plan_of, planning_of

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.plan import most_overlaps
from difffusr.pipeline.run.cost.calibration import SceneStep
from difffusr.pipeline.run.cost.estimates import estimate
from difffusr.pipeline.run.cost.figures import Cluster
from difffusr.pipeline.run.cost.planning import scenes_found
from difffusr.pipeline.run.cost.words import calibration_rows, estimate_rows

BALANCES = ("none", "nbar", "full")
MASKS = ("scl", "csmask", "asset")
COMPOSITES = ("none", "medoid", "geomedian")
ON_CORES = Cluster(actors=2, gpus=0, cpus=2)

EACH = list(itertools.product(BALANCES, MASKS, COMPOSITES))


def estimated(scenes=900, cluster=ON_CORES, calibrated=None, **wishes):
    config = config_of(scenes=wishes)
    known = calibration_of(config if calibrated is None else config_of(scenes=calibrated))
    return estimate(plan_of(40, 3, found=scenes), config, known, cluster)


@pytest.mark.parametrize(("balance", "masks", "composite"), EACH)
def test_planning_is_a_part_of_the_whole(balance, masks, composite):
    wishes = {"balance": balance, "masks": masks, "composite": composite}
    made = estimated(**wishes)
    requests = {"none": 2, "nbar": 3, "full": 29}[balance]
    size = {"none": 300_000, "nbar": 1_000_000, "full": 10_000_000}[balance]
    each = {"none": 0.4, "nbar": 0.7, "full": 2.7}[balance]
    assert (made.planning.scenes, made.planning.known) == (900, True)
    assert made.planning.requests == 900 * requests
    assert made.planning.bytes == 900 * size
    assert made.planning.overlaps == (9000 if balance == "full" else 0)
    assert made.seconds.plan == pytest.approx(900 * each / 2 + made.planning.overlaps * 0.002)

    assert made.planning.objects == 2 * (balance != "none") + 900 * (masks == "csmask")
    assert made.objects - made.planning.objects == estimated(composite=composite).objects
    assert made.costs.requests == pytest.approx(made.objects / 1000 * PRICES["thousand_requests"])

    least = estimated(scenes=3, **wishes)
    more_s = made.seconds.plan - least.seconds.plan
    assert made.seconds.total - least.seconds.total == pytest.approx(more_s)
    assert made.costs.cpu - least.costs.cpu == pytest.approx(more_s / 3600 * 2 * PRICES["cpu_hour"])
    assert made.costs.read - least.costs.read == pytest.approx(897 * size / 1e9 * PRICES["gb_read"])
    told = json.loads(json.dumps(made.to_dict()))
    assert told["seconds"]["plan"] == made.seconds.plan
    assert told["planning"]["bytes"] == made.planning.bytes


@given(st.integers(1, 20_000), st.integers(0, 5_000), st.sampled_from(BALANCES), st.integers(1, 512))
@settings(deadline=None)
def test_more_scenes_never_take_less_and_more_cores_never_more(scenes, more, balance, cpus):
    few, many = (estimated(n, Cluster(1, 0, cpus), balance=balance) for n in (scenes, scenes + more))
    assert many.planning.bytes >= few.planning.bytes
    # with 32 scenes and fewer Ray is not started, with 40 and fewer all are compared with each other
    if not any(scenes <= limit < scenes + more for limit in (32, 40)):
        assert many.planning.overlaps >= few.planning.overlaps
        assert many.seconds.plan >= few.seconds.plan - 1e-9
    twice = estimated(scenes, Cluster(1, 0, 2 * cpus), balance=balance)
    assert twice.seconds.plan <= few.seconds.plan + 1e-9


@pytest.mark.parametrize("cpus", [2, 16, 64, 1024])
def test_scenes_are_read_side_by_side_but_solved_for_on_one_core(cpus):
    made = estimated(15_000, Cluster(8, 0, cpus), balance="full")
    assert made.seconds.plan == pytest.approx(15_000 * 2.7 / cpus + 150_000 * 0.002)


@pytest.mark.parametrize(("scenes", "cpus", "turns"), [(1, 8, 1), (8, 8, 1), (32, 8, 4), (12, 2, 3), (33, 66, 1)])
def test_a_few_scenes_are_waited_for_on_threads(scenes, cpus, turns):
    config = config_of()
    far = SceneStep(seconds=0.4, cpu_seconds=0.01, bytes=1, requests=2)
    known = calibration_of(config, planning=planning_of(config, look=far))
    made = estimate(plan_of(4, found=scenes), config, known, Cluster(1, 0, cpus))
    assert made.seconds.plan == pytest.approx(turns * 0.4)


@pytest.mark.parametrize(
    ("scenes", "cpus", "taken"),
    [(20, 2, 20.0), (32, 16, 32.0), (1, 4, 1.0), (40, 2, 20.0), (640, 64, 10.0), (33, 66, 1.0)],
)
def test_what_computes_takes_cores_of_their_own_processes(scenes, cpus, taken):
    config = config_of()
    busy = SceneStep(seconds=1.0, cpu_seconds=1.0, bytes=0, requests=0)
    known = calibration_of(config, planning=planning_of(config, look=busy))
    made = estimate(plan_of(4, found=scenes), config, known, Cluster(1, 0, cpus))
    assert made.seconds.plan == pytest.approx(taken)


@pytest.mark.parametrize(
    ("scenes", "overlaps"), [(0, 0), (1, 0), (2, 1), (10, 45), (40, 780), (41, 410), (15_000, 150_000)]
)
def test_overlaps_grow_with_the_scenes(scenes, overlaps):
    assert most_overlaps(scenes) == overlaps


@pytest.mark.parametrize(("used", "found", "counted"), [(3, None, 3), (3, 100, 100), (3, 1, 3), (1, 1, 1)])
def test_scenes_that_no_chip_uses_were_looked_at_too(used, found, counted):
    assert scenes_found(plan_of(5, used, found=found)) == counted


def test_a_plan_without_a_search_counts_its_own_scenes():
    assert scenes_found(replace(plan_of(5, 2), manifest={})) == 2


@pytest.mark.parametrize(
    ("wanted", "had", "said"),
    [
        ({"balance": "nbar"}, {}, "scenes.balance none instead of nbar"),
        ({"balance": "full"}, {}, "scenes.balance none instead of full"),
        ({"balance": "full"}, {"balance": "nbar"}, "scenes.balance nbar instead of full"),
        ({"masks": "csmask"}, {}, "scenes.masks scl instead of csmask"),
        ({"masks": "asset"}, {"masks": "csmask"}, "scenes.masks csmask instead of asset"),
        ({}, {"masks": "csmask"}, "scenes.masks csmask instead of scl"),
    ],
)
def test_planning_that_was_not_measured_is_refused(wanted, had, said):
    with pytest.raises(ConfigError, match=said) as caught:
        estimated(calibrated=had, **wanted)
    assert "difffusr calibrate" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "had"),
    [
        ({}, {"balance": "full"}),
        ({}, {"balance": "nbar"}),
        ({"balance": "nbar"}, {"balance": "full"}),
        ({"composite": "geomedian"}, {}),
        ({"balance": "full", "masks": "asset"}, {"balance": "full", "masks": "asset", "composite": "medoid"}),
    ],
)
def test_a_calibration_that_knows_more_will_do(wanted, had):
    assert estimated(calibrated=had, **wanted).seconds.plan == estimated(**wanted).seconds.plan


def before_planning_was_measured(config):
    return calibration_of(config, version=2, planning=None)


def test_a_calibration_from_before_says_that_planning_is_not_known():
    config, plan = config_of(), plan_of(40, found=900)
    made = estimate(plan, config, before_planning_was_measured(config), ON_CORES)
    assert (made.seconds.plan, made.planning.bytes, made.planning.known) == (0, 0, False)
    rows = dict(estimate_rows(made))
    assert rows["to plan"] == "900 scenes"
    assert "difffusr calibrate" in rows["planning"]
    known = estimate(plan, config, calibration_of(config), ON_CORES)
    assert known.seconds.chips == made.seconds.chips
    assert known.total > made.total


@pytest.mark.parametrize("wishes", [{"balance": "nbar"}, {"balance": "full"}, {"masks": "csmask"}, {"masks": "asset"}])
def test_a_calibration_from_before_is_refused_where_planning_does_more_than_look(wishes):
    config = config_of(scenes=wishes)
    with pytest.raises(ConfigError, match=f"instead of {next(iter(wishes.values()))}"):
        estimate(plan_of(4), config, before_planning_was_measured(config), ON_CORES)


@pytest.mark.parametrize(
    ("wishes", "rows"),
    [
        ({}, {"look, masks scl"}),
        ({"masks": "csmask"}, {"look, masks csmask"}),
        ({"balance": "nbar"}, {"look, masks scl", "angles"}),
        ({"balance": "full"}, {"look, masks scl", "angles", "overviews", "compare, solve"}),
    ],
)
def test_tables_say_what_was_measured(wishes, rows):
    said = dict(calibration_rows(calibration_of(config_of(scenes=wishes))))
    without = dict(calibration_rows(before_planning_was_measured(config_of())))
    assert {label for label in said if label not in without} == rows
    told = dict(estimate_rows(estimated(**wishes)))
    assert told["to plan"].startswith("900 scenes, ")
    assert ("9,000 overlaps" in told["to plan"]) == ("compare, solve" in rows)
    assert told["planning"].endswith((" s", " min", " h"))
