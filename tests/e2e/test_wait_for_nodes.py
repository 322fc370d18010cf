"""A cluster that starts nodes as they are asked for: a run waits for the first, and says if none comes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from machines import machines_in, unsigned

from difffusr.pipeline.engine.nodes import await_node

GROWING = {"gpus_per_actor": 1, "actors_max": 1}


def test_a_node_that_never_comes_is_named(difffusr, configure):
    ended = difffusr("run", configure(compute={**GROWING, "wait_minutes": 0.05}))
    assert ended.code == 1
    assert "waiting up to 0.05 minutes for the cluster to start one" in ended.err
    assert "no node of the cluster has 0.8 CPU and 1 GPU for an actor, and none was started" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.usefixtures("_ray")
def test_who_waits_can_be_stopped(loaded):
    config = loaded(compute={**GROWING, "wait_minutes": 60})
    began = time.monotonic()
    await_node(config, lambda: True)
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_run_begins_without_a_worker_and_computes_on_the_node_that_comes(configure, tmp_path):
    said = tmp_path / "said.txt"
    with machines_in(tmp_path / "machines") as machines, said.open("wb") as out:
        config = configure(
            compute={**GROWING, "address": machines.address, "wait_minutes": 5, "batch": 1},
            model={"sampler": "draft", "sampler_steps": None},
        )
        machines.head()
        command = [str(Path(sys.executable).with_name("difffusr")), "run", str(config)]
        run = subprocess.Popen(command, env=unsigned(), stdout=out, stderr=out)
        until = time.monotonic() + 120
        while "no node holds an actor yet" not in said.read_text():
            assert time.monotonic() < until, said.read_text()
            assert run.poll() is None, said.read_text()
            time.sleep(1)
        machines.join()
        assert run.wait(300) == 0, said.read_text()
    assert "publication 1" in said.read_text()
