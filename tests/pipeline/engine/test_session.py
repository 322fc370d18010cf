"""Workers get the environment that a run gives them, on its own cluster and on one that is there already."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest

from difffusr.pipeline.engine import session
from difffusr.pipeline.engine.memory import KEEP_FREED
from difffusr.pipeline.engine.session import cluster, in_cluster
from difffusr.pipeline.ground.errors import DifffusrError

SEEN = """
import json, os, subprocess, sys
from types import SimpleNamespace
from difffusr.pipeline.engine.session import cluster
from difffusr.pipeline.ground.unsigned import open_unsigned, opens_unsigned

environment, address = json.loads(sys.argv[1]), sys.argv[2] or None

def seen(_):
    return {name: os.environ.get(name) for name in environment} | {"unsigned": opens_unsigned(bucket)}

bucket = "theirs" if address else "mine"
open_unsigned([bucket])
with cluster(SimpleNamespace(compute=SimpleNamespace(address=address)), environment):
    import ray
    task = ray.remote(num_cpus=0)(seen)
    print(json.dumps({"worker": ray.get(task.remote(None)), "driver": seen(None)}), flush=True)
    if address is None:
        there = ray.get_runtime_context().gcs_address
        subprocess.run([sys.executable, __file__, '{"JOINED": "yes"}', there], check=True)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> list[dict[str, dict[str, str | None]]]:
    """What worker and driver see of a cluster on this machine, and of a second run that joins it."""
    script = tmp_path_factory.mktemp("session") / "seen.py"
    script.write_text(SEEN)
    command = [sys.executable, str(script), json.dumps(KEEP_FREED), ""]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=180, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]


def test_workers_on_this_machine_keep_memory_that_they_freed_and_the_driver_is_as_before(told):
    worker, driver = told[0]["worker"], told[0]["driver"]
    assert (worker, driver) == ({**KEEP_FREED, "unsigned": True}, {**dict.fromkeys(KEEP_FREED), "unsigned": True})


def test_workers_of_a_cluster_that_is_there_already_get_the_environment_with_the_job(told):
    assert told[1] == {"worker": {"JOINED": "yes", "unsigned": True}, "driver": {"JOINED": None, "unsigned": True}}


def test_a_process_that_has_not_imported_ray_is_in_no_cluster(monkeypatch):
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert not in_cluster()


@pytest.mark.parametrize(
    "error", [Exception("The current node timed out during startup."), OSError("No space left"), RuntimeError("no")]
)
def test_a_ray_that_does_not_start_is_one_line(monkeypatch, error):
    import ray

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    config = SimpleNamespace(compute=SimpleNamespace(address=None))
    with pytest.raises(DifffusrError, match=r"^Ray cannot be started on this machine \(") as found, cluster(config):
        pass
    assert str(error) in str(found.value)


def test_what_is_imported_meanwhile_is_there_afterwards_and_its_failure_is_left_to_who_uses_it(monkeypatch):
    done = []

    def imports():
        done.append("begun")
        raise ImportError("a part is missing")

    monkeypatch.setattr(session, "_connect", lambda *_: done.append("connected"))
    monkeypatch.setattr(session, "_quieten_ray_data", lambda: None)
    with cluster(SimpleNamespace(compute=SimpleNamespace(address="there:1")), meanwhile=imports):
        assert sorted(done) == ["begun", "connected"]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None], ids=["none", "ignored", "own"])
def test_ray_leaves_who_handles_sigterm_alone(monkeypatch, before, fails):
    """Its own handler raises SystemExit in whatever is done then, and stays when Ray has gone."""
    import ray

    def init(*_, **__):
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        if fails:
            raise OSError("no")

    for name, does in (("init", init), ("shutdown", lambda: None), ("is_initialized", lambda: False)):
        monkeypatch.setattr(ray, name, does)
    monkeypatch.setattr(session, "_quieten_ray_data", lambda: None)
    there = signal.signal(signal.SIGTERM, before)
    try:
        with suppress(DifffusrError), cluster(SimpleNamespace(compute=SimpleNamespace(address=None))):
            assert signal.getsignal(signal.SIGTERM) is before
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, there)
