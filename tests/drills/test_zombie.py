"""A driver that is stopped by SIGSTOP amid its publication, taken over, and continued: what was published stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from months import run_month, shown
from small_cubes import label

from difffusr.pipeline.storage.lease import Lease
from difffusr.pipeline.storage.objects import Storage

_DRIVER = """
import os, signal, sys
from months import run_month
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.storage.lease import Lease
from difffusr.pipeline.storage.objects import Storage

cube, staging, at = Storage(sys.argv[1]), Storage(sys.argv[2]), int(sys.argv[3])
lease = Lease.acquire(staging, "june", beat_s=0.1, term_s=0.5)
writes = 0

def stopping(write):
    def stopped(*args):
        global writes
        writes += 1
        if writes == at:
            os.kill(os.getpid(), signal.SIGSTOP)
        return write(*args)
    return stopped

for name in ("write", "exchange", "create", "delete"):
    setattr(Storage, name, stopping(getattr(Storage, name)))
try:
    run_month(cube, staging, 6, 16, lease)
except DifffusrError as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.drill
@pytest.mark.parametrize("kind", ["plain", "icechunk"])
@pytest.mark.parametrize("at", [3, 6, 12, 30, 60])
def test_a_driver_that_is_stopped_and_continued_takes_nothing_away(tmp_path: Path, kind: str, at: int) -> None:
    cube = Storage(f"icechunk+{tmp_path}/cube" if kind == "icechunk" else f"{tmp_path}/cube")
    staging = Storage(f"{tmp_path}/staging")
    run_month(cube, staging, 5, 15, None)
    helpers = str(Path(__file__).resolve().parent.parent / "helpers")
    there = {**os.environ, "PYTHONPATH": os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, "-c", _DRIVER, cube.url, staging.url, str(at)]
    driver = subprocess.Popen(words, env=there, stdout=subprocess.PIPE, text=True)
    _, status = os.waitpid(driver.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        pytest.skip(f"it makes fewer than {at} changes through the storage layer")
    quick = Lease.acquire(staging, "july", beat_s=0.1, term_s=0.5)
    run_month(cube, staging, 7, 17, quick)
    os.kill(driver.pid, signal.SIGCONT)
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "run july" in said
    assert "has taken over" in said
    assert said.count("\n") == 1
    seen = dict(shown(cube))
    assert seen.pop(label(6), {16}) == {16}
    assert seen == {label(5): {15}, label(7): {17}}
    run_month(cube, staging, 6, 16, quick)
    assert shown(cube) == {label(5): {15}, label(6): {16}, label(7): {17}}
    quick.release()
