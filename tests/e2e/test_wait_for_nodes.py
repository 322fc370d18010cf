"""A cluster that starts nodes as they are asked for: a run waits for the first, and says if none comes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture
def ray_start(tmp_path) -> Iterator:
    """Starts nodes of a cluster of the test's own, each a process that ends with the test."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", *words]
        begun.append(subprocess.Popen(command, env=environment(), stdout=log, stderr=log))

    with (tmp_path / "ray.log").open("wb") as log:
        yield start
        for process in reversed(begun):
            process.terminate()
            process.wait(60)


def environment() -> dict[str, str]:
    return {**os.environ, "RAY_AUTH_MODE": "disabled"}


def wait_for_port(port: int) -> None:
    for _ in range(120):
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(1)
    raise AssertionError("no head has come up")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.slow
def test_a_run_begins_without_a_worker_and_computes_on_the_node_that_comes(ray_start, configure, tmp_path):
    port = free_port()
    config = configure(
        compute={**GROWING, "address": f"127.0.0.1:{port}", "wait_minutes": 5, "batch": 1},
        model={"sampler": "draft", "sampler_steps": None},
    )
    ray_start("--head", "--num-cpus=0", "--num-gpus=0", f"--port={port}", "--include-dashboard=false")
    said = tmp_path / "said.txt"
    with said.open("wb") as out:
        wait_for_port(port)
        command = [str(Path(sys.executable).with_name("difffusr")), "run", str(config)]
        run = subprocess.Popen(command, env=environment(), stdout=out, stderr=out)
        until = time.monotonic() + 120
        while "no node holds an actor yet" not in said.read_text():
            assert time.monotonic() < until, said.read_text()
            assert run.poll() is None, said.read_text()
            time.sleep(1)
        ray_start(f"--address=127.0.0.1:{port}", "--num-cpus=2", "--num-gpus=1")
        assert run.wait(300) == 0, said.read_text()
    assert "publication 1" in said.read_text()
