"""A disk that fills up while a run writes to it: one line, nothing lost, and the same cube once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.storage.places import staging_of

GROUP = "32632/0"


def mount(folder: Path, size: str, *more: str) -> bool:
    options = ",".join([f"size={size}", *more])
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds the plan, some chips, and no cube."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = mount(folder, "1500k")
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system cannot be mounted here (that takes root)")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_ends_a_run_in_one_line_and_more_room_mends_it(
    difffusr, configure, finished_run, small_disk
):
    path = configure(store={"url": f"{small_disk}/cube.zarr"}, failures={"max_failed": 0.1})
    ended = difffusr("run", path)
    assert ended.code == 1
    assert "No space left on device" in ended.err
    assert "Traceback" not in ended.out + ended.err
    assert not (small_disk / "cube.zarr" / "zarr.json").exists()
    staged = staging_of(load_config(path)).names("chips")
    assert staged
    assert mount(small_disk, "100m", "remount")
    again = difffusr("run", path)
    assert again.code == 0, again.err
    assert f"{12 - len(staged)} computed" in again.out
    here, whole = (
        xr.open_zarr(cube, group=GROUP, mask_and_scale=False)
        for cube in (small_disk / "cube.zarr", finished_run.with_suffix(".zarr"))
    )
    assert here.load().equals(whole.load())
