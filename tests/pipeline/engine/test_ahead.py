"""Which actors are asked for before it is known what they will do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from difffusr.pipeline.engine import ahead
from difffusr.pipeline.engine.pool import Resources
from difffusr.pipeline.ground.errors import ConfigError


class Tasks:
    """In place of Ray: what was asked for, and what of it was taken back."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], str]] = []
        self.taken_back: list[int] = []

    def remote(self, **options: Any) -> Any:
        def ask(module: str) -> int:
            self.asked.append((options, module))
            return len(self.asked) - 1

        return lambda function: SimpleNamespace(remote=ask)

    def cancel(self, task: int) -> None:
        self.taken_back.append(task)


def config(**compute: Any) -> Any:
    usual = dict(address="ray:6379", gpus_per_actor=1, cpus_per_actor=1, actors_min=1, actors_max=None, wait_minutes=0)
    return SimpleNamespace(compute=SimpleNamespace(**(usual | compute)))


@pytest.fixture
def tasks(monkeypatch) -> Tasks:
    made = Tasks()
    monkeypatch.setattr(ahead, "ray", made)
    monkeypatch.setattr(ahead, "resources", lambda: Resources(gpus=3, cpus=16))
    return made


@pytest.mark.parametrize(
    ("compute", "count"),
    [
        ({}, 3),
        ({"actors_max": 2}, 2),
        ({"actors_max": 9}, 3),
        ({"gpus_per_actor": 0.5}, 6),
        ({"gpus_per_actor": 0, "cpus_per_actor": 8}, 2),
        ({"wait_minutes": 5}, 1),
        ({"wait_minutes": 5, "actors_min": 4, "actors_max": 50}, 4),
        ({"wait_minutes": 5, "gpus_per_actor": 8}, 1),  # nodes that are still to come may have them
        ({"address": None}, 0),
    ],
)
def test_as_many_as_the_cluster_holds_or_the_fewest_where_nodes_are_started_for_them(tasks, compute, count):
    ahead.ask_ahead(config(**compute), "json")
    assert len(tasks.asked) == count


def test_each_asks_for_what_an_actor_asks_for_and_imports_its_module(tasks):
    ahead.ask_ahead(config(gpus_per_actor=0.5, actors_max=1), "json")
    ((options, module),) = tasks.asked
    assert options["num_gpus"] == 0.5
    assert module == "json"


def test_all_are_taken_back(tasks):
    ahead.ask_ahead(config(), "json")()
    assert tasks.taken_back == [0, 1, 2]


def test_a_cluster_without_the_gpus_of_an_actor_is_refused(tasks):
    with pytest.raises(ConfigError, match="gpus_per_actor"):
        ahead.ask_ahead(config(gpus_per_actor=4), "json")


def test_the_task_imports(tasks):
    ahead._import("json")
    with pytest.raises(ModuleNotFoundError):
        ahead._import("no_such_module_anywhere")
