"""A plan's tables know which chips a shard is blended from."""

from __future__ import annotations

from planned_areas import plan_under

from difffusr.pipeline.geo.grid import Grid


def test_shards_know_their_chips(real_scenes, tmp_path):
    plan = plan_under("neighbours", real_scenes, tmp_path)
    grid = Grid()
    by_name = {chip.name: chip for chip in plan.chips}
    for shard in list(plan.shards)[::50]:
        touching = {f"{shard.epsg}/{c.row}_{c.col}" for c in grid.chips_touching(grid.shard_window(shard.index))}
        assert [chip.name for chip in shard.chips] == sorted(
            touching & by_name.keys(), key=lambda name: by_name[name].index
        )
