"""What is planned over real classifications, over zone borders and across 180°, and what of it is on disk."""

from __future__ import annotations

import datetime as dt
import json
import logging
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from beside import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.geo.globe import in_degrees
from difffusr.pipeline.geo.grid import Grid, grid_of
from difffusr.pipeline.geo.zones import territory, to_zone
from difffusr.pipeline.ground.errors import CatalogError, StoreError
from difffusr.pipeline.plan.coverage import chips_of_zones
from difffusr.pipeline.plan.files import read_plan, write_plan
from difffusr.pipeline.plan.planner import make_plan
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.scenes.item import Asset, Scene
from difffusr.pipeline.scenes.search import find_scenes
from difffusr.pipeline.scenes.windows import read_window
from difffusr.pipeline.storage.objects import Storage

OVERVIEWS = SHARED / "data" / "overviews_120m" / "catalog.json"
SEEN = ("B02", "B03", "B04", "B08")


def config(folder: Path, **sections: Any) -> RunConfig:
    content: dict[str, Any] = {
        "name": "test",
        "area": {"bbox": [14.9, 45.0, 16.5, 47.0]},
        "period": {"start": "2023-08-01", "end": "2023-08-31"},
        "source": {"static_catalog": str(OVERVIEWS)},
        "store": {"url": str(folder / "cube.zarr")},
    }
    return RunConfig.model_validate(content | sections, context={"folder": folder})


# ---- real clouds ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_scenes(tmp_path_factory) -> list[Scene]:
    if not OVERVIEWS.exists():
        pytest.skip(f"no real scenes: {OVERVIEWS.parent} is not there")
    return find_scenes(config(tmp_path_factory.mktemp("real")), bands=SEEN)


def plan_under(policy: str, scenes: list[Scene], folder: Path, **wishes: Any) -> Plan:
    return make_plan(config(folder, scenes={"policy": policy, **wishes}), scenes, "model")


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


def chip_shapes(plan: Plan) -> np.ndarray:
    bounds = Grid().chip_cores_m(plan.chips.epsg, plan.chips.row.astype(np.int64), plan.chips.col.astype(np.int64))
    return in_degrees(bounds, plan.chips.epsg)


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
    with pytest.raises(StoreError, match="not a plan of this version"):
        read_plan(Storage(str(tmp_path)))


def test_shards_know_their_chips(real_scenes, tmp_path):
    plan = plan_under("neighbours", real_scenes, tmp_path)
    grid = Grid()
    by_name = {chip.name: chip for chip in plan.chips}
    for shard in list(plan.shards)[::50]:
        touching = {f"{shard.epsg}/{c.row}_{c.col}" for c in grid.chips_touching(grid.shard_window(shard.index))}
        assert [chip.name for chip in shard.chips] == sorted(
            touching & by_name.keys(), key=lambda name: by_name[name].index
        )


# ---- made scenes ----------------------------------------------------------------------------------------------------


def made_scene(folder: Path, name: str, epsg: int, left: int, top: int, classes: np.ndarray, day: int = 1) -> Scene:
    """A scene whose classification of 20 m pixels is written to a file."""
    path = folder / f"{name}.tif"
    transform = rasterio.Affine(20, 0, left, 0, -20, top)
    height, width = classes.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype="uint8", crs=f"EPSG:{epsg}",
        transform=transform,
    ) as file:  # fmt: skip
        file.write(classes.astype(np.uint8), 1)
    scl = Asset(str(path), 20, 0, 0, classes.shape, tuple(transform)[:6], "GTiff")
    square = shapely.box(left, top - 20 * height, left + 20 * width, top)
    return Scene(
        id=name, collection="c", datetime=dt.datetime(2023, 8, day, 10, tzinfo=dt.UTC), tile="33TWL", epsg=epsg,
        baseline="05.09", cloud_cover=0.0, provider="local", footprint=in_degrees_of(square, epsg), assets={}, scl=scl,
        product_uri=None, datatake=None, created=None, updated=None, sequence=None,
    )  # fmt: skip


def in_degrees_of(shape: shapely.Geometry, epsg: int) -> shapely.Geometry:
    transformer = Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326", always_xy=True)
    return shapely.transform(shapely.segmentize(shape, 500), transformer.transform, interleaved=False)


CLEAR = np.full((600, 600), 4)


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


def test_a_run_over_two_zones_covers_its_border_from_both_sides(tmp_path):
    """Along 12° E: each zone's chips reach past the border by the overlap at least, and no point is left out."""
    area = shapely.box(11.9, 50.0, 12.1, 50.1)
    west, east = to_zone(area, 32632).bounds, to_zone(area, 32633).bounds
    size = np.full((900, 900), 4)
    scenes = [
        made_scene(tmp_path, "w", 32632, int(west[0] // 60) * 60 - 600, int(west[3] // 60) * 60 + 600, size),
        made_scene(tmp_path, "e", 32633, int(east[0] // 60) * 60 - 600, int(east[3] // 60) * 60 + 600, size),
    ]
    plan = make_plan(config(tmp_path, area={"bbox": list(area.bounds)}), scenes, "model")
    assert plan.zones() == [32632, 32633]
    shapes, zone = chip_shapes(plan), plan.chips.epsg
    assert shapely.union_all(shapes).buffer(1e-6).covers(area)
    for epsg in plan.zones():
        mine = shapely.union_all(shapes[zone == epsg])
        assert mine.covers(area.intersection(shapely.box(11.9967, 50, 12.0033, 50.1)))
        # But not far beyond it: a chip belongs to the zone in which most of it lies, bar the strip to blend.
        foreign = mine.difference(territory(epsg)).intersection(area)
        assert foreign.bounds[2] - foreign.bounds[0] < 0.035


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
        assert np.array_equal(shown, np.where(clouded, 9, np.where(inside, 4, 0)))


def scene_bounds(scene: Scene) -> tuple[float, float, float, float]:
    left, top = scene.scl.transform[2], scene.scl.transform[5]
    return left, top - 12_000, left + 12_000, top


def test_a_zone_without_scenes_is_served_by_its_neighbours(tmp_path):
    area = shapely.box(11.9, 50.0, 12.1, 50.1)
    west = to_zone(area, 32632).bounds
    corner = int(west[0] // 60) * 60 - 600, int(west[3] // 60) * 60 + 600
    scene = made_scene(tmp_path, "w", 32632, *corner, np.full((900, 900), 4))
    plan = make_plan(config(tmp_path, area={"bbox": list(area.bounds)}), [scene], "model")
    assert plan.zones() == [32632]
    assert shapely.union_all(chip_shapes(plan)).buffer(1e-6).covers(area)


@given(
    lon=st.sampled_from([0.0, 5.99, 12.0, 102.0, 179.95, -180.0, -0.02]),
    lat=st.sampled_from([-54.3, -0.01, 0.0, 47.3, 63.99, 71.95]),
    width=st.floats(0.01, 0.4),
    height=st.floats(0.01, 0.3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_every_point_of_an_area_lies_in_a_chip_core_of_its_own_zone(lon, lat, width, height, seed):
    """Over zone borders, the equator, 180° and Norway's wider zones; no chip is planned twice."""
    east = lon + width
    area = shapely.box(lon, lat, min(east, 180.0), lat + height)
    if east > 180:
        area = area.union(shapely.box(-180, lat, east - 360, lat + height))
    everywhere = {
        code + zone: shapely.box(-180, -80, 180, 84)
        for code in (32600, 32700)
        for zone in range(1, 61)
        if area.intersects(territory(code + zone))
    }
    grid = Grid()
    chips = chips_of_zones(area, everywhere, grid)
    rng = np.random.default_rng(seed)
    points = [(((lon + rng.random() * width) + 180) % 360 - 180, lat + rng.random() * height) for _ in range(40)]
    for x, y in points:
        point = shapely.Point(x, y)
        assert any(
            lies_in_a_core(point, epsg, *chips[epsg], grid) for epsg in chips if territory(epsg).covers(point)
        ), (x, y)
    for rows, cols in chips.values():
        assert len(set(zip(rows.tolist(), cols.tolist(), strict=True))) == len(rows)


def lies_in_a_core(point, epsg, rows, cols, grid) -> bool:
    moved = to_zone(point, epsg)
    left, bottom, right, top = grid.chip_cores_m(epsg, rows, cols).T
    return bool(((left <= moved.x) & (moved.x <= right) & (bottom <= moved.y) & (moved.y <= top)).any())


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
