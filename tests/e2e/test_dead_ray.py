"""When Ray's own processes die under a run, it ends soon, with a line that says so, and the next run finishes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def children_of(pid: int) -> dict[int, str]:
    """Processes below one, with the name of their program."""
    found: dict[int, str] = {}
    parents: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = place.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        parents.setdefault(int(rest.split()[1]), []).append(int(place.parent.name))
        found[int(place.parent.name)] = name
    below, left = {}, [pid]
    while left:
        for child in parents.get(left.pop(), []):
            below[child] = found[child]
            left.append(child)
    return below


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_a_run_whose_ray_dies_ends_with_a_line(configure, victim):
    config = configure(model={"sampler_steps": 40})
    run = [sys.executable, "-c", "from difffusr.pipeline.commands.cli import main; main()", "run", str(config)]
    with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not (found := [pid for pid, name in children_of(process.pid).items() if name == victim]):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.2)
        time.sleep(10)  # it works by now
        began = time.monotonic()
        os.kill(found[0], signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    errors = [line for line in said.splitlines() if "error: " in line]
    assert len(errors) >= 1, said
    assert "Traceback" not in said
    assert time.monotonic() - began < 60
