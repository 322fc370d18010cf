"""Points at which scenes are compared: the same ones in every zone, evenly spread, on both sides of 180° too."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import Transformer

from difffusr.pipeline.plan.balance.points import points_within

TILE = 109_800.0


def degrees(points, epsg):
    longitude, latitude = Transformer.from_crs(epsg, 4326, always_xy=True).transform(points.x, points.y)
    return longitude, latitude


@pytest.mark.parametrize("spacing_m", [120.0, 480.0, 1920.0])
@pytest.mark.parametrize(
    ("epsg", "north"), [(32633, 5_200_020), (32733, 6_200_000), (32635, 7_900_020), (32601, 100_000)]
)
def test_points_are_as_far_apart_as_asked_and_in_order(spacing_m: float, epsg: int, north: float) -> None:
    side = min(TILE, 60 * spacing_m)
    bounds = (499_980.0, north - side, 499_980.0 + side, north)
    points = points_within(bounds, epsg, spacing_m)
    assert len(points.number) == pytest.approx(side**2 / spacing_m**2, rel=0.1)
    assert (np.diff(points.number) > 0).all()
    assert (points.x >= bounds[0]).all()
    assert (points.x < bounds[2]).all()
    assert (points.y > bounds[1]).all()
    assert (points.y <= bounds[3]).all()


@pytest.mark.parametrize(
    ("one", "other", "longitude"), [(32632, 32633, 12.0), (32660, 32601, 180.0), (32601, 32660, -180.0)]
)
def test_zones_share_the_points_of_their_border(one: int, other: int, longitude: float) -> None:
    found = {}
    for epsg in (one, other):
        x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(longitude, 46.0)
        points = points_within((x - 15_000, y - 15_000, x + 15_000, y + 15_000), epsg, 500.0)
        found[epsg] = dict(zip(points.number.tolist(), zip(*degrees(points, epsg), strict=True), strict=True))
    common = found[one].keys() & found[other].keys()
    assert len(common) > 0.8 * len(found[one])
    for number in common:
        (x0, y0), (x1, y1) = found[one][number], found[other][number]
        assert abs((x0 - x1 + 180) % 360 - 180) < 1e-6
        assert abs(y0 - y1) < 1e-6


@pytest.mark.parametrize("epsg", [32633, 32733])
def test_no_two_places_share_a_number(epsg: int) -> None:
    north = 5_000_000.0
    whole = points_within((400_000, north - 40_000, 440_000, north), epsg, 700.0)
    parts = [points_within((400_000 + dx, north - 40_000, 420_000 + dx, north), epsg, 700.0) for dx in (0, 20_000)]
    assert len(np.unique(whole.number)) == len(whole.number)
    assert np.array_equal(np.sort(np.concatenate([part.number for part in parts])), whole.number)


def test_an_extent_smaller_than_the_spacing_may_hold_none() -> None:
    assert len(points_within((500_000, 5_000_000, 500_060, 5_000_060), 32633, 5_000.0).number) <= 1
