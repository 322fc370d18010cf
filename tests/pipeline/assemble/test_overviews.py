"""The overviews of a cube: which are made again, and which never."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from small_cubes import EPSG, GRID, published

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.assemble.ledger import OVERVIEWS, Entry, write_entry
from difffusr.pipeline.assemble.overviews import Overviews, plan_overviews
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import OverviewIndex, PixelWindow, ShardIndex
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.storage.objects import Storage

EIGHT = PixelWindow(0, 0, 8 * 64, 8 * 64)


def planned(
    home: Path, digests: dict[tuple[int, ShardIndex], str], done: bool = True, **more: Any
) -> tuple[Overviews, Any]:
    """The overviews of eight by eight shards, and the target; entered as written where `done`."""
    storage, staging = Storage(str(home / "cube.zarr")), Storage(str(home / "staging"))
    draft = draft_cube(storage, GRID, {EPSG: EIGHT}, (dt.date(2023, 1, 1), dt.date(2023, 1, 31)), [{"id": "a"}], {})
    target = open_target(storage, staging, draft, "2023-01")
    overviews = plan_overviews(draft, target, staging, digests, **more)
    if done:
        target.begin()
        flat = np.ones((64, 64), np.uint8)
        for epsg, at in overviews.made_of:
            data = ShardData(np.ones((len(BANDS), 64, 64), np.uint16), flat, flat.astype(np.uint16))
            objects = target.writer().write(epsg, at, data).objects
            name = f"{epsg}/{at.level}/{at.row}_{at.col}"
            entry = Entry(name, overviews.digests[epsg, at], target.state(epsg), OVERVIEWS)
            write_entry(staging, entry, {"objects": objects})
    return overviews, target


def shards(**changed: str) -> dict[tuple[int, ShardIndex], str]:
    """Digests of 8 × 8 shards; `_r_c` names one that is not as the others."""
    return {(EPSG, ShardIndex(r, c)): changed.get(f"_{r}_{c}", "same") for r in range(8) for c in range(8)}


def test_everything_is_to_be_made_at_first_and_nothing_once_it_is_made(tmp_path):
    first, _ = planned(tmp_path, shards())
    assert Counter(at.level for _, at in first.todo) == {1: 16, 2: 4, 3: 1}
    again, _ = planned(tmp_path, shards(), done=False)
    assert not again.todo
    assert again.digests == first.digests


def test_a_changed_shard_changes_what_lies_above_it_and_nothing_else(tmp_path):
    planned(tmp_path, shards())
    after, _ = planned(tmp_path, shards(_5_2="other"), done=False)
    assert after.todo == {
        (EPSG, OverviewIndex(1, 2, 1)),
        (EPSG, OverviewIndex(2, 1, 0)),
        (EPSG, OverviewIndex(3, 0, 0)),
    }


def test_a_shard_that_is_no_longer_planned_changes_what_lies_above_it(tmp_path):
    planned(tmp_path, shards())
    fewer = {place: digest for place, digest in shards().items() if place[1] != (7, 7)}
    after, _ = planned(tmp_path, fewer, done=False)
    assert {at for _, at in after.todo} == {OverviewIndex(1, 3, 3), OverviewIndex(2, 1, 1), OverviewIndex(3, 0, 0)}


def test_what_is_entered_but_not_there_is_made_again(tmp_path):
    planned(tmp_path, shards())
    (tmp_path / "cube.zarr" / str(EPSG) / "2" / "quality" / "c" / "0" / "1" / "0").unlink()
    after, _ = planned(tmp_path, shards(), done=False)
    assert after.todo == {(EPSG, OverviewIndex(2, 1, 0))}


def test_a_published_overview_whose_objects_are_gone_is_lost(tmp_path):
    _, target = planned(tmp_path, shards())
    target.publish(shards_written=64, keep=1)
    (tmp_path / "cube.zarr" / str(EPSG) / "1" / "source" / "c" / "0" / "3" / "3").unlink()
    after, _ = planned(tmp_path, shards(), done=False)
    assert (after.todo, after.lost) == (set(), {(EPSG, OverviewIndex(1, 3, 3))})


def test_readers_of_an_icechunk_repository_have_overviews_too(tmp_path):
    storage, staging = Storage(f"icechunk+file://{tmp_path}/cube"), Storage(str(tmp_path / "staging"))
    published(storage, staging, 1, 11)
    published(storage, staging, 2, 12)
    from difffusr.pipeline.cube.store import open_store

    cube = xr.open_zarr(open_store(storage), group=f"{EPSG}/1", consolidated=False, mask_and_scale=False, chunks=None)
    assert [set(np.unique(cube.reflectance[step]).tolist()) for step in (0, 1)] == [{11}, {12}]
