"""The machine measured with a run's own model and scenes, and what the run then is expected to take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hook_server import hook_server

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.plan.decision import decide
from difffusr.pipeline.run.cost.calibration import load_calibration
from difffusr.pipeline.run.cost.estimates import cluster_of, estimate
from difffusr.pipeline.run.cost.measure import calibrate
from difffusr.pipeline.run.execution import execute
from difffusr.pipeline.storage.places import cube_staging_of, staging_of

#: What is measured here holds for every sampler; this one is the fastest.
DRAFT = {"sampler": "draft", "sampler_steps": None}


class Steps:
    """Counts what is told."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self.total += total

    def advance(self, stage: str) -> None:
        self.done += 1


def stored_bytes(*folders: Path) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow  # its parts: tests/pipeline/run/cost
@pytest.mark.usefixtures("_ray")
def test_a_calibration_says_beforehand_what_a_run_reads_and_writes(loaded):
    scenes, grid = {"balance": "full"}, {"shard_px": 1024}
    config = loaded(model=DRAFT, compute={"actors_max": 2}, grid=grid, scenes=scenes, store={"keep_chips": True})
    plan, steps = decide(config), Steps()
    found = calibrate(config, (2,), steps, plan)
    assert steps.done == steps.total > 3
    assert set(found.model) == {1, 2}
    assert all(0 < seconds < 120 for seconds in found.model.values())
    assert (found.actors, found.gpu, found.source) == (2, False, "own")
    assert found.read.bytes > 10_000
    assert not cube_staging_of(config).names("")

    assert found.planning is not None
    assert (found.planning.masks, found.planning.balance) == ("scl", "full")
    assert found.planning.look.bytes > 1000

    made = estimate(plan, config, found, cluster_of(config))
    assert 0 < made.seconds.plan < made.seconds.chips
    assert (made.chips, made.shards, made.scenes) == (len(plan.chips), len(plan.shards), len(plan.scenes))
    assert made.chips <= made.looks <= int((plan.chips.scenes >= 0).sum())
    assert made.seconds.chips > made.seconds.shards > 0

    assert execute(config, Steps()).exit_code == 0
    cube, staging = Path(config.store.url), Path(config.store.staging)
    assert made.bytes_staged == pytest.approx(stored_bytes(Path(staging_of(config).url) / "chips"), rel=0.25)
    assert made.bytes_cube == pytest.approx(stored_bytes(cube), rel=0.25)
    assert made.objects == sum(path.is_file() for folder in (cube, staging) for path in folder.rglob("*"))


@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
def test_without_scenes_of_its_own_a_machine_is_measured_on_a_made_up_one(loaded):
    config = loaded(model=DRAFT)
    found = calibrate(config)
    assert found.source == "generated"
    assert found.read.bytes > 10_000
    assert found.stage.bytes + found.stage.bytes_covered > 100_000
    assert not cube_staging_of(config).names("")


def test_the_command_writes_what_a_budget_is_held_against(difffusr, configure, tmp_path):
    path = configure(model=DRAFT)
    ended = difffusr("calibrate", path, "--output", tmp_path / "calibration.json")
    assert ended.code == 0, ended.err
    found = load_calibration(str(tmp_path / "calibration.json"))
    assert json.loads(found.to_json())["version"] == 3
    costs = {"calibration": str(tmp_path / "calibration.json"), "prices": {"cpu_hour": 1000.0}}
    with hook_server() as server:
        refused = difffusr("run", configure(model=DRAFT, costs=costs, budget=0.01, notify={"url": server.url}))
    assert [(one["event"], one["exit_code"]) for one in server.messages] == [("over_budget", 1)]
    assert refused.code == 1
    assert "the budget is 0.01 EUR" in refused.err
    assert not (Path(load_config(path).store.url) / "zarr.json").exists()
