"""What the tasks that write shards take: as much memory as they tell Ray, and no library that they do not use."""

from __future__ import annotations

import sys

import pytest
from fresh_python import loaded_by, run_python

from difffusr.pipeline.assemble.blend import blend_memory
from difffusr.pipeline.assemble.halving import halve_memory
from difffusr.pipeline.geo.grid import Grid

MB = 1 << 20
GRID = Grid(shard_px=1024)

#: Chips of noise, which nothing compresses, blended into the four shards of a cube; or one overview made of those.
TASK = """
import datetime as dt, sys
import numpy as np
from difffusr.pipeline.assemble.halving import write_overview
from difffusr.pipeline.assemble.blend import ChipSource
from difffusr.pipeline.assemble.writing import write_shard
from difffusr.pipeline.chips.staging import StagedChip, write_chip
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.geo.grid import Grid, OverviewIndex, PixelWindow
from difffusr.pipeline.publish.plain import PlainWriter
from difffusr.pipeline.storage.objects import Storage

folder, what, std = {folder!r}, {what!r}, {std!r}
grid, staging = Grid(shard_px=1024), Storage(folder + "/staging")
window = PixelWindow(0, 0, 2048, 2048)
days = dt.date(2023, 1, 1), dt.date(2023, 1, 31)
cube = Storage(folder + "/cube.zarr")
draft = draft_cube(cube, grid, {{32632: window}}, days, [{{"id": "a"}}], {{}}, 4 if std else 0)
writer = PlainWriter(draft)
if what == "stage":
    side = grid.chip_side
    noise = np.random.default_rng(0).integers(1, 9000, (12, side, side), np.uint16)
    flat = np.ones((side // 4, side // 4), np.uint8)
    write_chip(staging, "x.chip", StagedChip(noise, flat, flat.astype(np.uint16), noise if std else None))
for shard in grid.shards_touching(window) if what == "blend" else ():
    chips = [ChipSource(place, "x.chip", (1,)) for place in grid.chips_touching(grid.shard_window(shard))]
    write_shard(writer, grid, 32632, shard, chips, [], staging, std)
if what == "halve":
    at = OverviewIndex(1, 0, 0)
    write_overview(writer, 32632, at, at.children)
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak) * 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize("std", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_task_takes_at_most_what_it_declares_and_not_much_less(tmp_path, std):
    peak = {what: int(run_python(TASK.format(folder=str(tmp_path), what=what, std=std)))
            for what in ("stage", "blend", "halve")}  # fmt: skip
    for what, declared in (("blend", blend_memory(GRID, with_std=std)), ("halve", halve_memory(GRID, with_std=std))):
        assert 0.5 * declared < peak[what] < declared, (what, peak[what] // MB, declared // MB)


def test_the_usual_grid_takes_less_than_a_gigabyte_a_task():
    usual = [(f(Grid(), with_std=std)) // MB for f in (blend_memory, halve_memory) for std in (False, True)]
    assert usual == [716, 956, 716, 932]


@pytest.mark.parametrize("module", ["writing", "halving"])
def test_a_worker_that_writes_shards_loads_neither_networks_nor_tables_nor_rasters(module):
    heavy = ("torch", "geopandas", "pandas", "rasterio", "pystac", "pystac_client", "ray", "icechunk", "s3fs")
    assert loaded_by(f"import difffusr.pipeline.assemble.{module}", heavy) == []
