"""The whole job into an Icechunk repository: killed, resumed, verified, written again, taken back; one driver at a
time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import icechunk
import pytest
import xarray as xr

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.storage.places import staging_of

GROUP = "32632/0"


def pixels(folder: Path) -> xr.Dataset:
    """As somebody reads the cube who knows Icechunk and xarray alone."""
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(folder / "cube.icechunk")))
    store = repository.readonly_session("main").store
    return xr.open_zarr(store, group=GROUP, mask_and_scale=False, consolidated=False).load()


@pytest.mark.slow
def test_a_killed_run_into_icechunk_is_resumed_and_its_cube_is_the_plain_store_s(
    difffusr, configure, finished_run, tmp_path
):
    path = configure(store={"url": f"icechunk+{tmp_path}/cube.icechunk"})
    command = [Path(sys.executable).with_name("difffusr"), "run", path]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    staging = staging_of(load_config(path))
    deadline = time.monotonic() + 120
    while len(staging.names("chips")) < 3 and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert driver.poll() is None

    refused = difffusr("run", path)
    assert refused.code == 1
    assert f"process {driver.pid}" in refused.err
    assert "Traceback" not in refused.err
    driver.kill()
    driver.wait()
    done = len(staging.names("chips")) + len(staging.names("shards"))
    assert done >= 3

    ended = difffusr("run", path)
    assert ended.code == 0, ended.err
    assert "12 computed" not in ended.out
    whole = xr.open_zarr(finished_run.with_suffix(".zarr"), group=GROUP, mask_and_scale=False).load()
    assert pixels(tmp_path).equals(whole)
    assert "0 computed" in difffusr("run", path).out
    difffusr("verify", path, "--json", tmp_path / "verified.json")
    report = json.loads((tmp_path / "verified.json").read_text())
    assert not report["missing"] + report["damaged"] + report["incomplete"]
    assert all(band["residual"] < 0.003 for band in report["bands"])

    again = difffusr("run", configure(store={"url": f"icechunk+{tmp_path}/cube.icechunk"}, model={"sampler_steps": 4}))
    assert again.code == 0, again.err
    assert "new weights or sampling" in again.out
    assert not pixels(tmp_path).equals(whole)
    told = [" ".join(line.split()) for line in difffusr("history", path).out.splitlines()]
    assert any("revision 2023-06-01 – 2023-07-31 12 snapshot" in line and line.startswith("● 2") for line in told)
    assert any("new period 2023-06-01 – 2023-07-31 12 snapshot" in line for line in told)
    back = difffusr("rollback", path)
    assert back.code == 0, back.err
    assert pixels(tmp_path).equals(whole)
    assert not list((tmp_path / "cube.icechunk").glob("**/zarr.json"))  # everything went through the repository
