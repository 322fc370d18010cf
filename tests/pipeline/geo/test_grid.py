"""The lattice: indices that mean the same ground in every run."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from difffusr.pipeline.geo.grid import ChipIndex, Grid, PixelWindow, ShardIndex

GRID = Grid()


@given(
    row=st.integers(-4_000_000, 4_000_000), col=st.integers(0, 400_000), h=st.integers(1, 9000), w=st.integers(1, 900)
)
@settings(max_examples=60, deadline=None)
def test_every_pixel_of_a_window_lies_well_inside_some_chip_that_touches_it(row, col, h, w):
    window = PixelWindow(row, col, h, w)
    chips = [GRID.chip_window(c) for c in GRID.chips_touching(window)]
    assert all(c.overlaps(window) for c in chips)
    margin = GRID.margin_px * 4
    for r, c in ((row, col), (row + h - 1, col + w - 1), (row, col + w - 1), (row + h // 2, col + w // 2)):
        assert any(
            chip.row + margin <= r < chip.row_stop - margin and chip.col + margin <= c < chip.col_stop - margin
            for chip in chips
        )


@given(row=st.integers(-2000, 2000), col=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_chips_and_shards_that_touch_know_each_other(row, col):
    shard = ShardIndex(row, col)
    for chip in GRID.chips_touching(GRID.shard_window(shard)):
        assert shard in set(GRID.shards_touching(GRID.chip_window(chip)))


def test_chips_lie_on_the_60_m_lattice():
    left, bottom, right, top = GRID.chip_window(ChipIndex(-1183, 216)).bounds_m(32632)
    assert all(v % 60 == 0 for v in (left, bottom, right, top))
    assert right - left == 1920


def test_a_geobox_has_north_up_and_the_zone():
    box = GRID.chip_window(ChipIndex(-1183, 216)).geobox(32648, 10)
    assert box.shape == (192, 192)
    assert box.crs.epsg == 32648
    assert box.affine.e == -10
    assert box.affine.f == 1183 * 1680


def test_the_extent_of_shards_is_whole_shards():
    window = GRID.shard_extent(np.array([-3, -1, -2]), np.array([5, 5, 7]))
    assert window == PixelWindow(-3 * 2048, 5 * 2048, 3 * 2048, 3 * 2048)


@given(row=st.integers(-5000, 5000), col=st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_cores_tile_the_zone_inside_their_windows(row, col):
    rows, cols = np.array([row, row, row + 1]), np.array([col, col + 1, col])
    here, beside, below = GRID.chip_cores_m(32632, rows, cols)
    assert here[2] == beside[0]
    assert here[1] == below[3]
    left, bottom, right, top = GRID.chip_window(ChipIndex(row, col)).bounds_m(32632)
    half = GRID.overlap_px * 10 / 2
    assert here.tolist() == [left + half, bottom + half, right - half, top - half]


@st.composite
def areas_in_metres(draw) -> shapely.Geometry:
    """Polygons with corners of whole metres, some with a hole, some with an island."""
    x, y = draw(st.integers(200_000, 700_000)), draw(st.integers(-3_000_000, 8_000_000))
    size = draw(st.integers(10, 150_000))
    corners = draw(st.lists(st.tuples(st.integers(0, size), st.integers(0, size)), min_size=3, max_size=7))
    area = shapely.MultiPoint([(x + dx, y + dy) for dx, dy in corners]).convex_hull.buffer(1)
    if draw(st.booleans()):
        ring = area.difference(area.centroid.buffer(size / 7))
        area = area if ring.is_empty else ring
    if draw(st.booleans()):
        area = area.union(shapely.box(x + 2 * size, y, x + 2 * size + 100, y + 77))
    return area


@given(areas_in_metres(), st.sampled_from([GRID, Grid(96, 24, 512, 256), Grid(384, 48)]), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_every_point_of_an_area_lies_in_a_chip_core_and_no_chip_is_there_twice(area, grid, seed):
    rows, cols = grid.chips_over(32632, area)
    assert len(set(zip(rows.tolist(), cols.tolist(), strict=True))) == len(rows)
    west, south, east, north = area.bounds
    points = np.random.default_rng(seed).uniform((west, south), (east, north), (300, 2))
    points = points[shapely.contains_xy(area, *points.T)]
    left, bottom, right, top = grid.chip_cores_m(32632, rows, cols).T
    for x, y in points:
        assert ((left <= x) & (x <= right) & (bottom <= y) & (y <= top)).any()
    # None is there for nothing.
    assert shapely.intersects(area, shapely.box(left, bottom, right, top)).all()


def test_chips_of_neighbouring_areas_coincide():
    one, other = (
        shapely.box(400_000, 1_000_000, 460_000, 1_050_000),
        shapely.box(455_000, 1_000_000, 500_000, 1_050_000),
    )
    first, second, both = (
        set(zip(*(axis.tolist() for axis in GRID.chips_over(32632, area)), strict=True))
        for area in (one, other, one.union(other))
    )
    assert first & second
    assert first | second == both


def test_what_merely_touches_a_core_is_not_over_it():
    core = GRID.chip_cores_m(32632, np.array([-700]), np.array([260]))[0]
    rows, cols = GRID.chips_over(32632, shapely.box(*core))
    assert (rows.tolist(), cols.tolist()) == ([-700], [260])
