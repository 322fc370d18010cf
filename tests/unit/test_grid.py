"""The lattice: indices that mean the same ground in every run."""

from __future__ import annotations

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.grid import ChipIndex, Grid, PixelWindow, ShardIndex, to_zone, utm_epsg, window_around

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
    left, bottom, right, top = GRID.chip_window(ChipIndex(-1183, 216)).bounds_m()
    assert all(v % 60 == 0 for v in (left, bottom, right, top))
    assert right - left == 1920


def test_a_geobox_has_north_up_and_the_zone():
    box = GRID.chip_window(ChipIndex(-1183, 216)).geobox(32648, 10)
    assert box.shape == (192, 192)
    assert box.crs.epsg == 32648
    assert box.affine.e == -10
    assert box.affine.f == 1183 * 1680


def test_windows_around_areas_hold_them():
    area = shapely.Point(500_000, 2_000_001).buffer(1234.5)
    assert window_around(area).box().contains(area)


def test_the_extent_of_shards_is_whole_shards():
    window = GRID.shard_extent([ShardIndex(-3, 5), ShardIndex(-1, 5), ShardIndex(-2, 7)])
    assert window == PixelWindow(-3 * 2048, 5 * 2048, 3 * 2048, 3 * 2048)


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (103.7, 17.9, 32648),
        (5.3, 60.4, 32632),
        (15.6, 78.2, 32633),
        (-70.0, -33.0, 32719),
        (179.99, 66.0, 32660),
        (-180.0, 66.0, 32601),
    ],
)
def test_positions_fall_into_their_zone(lon, lat, epsg):
    assert utm_epsg(lon, lat) == epsg


def test_areas_are_carried_into_a_zone():
    moved = to_zone(shapely.box(103.70, 17.91, 103.76, 17.96), 32648)
    left, bottom, right, top = moved.bounds
    assert 362_000 < left < right < 369_500
    assert 1_980_000 < bottom < top < 1_987_200


def test_a_grid_off_the_lattice_is_refused():
    with pytest.raises(ValueError, match="multiples of 6"):
        Grid(chip_px=100)
