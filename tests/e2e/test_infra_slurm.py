"""The Slurm script under a real Slurm of two nodes: a run is published, also when its time limit comes too early."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from beside import ROOT

SCRIPT = ROOT / "infra" / "slurm" / "difffusr.sbatch"
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"

slurm_is_here = all(shutil.which(daemon, path=PATH) for daemon in DAEMONS) and os.geteuid() == 0
needs_slurm = pytest.mark.skipif(
    not slurm_is_here,
    reason="no root, or no Slurm (Debian: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge)",
)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Callable[..., str]]:
    """Calls Slurm's commands; a controller and two nodes of two cores run on this machine."""
    folder = tmp_path_factory.mktemp("slurm")
    host, ports = socket.gethostname().partition(".")[0], free_ports(3)
    munge = folder / "munge.socket"
    nodes = "".join(
        f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[i]} CPUs=2 State=UNKNOWN\n" for i in (1, 2)
    )
    (folder / "slurm.conf").write_text(
        f"ClusterName=trial\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={ports[0]}\nSlurmUser=root\n"
        f"AuthType=auth/munge\nAuthInfo=socket={munge}\nCredType=cred/munge\n"
        f"StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool/%n\n"
        f"SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/%n.pid\n"
        f"SlurmctldLogFile={folder}/slurmctld.log\nSlurmdLogFile={folder}/%n.log\n"
        "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\nMpiDefault=none\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nSlurmdParameters=config_overrides\nReturnToService=2\n"
        f"{nodes}PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP\n"
    )
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(64))
    (folder / "munge.key").chmod(0o400)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "RAY_"))}
    environment = {**kept, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    begun: list[subprocess.Popen[bytes]] = []

    def daemon(*words: str) -> None:
        log = (folder / f"{words[0]}.out").open("ab")
        begun.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))

    def call(*words: str, cwd: Path | None = None) -> str:
        ran = subprocess.run(words, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    own = [f"--{key}={folder / file}" for key, file in (("key-file", "munge.key"), ("pid-file", "munged.pid"))]
    own += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed", f"--socket={munge}"]
    daemon("munged", "--foreground", "--force", *own)
    wait_for(munge.exists, 30)
    daemon("slurmctld", "-D", "-c")
    for i in (1, 2):
        daemon("slurmd", "-D", "-N", f"n{i}")
    wait_for(lambda: call("sinfo", "--noheader", "--format=%D %t").split() == ["2", "idle"], 60)
    yield call
    call("scancel", "--user=root")
    wait_for(lambda: not call("squeue", "--noheader"), 60)
    for process in reversed(begun):
        process.terminate()
        process.wait(30)


def wait_for(happened: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it took too long"
        time.sleep(1)


def write_run(folder: Path, world, **sections) -> Path:
    content = {
        "area": {"bbox": [float(edge) for edge in world.bbox]},
        "period": "2023-06",
        "source": {"static_catalog": str(world.catalog)},
        "grid": {"chip_px": 96, "overlap_px": 24, "shard_px": 512, "chunk_px": 256},
        "store": {"url": "cube.zarr"},
        "compute": {"address": "auto"},
        **sections,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


def submitted(slurm, folder: Path) -> str:
    """The number of the job that the script is submitted as, on both nodes."""
    said = slurm("sbatch", "--nodes=2", "--cpus-per-task=1", "--time=30", str(SCRIPT), "run.yaml", cwd=folder)
    return said.split()[-1]


def wait_for_a_chip(slurm, job: str, folder: Path) -> None:
    def staged() -> bool:
        log = folder / f"difffusr-{job}.log"
        assert state(slurm, job) not in ("FAILED", "COMPLETED"), log.read_text()
        return any((folder / "cube.staging").rglob("*.chip"))

    wait_for(staged, 300)


def state(slurm, job: str) -> str:
    return re.search(r"JobState=(\w+)", slurm("scontrol", "show", "job", job))[1]


def report(folder: Path) -> dict:
    (path,) = (folder / "cube.staging").rglob("report.json")
    return json.loads(path.read_text())


@pytest.mark.slow
@needs_slurm
def test_a_job_that_nears_its_time_limit_is_queued_again_and_publishes(slurm, world, tmp_path):
    write_run(tmp_path, world, model={"sampler_steps": 25})
    job = submitted(slurm, tmp_path)
    log = tmp_path / f"difffusr-{job}.log"
    wait_for_a_chip(slurm, job, tmp_path)
    assert not (tmp_path / "cube.zarr" / "zarr.json").exists()
    token = tmp_path / f".difffusr-{job}.token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text() not in log.read_text()

    slurm("scancel", "--batch", "--signal=USR1", job)  # what --signal=B:USR1@600 sends by itself
    wait_for(lambda: state(slurm, job) == "PENDING", 240)
    assert "stopped as asked" in log.read_text()
    assert "queued again" in log.read_text()
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm lets two minutes pass
    wait_for(lambda: state(slurm, job) == "COMPLETED", 600)
    counts = report(tmp_path)["chips"]
    assert counts["reused"] > 0
    assert counts["computed"] > 0
    assert (tmp_path / "cube.zarr" / "zarr.json").exists()
    assert not token.exists()
    assert not Path(f"/tmp/ray-{job}").exists()


@pytest.mark.slow
@needs_slurm
def test_a_job_that_is_told_to_stop_is_not_queued_again(slurm, world, tmp_path):
    write_run(tmp_path, world, model={"sampler_steps": 25})
    job = submitted(slurm, tmp_path)
    wait_for_a_chip(slurm, job, tmp_path)
    slurm("scancel", "--batch", "--signal=TERM", job)
    wait_for(lambda: state(slurm, job) == "COMPLETED", 240)
    assert "stopped as asked" in (tmp_path / f"difffusr-{job}.log").read_text()
    assert not (tmp_path / "cube.zarr" / "zarr.json").exists()


@pytest.mark.slow
@needs_slurm
def test_a_run_that_would_use_one_node_is_refused(slurm, world, tmp_path):
    write_run(tmp_path, world, compute={})
    job = submitted(slurm, tmp_path)
    wait_for(lambda: state(slurm, job) == "FAILED", 60)
    assert "compute.address must be auto" in (tmp_path / f"difffusr-{job}.log").read_text()


def test_the_script_says_what_slurm_is_to_do():
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", SCRIPT.read_text(), re.MULTILINE))
    assert options["signal"] == "B:USR1@600"
    assert options["open-mode"] == "append"
    assert "requeue" in options
    assert os.access(SCRIPT, os.X_OK)
    checked = subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
