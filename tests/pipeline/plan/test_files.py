"""A plan on disk is the same every time, opens elsewhere, and comes back as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from planned_areas import config, made_scene

from difffusr.pipeline.geo.grid import grid_of
from difffusr.pipeline.geo.zones import to_zone
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.plan.files import read_plan, write_plan
from difffusr.pipeline.plan.planner import make_plan
from difffusr.pipeline.storage.objects import Storage


def test_the_same_input_gives_the_same_bytes(real_scenes, tmp_path):
    for name in ("one", "other"):
        settings = config(tmp_path)
        ordered = real_scenes if name == "one" else real_scenes[::-1]
        write_plan(make_plan(settings, ordered, "model"), grid_of(settings), Storage(str(tmp_path / name)))
    for file in ("scenes.parquet", "chips.parquet", "shards.parquet", "manifest.json"):
        assert (tmp_path / "one/plan" / file).read_bytes() == (tmp_path / "other/plan" / file).read_bytes()


def test_a_plan_opens_in_geopandas_and_comes_back_as_it_was(real_scenes, tmp_path):
    settings = config(tmp_path)
    plan = make_plan(settings, real_scenes, "model")
    staging = Storage(str(tmp_path / "staging"))
    write_plan(plan, grid_of(settings), staging)
    chips = gpd.read_parquet(tmp_path / "staging/plan/chips.parquet")
    shards = gpd.read_parquet(tmp_path / "staging/plan/shards.parquet")
    scenes = gpd.read_parquet(tmp_path / "staging/plan/scenes.parquet")
    assert len(chips) == len(plan.chips)
    assert len(shards) == len(plan.shards)
    assert list(scenes["id"]) == [scene.id for scene in plan.scenes]
    assert chips.crs.equals("OGC:CRS84")
    assert chips.geometry.is_valid.all()
    assert chips.union_all().buffer(1e-6).covers(shards.union_all().intersection(chips.union_all()))
    assert list(chips["scenes"].iloc[0]) == list(plan.chips[0].scenes)
    assert chips["date"].iloc[0].isoformat()[:7] == "2023-08"
    metadata = json.loads(pq.read_metadata(tmp_path / "staging/plan/chips.parquet").metadata[b"geo"])
    assert metadata["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    assert metadata["columns"]["geometry"]["bbox"] == pytest.approx(chips.total_bounds.tolist(), abs=1e-6)
    stored = read_plan(staging)
    assert list(stored.chips) == list(plan.chips)
    assert stored.shards.names() == plan.shards.names()
    assert np.array_equal(stored.shards.key, plan.shards.key)
    assert stored.manifest == json.loads(json.dumps(plan.manifest))


def test_what_is_not_a_plan_is_one_clear_line(tmp_path):
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be read"):
        read_plan(Storage(str(tmp_path)))
    folder = Storage(str(tmp_path)).child("plan")
    for name in ("scenes", "chips", "shards"):
        folder.write(f"{name}.parquet", b"PAR1 no")
    folder.write("manifest.json", b"{}")
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be understood .* plan again"):
        read_plan(Storage(str(tmp_path)))


def test_chips_on_180_degrees_are_drawn_on_both_sides_of_it(tmp_path):
    area = shapely.MultiPolygon([shapely.box(179.9, -18, 180, -17.9), shapely.box(-180, -18, -179.9, -17.9)])
    west = to_zone(shapely.box(179.9, -18, 180, -17.9), 32760).bounds
    corner = int(west[0] // 60) * 60 - 600, int(west[3] // 60) * 60 + 600
    scene = made_scene(tmp_path, "fiji", 32760, *corner, np.full((1000, 1300), 4))
    scene = replace(scene, footprint=area.buffer(0.02).intersection(shapely.box(-180, -90, 180, 90)))
    settings = config(tmp_path, area={"bbox": [179.9, -18, -179.9, -17.9]})
    plan = make_plan(settings, [scene], "model")
    write_plan(plan, grid_of(settings), Storage(str(tmp_path / "staging")))
    chips = gpd.read_parquet(BytesIO((tmp_path / "staging/plan/chips.parquet").read_bytes()))
    assert "MultiPolygon" in set(chips.geom_type)
    assert (chips.bounds["maxx"] <= 180).all()
    assert (chips.bounds["minx"] >= -180).all()
    assert (chips.to_crs(32760).area / 1680**2).between(0.99, 1.01).all()
    assert chips.union_all().buffer(1e-6).covers(area)
