"""How many actors a cluster holds, whether it is there or only thought of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from difffusr.pipeline.engine.pool import Resources, actor_limits, actor_share, actors_that_fit, gpus_per_actor
from difffusr.pipeline.ground.errors import ConfigError


def config(**compute: Any) -> Any:
    usual = {"gpus_per_actor": "auto", "cpus_per_actor": 1, "actors_min": 1, "actors_max": None, "wait_minutes": 0.0}
    return SimpleNamespace(compute=SimpleNamespace(**{**usual, **compute}))


@pytest.mark.parametrize(
    ("compute", "there", "fit"),
    [
        ({}, (0, 8), 8),
        ({}, (4, 64), 4),
        ({"cpus_per_actor": 3}, (0, 8), 2),
        ({"cpus_per_actor": 16}, (0, 8), 1),  # an actor on fewer cores than it would like
        ({"gpus_per_actor": 0.5}, (2, 8), 4),
        ({"gpus_per_actor": 2}, (5, 8), 2),
        ({"gpus_per_actor": 0}, (4, 8), 8),
    ],
)
def test_a_cluster_holds_as_many_actors_as_its_gpus_or_else_its_cores(compute, there, fit):
    assert actors_that_fit(config(**compute), Resources(*there)) == fit


def test_an_actor_that_asks_for_more_gpus_than_there_are_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r"compute\.gpus_per_actor: .* 2 GPU, the cluster has 1; set it to 'auto'"):
        actor_limits(config(gpus_per_actor=2), Resources(1, 8), 100)


def test_there_are_no_more_actors_than_batches():
    assert actor_limits(config(), Resources(0, 8), 3) == (1, 3)
    assert actor_limits(config(actors_min=4), Resources(0, 8), 3) == (3, 3)
    assert actor_limits(config(), Resources(0, 8), 0) == (1, 1)


def test_actors_that_are_asked_for_may_wait_for_nodes():
    assert actor_limits(config(actors_max=20), Resources(0, 8), 100) == (1, 20)
    waiting = config(gpus_per_actor=1, actors_max=4, wait_minutes=5.0)
    assert actor_limits(waiting, Resources(0, 0), 100) == (1, 4)


def test_an_actor_leaves_cores_to_those_who_feed_it():
    assert gpus_per_actor(config(), 0.0) == 0.0
    assert gpus_per_actor(config(), 8.0) == 1.0
    assert actor_share(config(cpus_per_actor=4), 0.0) == {"num_cpus": 3.2, "num_gpus": 0.0}
    assert actor_share(config(cpus_per_actor=4), 1.0) == {"num_cpus": 0.8, "num_gpus": 1.0}
