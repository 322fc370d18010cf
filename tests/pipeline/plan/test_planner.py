"""What is planned over real classifications and over made scenes."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from planned_areas import CLEAR, chip_shapes, config, in_degrees_of, made_scene, plan_under
from pyproj import Transformer

from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.pixels import UNMEASURED
from difffusr.pipeline.plan.planner import make_plan
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.windows import read_window


def first_dates(plan: Plan) -> np.ndarray:
    days = np.array([scene.datetime.day for scene in plan.scenes])
    return days[plan.chips.scenes[:, 0]]


@pytest.mark.parametrize("policy", ["clearest", "neighbours"])
def test_the_clear_scenes_are_chosen(policy, real_scenes, tmp_path):
    """15 August is clear, 18 August cloudy: only where the swath of the 15th ends may the 18th come first."""
    plan = plan_under(policy, real_scenes, tmp_path)
    shown = [s.footprint for s in real_scenes if s.datetime.day == 15]
    clear_day = shapely.union_all(shown)
    centres = shapely.points(
        np.stack([gpd.GeoSeries(chip_shapes(plan)).centroid.x, gpd.GeoSeries(chip_shapes(plan)).centroid.y], axis=1)
    )
    inside = shapely.contains(clear_day.buffer(-0.03), centres)
    assert inside.mean() > 0.8
    assert (first_dates(plan)[inside] == 15).mean() > 0.99


def test_borders_between_dates_are_few_where_neighbours_agree(real_scenes, tmp_path):
    clearest = plan_under("clearest", real_scenes, tmp_path)
    neighbours = plan_under("neighbours", real_scenes, tmp_path)
    assert neighbours.manifest["borders"] <= 0.6 * clearest.manifest["borders"]
    # And nothing is lost by it: further scenes fill what the first one masks.
    assert neighbours.manifest["clear_share"] >= clearest.manifest["clear_share"] - 0.002


def test_borders_are_counted_as_neighbouring_chips_of_different_dates(real_scenes, tmp_path):
    plan = plan_under("newest", real_scenes, tmp_path)
    date = {(chip.index.row, chip.index.col): chip.scenes[0][10:18] for chip in plan.chips}
    sides = ((0, 1), (1, 0))
    counted = sum(date.get((r + dr, c + dc), own) != own for (r, c), own in date.items() for dr, dc in sides)
    assert plan.manifest["borders"] == counted > 0


def test_a_further_scene_fills_clouds(real_scenes, tmp_path):
    alone = plan_under("newest", real_scenes, tmp_path, max_scenes=1)
    filled = plan_under("newest", real_scenes, tmp_path, max_scenes=3)
    assert filled.manifest["clear_share"] > alone.manifest["clear_share"] + 0.1
    assert {len(chip.scenes) for chip in alone.chips} == {1}


def test_chips_change_only_where_a_scene_changed(tmp_path):
    one = made_scene(tmp_path, "west", 32633, 499_980, 5_200_020, CLEAR)
    other = made_scene(tmp_path, "east", 32633, 509_940, 5_200_020, CLEAR, day=2)
    settings = config(tmp_path, area={"bbox": [14.9, 46.7, 15.4, 47.0]})
    before = make_plan(settings, [one, other], "model")
    after = make_plan(settings, [one, replace(other, updated="2024-01-01T00:00:00Z")], "model")
    assert [chip.scenes for chip in before.chips] == [chip.scenes for chip in after.chips]
    for old, new in zip(before.chips, after.chips, strict=True):
        assert (old.key != new.key) == ("east" in old.scenes)
    for old, new in zip(before.shards, after.shards, strict=True):
        assert (old.key != new.key) == any("east" in chip.scenes for chip in old.chips)
    assert make_plan(settings, [one, other], "other weights").chips[0].key != before.chips[0].key


def test_a_scene_on_its_own_gives_the_same_chips_in_every_run(tmp_path):
    scene = made_scene(tmp_path, "alone", 32633, 499_980, 5_200_020, CLEAR)
    left = make_plan(config(tmp_path, area={"bbox": [15.0, 46.85, 15.09, 46.95]}), [scene], "model")
    right = make_plan(config(tmp_path, area={"bbox": [15.06, 46.85, 15.15, 46.95]}), [scene], "model")
    both = {chip.index for chip in left.chips} & {chip.index for chip in right.chips}
    assert both
    assert {c.object_name for c in left.chips if c.index in both} == {
        c.object_name for c in right.chips if c.index in both
    }


def test_a_scene_that_cannot_be_read_is_left_out_with_a_warning(tmp_path, caplog):
    good = made_scene(tmp_path, "good", 32633, 499_980, 5_200_020, CLEAR)
    bad = made_scene(tmp_path, "bad", 32633, 499_980, 5_200_020, CLEAR)
    Path(bad.scl.href).write_bytes(b"no raster")
    settings = config(tmp_path, area={"bbox": [14.9, 46.7, 15.4, 47.0]})
    with caplog.at_level(logging.WARNING):
        plan = make_plan(settings, [good, bad], "model")
    assert [scene.id for scene in plan.scenes] == ["good"]
    assert "scene left out: scene bad" in caplog.text
    with pytest.raises(CatalogError, match="none of the 1 scenes found can be read"):
        make_plan(settings, [bad], "model")


def test_southern_tiles_are_read_where_they_lie(tmp_path):
    """South of the equator tiles begin at multiples of 60 m from 10 000 000 m: 9 500 020 is one, and 40 more than one
    from 0."""
    top = 9_500_020
    assert (10_000_000 - top) % 60 == 0 != top % 60
    classes = np.full((600, 600), 4)
    classes[:96, :96] = 9  # one cloud of 1920 m in the corner
    scene = made_scene(tmp_path, "south", 32724, 399_960, top, classes)
    area = in_degrees_of(shapely.box(399_960, top - 12_000, 411_960, top), 32724)
    settings = config(tmp_path, area={"bbox": list(area.bounds)}, scenes={"allow_cloudy": False})
    plan = make_plan(settings, [scene], "model")
    ground = shapely.transform(
        shapely.union_all(chip_shapes(plan)),
        lambda x, y: np.stack(Transformer.from_crs("EPSG:4326", "EPSG:32724", always_xy=True).transform(x, y)),
        interleaved=False,
    )
    cloud = shapely.box(399_960, top - 1920, 399_960 + 1920, top)
    assert ground.buffer(1).covers(shapely.box(*scene_bounds(scene)).difference(cloud.buffer(2000)))
    for chip in plan.chips:
        window = Grid().chip_window(chip.index)
        assert window.bounds_m(32724)[3] % 60 == 40
        shown = read_window(scene, "SCL", window)
        left, _, _, above = window.bounds_m(32724)
        rows, cols = (np.arange(96) * 20 + 10 for _ in range(2))
        inside = (above - rows[:, None] < top) & (above - rows[:, None] > top - 12_000)
        inside = inside & (left + cols > 399_960) & (left + cols < 411_960)
        clouded = inside & (above - rows[:, None] > top - 1920) & (left + cols < 399_960 + 1920)
        assert np.array_equal(shown, np.where(clouded, 9, np.where(inside, 4, UNMEASURED)))


def scene_bounds(scene: Scene) -> tuple[float, float, float, float]:
    left, top = scene.scl.transform[2], scene.scl.transform[5]
    return left, top - 12_000, left + 12_000, top
