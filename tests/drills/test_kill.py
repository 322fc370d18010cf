"""Kill whatever can be killed, at a random moment, resume, and compare what comes out with the undisturbed cube.

A real cluster of three raylets on this machine; the driver is the command in a process of its own. `KILLS=5 SEED=7 make
drills` for fewer rounds or another seed, `FIRST=14 KILLS=1` for one round again. Overviews are done too soon to be hit
by chance: their workers are killed at their requests, in `test_runs.py`.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from beside import SHARED
from drill_report import table, write_section
from killing import is_called, kill_process
from ray.cluster_utils import Cluster

ARCHIVE = SHARED / "data" / "archive" / "catalog.json"
ROUNDS, SEED = int(os.environ.get("KILLS", "30")), int(os.environ.get("SEED", "20240601"))

#: The round to begin with, to see one of them again.
FIRST = int(os.environ.get("FIRST", "1"))

#: What is killed, by how its process is called.
VICTIMS = {
    "driver": "difffusr run",
    "actor": "MapWorker(MapBatches(PinnedResolver))",
    "raylet": "raylet/raylet",
    "writer": "ray::write_shard",
    "reader": "ray::MapBatches(read_chips)",
}

#: Seconds that a round may take, kills included.
PATIENCE_S = 600


@dataclass
class Round:
    """One run of the job: what was killed in it and when, how often it was begun, what came of it."""

    number: int
    kills: list[str] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0
    recomputed: list[str] = field(default_factory=list)
    same: bool = False


@pytest.mark.parametrize("name", ["the one", "another"])
def test_only_who_is_what_it_is_called_is_killed_and_named(name, monkeypatch):
    monkeypatch.setitem(VICTIMS, "sleeper", "this is the one")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", f"this is {name}"]) as process:
        if name == "the one":
            assert killed(process.pid, "sleeper") == f"sleeper {process.pid}"
            assert process.wait(10) == -signal.SIGKILL
            assert killed(process.pid, "sleeper") is None
        else:
            assert killed(process.pid, "sleeper") is None
            assert psutil.Process(process.pid).status() != psutil.STATUS_STOPPED
            process.kill()


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_cube(tmp_path, capsys):
    if not ARCHIVE.exists():
        pytest.skip(f"no real scenes: {ARCHIVE.parent} is not there")
    undisturbed = attempt(Round(0), tmp_path / "undisturbed", random.Random(0), kills=0)
    expected = content(tmp_path / "undisturbed" / "cube.zarr")
    assert len(expected) > 20
    lasts = undisturbed.seconds
    rounds = []
    for number in range(FIRST, FIRST + ROUNDS):
        chance = random.Random(SEED + number)
        # Every victim has its turn; how many more of them, and when, is chance.
        kinds = list(VICTIMS)
        first = kinds[number % len(kinds)]
        wanted = [first, *chance.choices(kinds, k=chance.randint(0, 4))]
        while True:
            folder = tmp_path / f"round-{number}"
            ended = attempt(Round(number), folder, chance, kills=len(wanted), wanted=wanted, lasts=lasts)
            ended.same = content(folder / "cube.zarr") == expected
            if ended.kills or not ended.same:
                break
            shutil.rmtree(folder)  # it was done before its moment came: once more, with another
        rounds.append(ended)
        with capsys.disabled():
            print(*cells(ended), flush=True)
        shutil.rmtree(folder)
    report = told(undisturbed, rounds)
    write_section("Kills by time", report)
    with capsys.disabled():
        print("\n" + report)
    assert all(ended.kills for ended in rounds)
    assert all(ended.same for ended in rounds)
    assert not any(ended.recomputed for ended in rounds)


def attempt(
    this: Round,
    folder: Path,
    chance: random.Random,
    kills: int,
    wanted: list[str] | None = None,
    lasts: float = 60.0,
) -> Round:
    """Run the job to its end, killing on the way, and starting it again whenever it has ended before its time."""
    folder.mkdir()
    begun = time.monotonic()
    nodes = Nodes()
    victims = list(wanted or [])
    process = None
    staged: dict[str, tuple[int, int]] = {}
    moments = sorted(chance.uniform(0.1, 0.85) * lasts for _ in range(kills))
    try:
        config = write_config(folder, nodes.address)
        while True:
            assert time.monotonic() - begun < PATIENCE_S, f"round {this.number} does not end: {this.kills}"
            if process is None:
                nodes.heal()
                process = start(config, folder / "said.txt")
                this.starts += 1
            time.sleep(0.1)
            remember(folder, staged, this)
            if victims and time.monotonic() - begun >= moments[0] and process.poll() is None:
                kind = victims[0]
                if (died := kill(kind, process, nodes, chance)) is not None:
                    this.kills.append(f"{died} at {time.monotonic() - begun:.0f} s")
                    victims.pop(0)
                    moments.pop(0)
                elif time.monotonic() - begun > moments[0] + 20:
                    victims.append(victims.pop(0))  # nothing of the kind is at work: another comes first
                    moments[0] = time.monotonic() - begun
            if (code := process.poll()) is not None:
                if code == 0:
                    break
                process = None
    finally:
        if process is not None and process.poll() is None:
            process.kill()
        nodes.stop()
    this.seconds = time.monotonic() - begun
    return this


def write_config(folder: Path, address: str) -> Path:
    """The archive's job over a few kilometres: small chips and few steps, so that it is done in a minute."""
    config: dict[str, Any] = {
        "area": {"bbox": [103.71, 17.905, 103.735, 17.925]},
        "period": {"start": "2020-02-01", "end": "2020-02-29"},
        "source": {"static_catalog": str(ARCHIVE)},
        "grid": {"chip_px": 96, "overlap_px": 24, "shard_px": 512, "chunk_px": 256},
        "model": {"sampler_steps": 4},
        "store": {"url": "cube.zarr", "keep_chips": True},
        "compute": {"address": address},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def start(config: Path, said: Path) -> subprocess.Popen[bytes]:
    with said.open("ab") as file:
        return subprocess.Popen(
            [Path(sys.executable).with_name("difffusr"), "run", config], stdout=file, stderr=file, cwd=config.parent
        )


class Nodes:
    """A head and two workers, each with a core, as raylets of their own."""

    def __init__(self) -> None:
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 2**29},
        )
        self.address = self._cluster.address
        self.heal()

    def heal(self) -> None:
        """As many worker nodes as there should be: what was killed is replaced, as an autoscaler would."""
        for node in list(self._cluster.worker_nodes):
            if not node.live_processes() or "raylet" not in {name for name, _ in node.live_processes()}:
                self._cluster.remove_node(node, allow_graceful=False)
        while len(self._cluster.worker_nodes) < 2:
            self._cluster.add_node(num_cpus=1, object_store_memory=2**29)

    def a_worker(self, chance: random.Random) -> int | None:
        """Process id of a worker node's raylet."""
        alive = [
            process.process.pid
            for node in self._cluster.worker_nodes
            for name, processes in node.all_processes.items()
            if name == "raylet"
            for process in processes
            if process.process.poll() is None
        ]
        return chance.choice(sorted(alive)) if alive else None

    def stop(self) -> None:
        self._cluster.shutdown()


def kill(kind: str, driver: subprocess.Popen[bytes], nodes: Nodes, chance: random.Random) -> str | None:
    """SIGKILL one process of a kind; what it was called, and its number, or None where there is none now."""
    if kind == "driver":
        pid: int | None = driver.pid
    elif kind == "raylet":
        pid = nodes.a_worker(chance)
    else:
        found = [
            process.pid for process in psutil.Process().children(recursive=True) if is_called(process, VICTIMS[kind])
        ]
        pid = chance.choice(sorted(found)) if found else None
    return None if pid is None else killed(pid, kind)


def killed(pid: int, kind: str) -> str | None:
    """Kill a process if it is one of a kind; who it was."""
    words = "" if kind == "driver" else VICTIMS[kind]
    return f"{kind} {pid}" if kill_process(pid, words) else None


def remember(folder: Path, staged: dict[str, tuple[int, int]], this: Round) -> None:
    """Note every staged object; one that was there before and is another file now was computed again."""
    for path in folder.glob("cube.staging/runs/*/chips/*/*.chip"):
        seen = path.stat().st_ino, path.stat().st_mtime_ns
        if staged.setdefault(path.name, seen) != seen:
            this.recomputed.append(path.name)
            staged[path.name] = seen


def content(cube: Path) -> dict[str, str]:
    """sha256 of every object of a cube."""
    files = (path for path in sorted(cube.rglob("*")) if path.is_file())
    return {str(path.relative_to(cube)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def cells(ended: Round) -> tuple[Any, ...]:
    same = "yes" if ended.same else "NO"
    killed = ", ".join(ended.kills)
    return ended.number, killed, ended.starts, round(ended.seconds), same, len(ended.recomputed)


def told(undisturbed: Round, rounds: list[Round]) -> str:
    """The section of the report."""
    lines = [
        f"{len(rounds)} runs of the archive job on three raylets (rounds {rounds[0].number} to {rounds[-1].number},",
        f"seed {SEED}), and what was killed in each: who was stopped, was still what it is called, and then died of",
        f"SIGKILL, with its process's number. Undisturbed: {undisturbed.seconds:.0f} s.",
        "",
        table(("round", "killed", "starts", "seconds", "same", "chips computed twice"), map(cells, rounds)),
    ]
    return "\n".join(lines)
