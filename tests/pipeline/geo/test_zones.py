"""The zones share out the globe, and overlap where they are blended."""

from __future__ import annotations

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from difffusr.pipeline.geo.zones import near_zone, territory, to_zone, utm_epsg, zones_over


@given(lon=st.floats(-180, 179.999), lat=st.floats(-79.9, 83.9))
@settings(max_examples=200, deadline=None)
def test_territories_are_where_positions_fall_into_their_zone(lon, lat):
    home = utm_epsg(lon, lat)
    assert territory(home).buffer(1e-9).covers(shapely.Point(lon, lat))


def test_territories_tile_the_globe():
    codes = [code + zone for code in (32600, 32700) for zone in range(1, 61)]
    assert sum(territory(epsg).area for epsg in codes) == pytest.approx(360 * 164)
    assert shapely.union_all([territory(epsg) for epsg in codes]).area == pytest.approx(360 * 164)
    assert territory(4326).is_empty


def test_zones_that_only_touch_an_area_are_not_over_it():
    assert zones_over(shapely.box(6, 45, 12, 50)) == [32632]
    assert zones_over(shapely.box(5.9, -1, 12, 1)) == [32631, 32632, 32731, 32732]
    fiji = shapely.MultiPolygon([shapely.box(177, -19, 180, -16), shapely.box(-180, -19, -179, -16)])
    assert zones_over(fiji) == [32701, 32760]


def test_two_zones_share_a_strip_along_their_border_wide_enough_to_blend():
    area = shapely.box(11, 50, 13, 51)
    west, east = near_zone(area, 32632, 240), near_zone(area, 32633, 240)
    strip = to_zone(territory(32633), 32632).intersection(west)
    assert strip.area == pytest.approx(240 * 111_250, rel=0.02)
    back = to_zone(shapely.box(12, 50, 13, 51), 32633)
    assert back.difference(east).area < 1


def test_a_zone_at_180_degrees_has_its_collar_on_the_other_side():
    area = shapely.MultiPolygon([shapely.box(179.9, -18, 180, -17), shapely.box(-180, -18, -179.9, -17)])
    west, east = near_zone(area, 32760, 240), near_zone(area, 32701, 240)
    assert west.geom_type == east.geom_type == "Polygon"
    length = 110_700
    assert west.area == pytest.approx((0.1 * 106_000 + 240) * length, rel=0.02)
    assert east.area == pytest.approx(west.area, rel=0.01)


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
