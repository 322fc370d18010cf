"""Ground near 180° is found however its longitudes are written, on either side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo.globe import cut_at_180


def on_sphere(lon: Any, lat: Any) -> Any:
    """(…, 3) unit vectors of positions in degrees, which know nothing of 180°."""
    x, y = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)


def written(ring: list[tuple[float, float]], how: str) -> BaseGeometry:
    """A ring whose longitudes continue past 180°, as catalogues write it."""
    if how == "in one piece":
        return Polygon(ring)
    if how == "a turn before":
        return Polygon([(lon - 360, lat) for lon, lat in ring])
    if how == "a turn on":
        return Polygon([(lon + 360, lat) for lon, lat in ring])
    if how == "from 0 to 360":
        return Polygon([(lon % 360, lat) for lon, lat in ring])
    if how == "within 180":
        return Polygon([((lon + 180) % 360 - 180, lat) for lon, lat in ring])
    if how == "backwards":
        return Polygon([((lon + 180) % 360 - 180, lat) for lon, lat in reversed(ring)])
    if how == "with heights":
        return Polygon([((lon + 180) % 360 - 180, lat, 300.0) for lon, lat in ring])
    whole = Polygon(ring)
    west, east = whole.intersection(box(0, -90, 180, 90)), whole.intersection(box(180, -90, 360, 90))
    beyond = shapely.transform(east, lambda x, y: (x - 360, y), interleaved=False)
    parts = [part for part in (west, beyond if how == "split" else east) if part.area > 0]
    return MultiPolygon(parts)


WAYS = [
    "in one piece", "a turn before", "a turn on", "from 0 to 360", "within 180", "backwards", "with heights", "split",
    "split beyond 180",
]  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    middle=st.floats(177, 183),
    lat=st.floats(-83.5, 83.5),
    half_width=st.floats(0.05, 4),
    half_height=st.floats(0.05, 0.5),
    lean=st.floats(-0.5, 0.5),
    start=st.integers(0, 3),
    how=st.sampled_from(WAYS),
    at=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
)
def test_points_are_inside_as_they_are_on_the_sphere(
    middle: float, lat: float, half_width: float, half_height: float, lean: float, start: int, how: str, at: Any
) -> None:
    shift = lean * half_width
    corners = [
        (middle - half_width + shift, lat + half_height),
        (middle + half_width + shift, lat + half_height),
        (middle + half_width - shift, lat - half_height),
        (middle - half_width - shift, lat - half_height),
    ]
    corners = corners[start:] + corners[:start]
    cut = cut_at_180(written([*corners, corners[0]], how))
    whole = shapely.make_valid(shapely.force_2d(cut))
    assert -180 <= whole.bounds[0] <= whole.bounds[2] <= 180
    assert whole.area == pytest.approx(4 * half_width * half_height, rel=1e-6)
    # Where a point is, by the angle of its meridian and the middle's on the sphere.
    x, y = middle + at[0] * half_width, lat + at[1] * half_height
    east, along = on_sphere(x, 0), on_sphere(middle, 0)
    angle = np.degrees(np.arctan2(np.cross(along, east)[2], along @ east))
    inside_lon = abs(angle - shift * (y - lat) / half_height) < half_width
    inside_lat = abs(y - lat) < half_height
    near_edge = min(abs(abs(angle - shift * (y - lat) / half_height) - half_width), abs(abs(y - lat) - half_height))
    if near_edge > 1e-6 and abs(y) < 90:
        point = shapely.Point((x + 180) % 360 - 180, y)
        assert whole.buffer(1e-9).contains(point) == (inside_lon and inside_lat)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    zone=st.sampled_from([32601, 32660, 32701, 32760, 32633]),
    x=st.floats(200_000, 700_000),
    north=st.floats(0, 1),
    how=st.sampled_from(WAYS),
    at=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
)
def test_tiles_up_to_84_degrees_hold_the_ground_of_their_square(
    zone: int, x: float, north: float, how: str, at: tuple[float, float]
) -> None:
    bottom = north * (9_200_000 if zone < 32700 else 7_000_000) + (0 if zone < 32700 else 2_000_000)
    to_degrees = pyproj.Transformer.from_crs(zone, 4326, always_xy=True)
    square = shapely.segmentize(box(x, bottom, x + 109_800, bottom + 109_800), 5_000)
    lon, lat = to_degrees.transform(*shapely.get_coordinates(square).T)
    lon = lon % 360 if zone != 32633 else lon
    if np.ptp(lon) > 180:  # zone 1 near the equator, from 0 to 360
        lon = np.where(lon < 180, lon + 360, lon)
    cut = cut_at_180(written(list(zip(lon, lat, strict=True)), how if zone != 32633 else "backwards"))
    px, py = to_degrees.transform(x + at[0] * 109_800, bottom + at[1] * 109_800)
    assert shapely.make_valid(shapely.force_2d(cut)).contains(shapely.Point(px, py))
    for far in (px - 90, px + 180):
        assert not shapely.make_valid(shapely.force_2d(cut)).covers(shapely.Point((far + 180) % 360 - 180, py))


@pytest.mark.parametrize("how", WAYS)
def test_a_hole_stays_a_hole(how: str) -> None:
    outline, hole = box(178, 10, 182, 14), box(179.5, 11, 181, 12)
    if how.startswith("split"):
        return
    ring, inner = (written(list(shape.exterior.coords), how) for shape in (outline, hole))
    cut = cut_at_180(Polygon(ring.exterior.coords, [inner.exterior.coords]))
    assert cut.area == pytest.approx(16 - 1.5)
    for lon, inside in ((179.2, True), (179.8, False), (-179.5, False), (-178.5, True), (0, False)):
        assert cut.contains(shapely.Point(lon, 11.5)) == inside
