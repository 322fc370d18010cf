"""Chips cover an area over borders of zones, the equator and 180°."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from planned_areas import chip_shapes, config, made_scene
from small_cubes import month

from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.geo.grid import Grid, PixelWindow
from difffusr.pipeline.geo.zones import territory, to_zone
from difffusr.pipeline.plan.coverage import chips_of_zones, collar_m
from difffusr.pipeline.plan.planner import make_plan
from difffusr.pipeline.storage.places import storage_of


@pytest.mark.parametrize(("collar", "reach", "most"), [(None, 0.0139, 0.05), (240, 0.0033, 0.035), (0, 0.0033, 0.035)])
def test_a_run_over_two_zones_covers_its_border_from_both_sides(tmp_path, collar, reach, most):
    """Along 12° E: each zone's chips reach past the border by the collar at least, and no point is left out."""
    area = shapely.box(11.9, 50.0, 12.1, 50.1)
    west, east = to_zone(area, 32632).bounds, to_zone(area, 32633).bounds
    size = np.full((900, 900), 4)
    scenes = [
        made_scene(tmp_path, "w", 32632, int(west[0] // 60) * 60 - 600, int(west[3] // 60) * 60 + 600, size),
        made_scene(tmp_path, "e", 32633, int(east[0] // 60) * 60 - 600, int(east[3] // 60) * 60 + 600, size),
    ]
    asked = config(tmp_path, area={"bbox": list(area.bounds)}, grid={"collar_m": collar})
    plan = make_plan(asked, scenes, "model")
    assert plan.zones() == [32632, 32633]
    assert plan.manifest["collar_m"] == {None: 1000, 0: 240}.get(collar, collar)
    shapes, zone = chip_shapes(plan), plan.chips.epsg
    assert shapely.union_all(shapes).buffer(1e-6).covers(area)
    for epsg in plan.zones():
        mine = shapely.union_all(shapes[zone == epsg])
        assert mine.covers(area.intersection(shapely.box(12 - reach, 50, 12 + reach, 50.1)))
        # But not far beyond it: a chip belongs to the zone in which most of it lies, bar the strip to blend.
        foreign = mine.difference(territory(epsg)).intersection(area)
        assert foreign.bounds[2] - foreign.bounds[0] < most


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
    chips = chips_of_zones(area, everywhere, grid, 240.0)
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


@pytest.mark.parametrize(
    ("held", "asked", "collar"), [(None, None, 60), (500.0, None, 500), (None, 900, 900), (500.0, 30, 60)]
)
def test_a_cube_keeps_the_collar_that_it_began_with(tmp_path, held, asked, collar):
    """Cubes of earlier versions do not say: theirs was one overlap."""
    settings = config(
        tmp_path, grid={"chip_px": 24, "overlap_px": 6, "shard_px": 64, "chunk_px": 32, "collar_m": asked}
    )
    grid = Grid(24, 6, 64, 32)
    draft = draft_cube(
        storage_of(settings), grid, {32632: PixelWindow(-128, 320, 128, 128)}, month(6), [], {}, collar_m=held
    )
    for path, content in draft.objects.items():
        storage_of(settings).write(path, content)
    assert collar_m(settings) == collar
