"""Where a cube's records say it lies, above all at 180° and at 84° N and 80° S: as RFC 7946 has it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shapely
import shapely.affinity
from affine import Affine
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.features import geometry_mask
from scipy.ndimage import distance_transform_edt, uniform_filter
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.geo.lattice import Lattice
from difffusr.pipeline.readers.footprints import (
    box_around,
    box_of,
    footprint_in,
    footprint_of,
    ground_of,
    outline_of,
    shape_of,
)

#: The zones on either side of 180°, north and south.
AT_180 = (32601, 32660, 32701, 32760)

#: In the middle of a zone, which no footprint there crosses the far side of.
ELSEWHERE = (32631, 32632, 32733, 32615)


def to_degrees(epsg: int) -> Transformer:
    return Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326", always_xy=True)


def equal_area(shape: BaseGeometry) -> float:
    """Square metres on the ground of a shape in degrees whose edges are straight there."""
    there = Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True)
    return float(shapely.transform(shapely.segmentize(shape, 0.002), there.transform, interleaved=False).area)


def area_of_window(window: BaseGeometry, epsg: int) -> float:
    """The same of a window in metres: its northern edge's integral minus its southern one's, from 2000 points each."""
    left, bottom, right, top = window.bounds
    steps = np.linspace(0, 1, 2000)
    x = np.concatenate([left + (right - left) * steps, np.full(2000, right), right - (right - left) * steps])
    y = np.concatenate([np.full(2000, bottom), bottom + (top - bottom) * steps, np.full(2000, top)])
    x, y = np.concatenate([x, np.full(2000, left)]), np.concatenate([y, top - (top - bottom) * steps])
    lon, lat = to_degrees(epsg).transform(x, y)
    lon = np.degrees(np.unwrap(np.radians(lon)))
    flat_x, flat_y = Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True).transform(lon * 0.1, lat)
    flat_x = flat_x * 10  # of longitudes past 180°, which PROJ would turn back
    return float(abs(np.sum(flat_x * np.roll(flat_y, -1) - np.roll(flat_x, -1) * flat_y)) / 2)


@st.composite
def windows(draw: st.DrawFn, zones: tuple[int, ...]) -> tuple[BaseGeometry, int]:
    """A window that lies near a border of its zone, from 5 to 100 km wide and high, in metres."""
    epsg = draw(st.sampled_from(zones))
    south = epsg > 32700
    lat = draw(st.floats(-79.5, -1.0) if south else st.floats(1.0, 83.9))
    border = 180.0 if zones is AT_180 else 6.0 * (epsg % 100) - 180.0
    off = draw(st.floats(-1.0, 1.0))
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True).transform(border + off, lat)
    width, height = draw(st.floats(5e3, 1e5)), draw(st.floats(5e3, 1e5))
    return shapely.box(x - width / 2, y - height / 2, x + width / 2, y + height / 2), epsg


def longitudes(window: BaseGeometry, epsg: int) -> tuple[float, float]:
    """Westernmost and easternmost, from a zone's middle: of zone 60 up to more than 180, of zone 1 down to less than
    −180."""
    edge = np.asarray(shapely.segmentize(window, 500).exterior.coords)
    lon = np.asarray(to_degrees(epsg).transform(*edge.T)[0])
    middle = 6.0 * (epsg % 100) - 183.0
    turned = (lon - middle + 180.0) % 360.0 - 180.0 + middle
    return float(turned.min()), float(turned.max())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(window=windows(AT_180))
def test_a_footprint_at_180_degrees_is_whole_and_in_bounds(window):
    ground, epsg = window
    shape = footprint_of(ground, epsg)
    west, south, east, north = box_of(shape)
    assert shape.is_valid
    for part in shapely.get_parts(shape):
        assert part.exterior.is_ccw
        assert -180 <= part.bounds[0] < part.bounds[2] <= 180
        assert part.bounds[2] - part.bounds[0] < 90  # else it would lie around the globe
    least, most = longitudes(ground, epsg)
    seam = 180.0 if epsg % 100 == 60 else -180.0
    assume(abs(least - seam) > 1e-5 and abs(most - seam) > 1e-5)
    crosses = least < seam < most
    assert (shape.geom_type == "MultiPolygon", west > east) == (crosses, crosses)
    for side, true in ((west, least), (east, most)):
        assert (side - true + 180) % 360 - 180 == pytest.approx(0, abs=1e-3)
    assert (south, north) == (shape.bounds[1], shape.bounds[3])
    assert equal_area(shape) == pytest.approx(area_of_window(ground, epsg), rel=1e-5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(window=windows(ELSEWHERE))
def test_elsewhere_it_is_one_polygon(window):
    ground, epsg = window
    shape = footprint_of(ground, epsg)
    assert (shape.geom_type, box_of(shape)) == ("Polygon", shape.bounds)
    assert equal_area(shape) == pytest.approx(area_of_window(ground, epsg), rel=1e-5)


boxes = st.builds(
    lambda west, south, width, height: (
        west,
        south,
        west + width if west + width <= 180 else west + width - 360,
        min(south + height, 90.0),
    ),
    st.integers(-180, 179),
    st.integers(-80, 80),
    st.integers(1, 120),
    st.integers(1, 20),
)


def degrees_of(box: tuple[float, float, float, float]) -> set[int]:
    """The whole degrees of longitude in a box."""
    west, _, east, _ = (int(side) for side in box)
    return {(lon + 180) % 360 for lon in range(west, east if east > west else east + 360)}


@settings(max_examples=200, deadline=None)
@given(given_boxes=st.lists(boxes, min_size=1, max_size=6))
def test_the_box_around_boxes_leaves_out_the_widest_gap(given_boxes):
    box = box_around(given_boxes)
    taken = set().union(*(degrees_of(one) for one in given_boxes))
    free = [lon not in taken for lon in range(360)] * 2
    widest = run = 0
    for one in free:
        run = run + 1 if one else 0
        widest = max(widest, min(run, 360))
    assert taken <= degrees_of(box)
    assert len(degrees_of(box)) == 360 - widest
    assert box[1] == min(one[1] for one in given_boxes)
    assert box[3] == max(one[3] for one in given_boxes)
    shape = shape_of(box)
    assert shape.is_valid
    assert (shape.geom_type == "MultiPolygon") == (box[0] > box[2])


@pytest.mark.parametrize(
    ("given_boxes", "expected"),
    [
        ([(174, -20, 180, -10), (-180, -21, -178, -12)], (174, -21, -178, -10)),
        ([(179, 50, -179, 51)], (179, 50, -179, 51)),
        ([(6, 49, 7, 50), (5, 50, 6, 51)], (5, 49, 7, 51)),
        ([(166, -47, 178, -34), (-177, -45, -176, -43)], (166, -47, -176, -34)),
        ([(-180, -80, 180, 84)], (-180, -80, 180, 84)),
        ([(-125, 25, -67, 49), (-10, 36, 40, 70), (100, -40, 154, 0)], (-125, -40, 154, 70)),
    ],
)
def test_boxes_of_known_places(given_boxes, expected):
    assert box_around(given_boxes) == expected


# Where there are data ------------------------------------------------------------------------------------------------


def cube_of(seen: np.ndarray, overviews: int, window: PixelWindow) -> Any:
    """What is asked of a cube whose coarsest level has sources there."""
    return SimpleNamespace(
        window=lambda _: window,
        lattice=Lattice.of_zone,
        of_crs=lambda _: None,
        overviews=lambda _: overviews,
        array=lambda _, name, level: {("source", 5): _Array(seen[None].astype(np.uint16))}[name, level],
    )


class _Array(np.ndarray):
    def __new__(cls, values: np.ndarray) -> Any:
        return np.asarray(values).view(cls)

    fill_value = 0


#: Of which level 5, of 512 × 1024, is the finest with few enough pixels.
WINDOW = PixelWindow(-16_384, 65_536, 16_384, 32_768)
SIZE_M = 2.5 * 2**5


@pytest.mark.parametrize(
    ("rows", "cols", "bounds"),
    [
        ((0, 512), (0, 1024), (0, 512, 0, 1024)),
        ((10, 20), (30, 40), (8.5, 21.5, 28.5, 41.5)),
        ((0, 1), (1023, 1024), (0, 2.5, 1021.5, 1024)),
        ((511, 512), (0, 1024), (509.5, 512, 0, 1024)),
        ((5, 5), (0, 0), (0, 512, 0, 1024)),
    ],
)
def test_ground_is_what_a_level_has_and_a_pixel_and_a_half_more(rows, cols, bounds):
    seen = np.zeros((512, 1024))
    seen[slice(*rows), slice(*cols)] = 3
    found = ground_of(cube_of(seen, 8, WINDOW), 32632, 0)
    left, bottom, right, top = found.shape.bounds
    west, _, _, north = WINDOW.bounds_m(32632)
    sides = (north - top), (north - bottom), (left - west), (right - west)
    assert tuple(side / SIZE_M for side in sides) == bounds
    assert (found.beyond is None) == (not seen.any())


def squares(seen: np.ndarray) -> Any:
    rows, cols = np.nonzero(seen)
    return shapely.box(cols, rows, cols + 1, rows + 1)


def smooth(size: int, by: int, share: float, seed: int) -> np.ndarray:
    """A pattern of blobs of about `by` pixels that cover a share."""
    noise = uniform_filter(np.random.default_rng(seed).normal(size=(size, size)), by)
    return noise > np.quantile(noise, 1 - share)


def scattered(size: int, count: int) -> np.ndarray:
    seen = np.zeros((size, size), bool)
    seen[tuple(np.random.default_rng(count).integers(0, size, (2, count)))] = True
    return seen


def ring(size: int) -> np.ndarray:
    far = np.hypot(*(np.mgrid[:size, :size] - size / 2))
    return (far < 0.4 * size) & (far > 0.2 * size)


SEEN = {
    "a triangle": np.tri(64, 128) > 0,
    "a diagonal line of single pixels": np.eye(300) > 0,
    "one pixel": scattered(200, 1),
    "a few single pixels": scattered(300, 12),
    "many single pixels": scattered(500, 3000),
    "every second pixel": np.indices((200, 200)).sum(axis=0) % 2 > 0,
    "blobs": smooth(512, 40, 0.4, 1),
    "noise": smooth(512, 3, 0.5, 2),
    "a ring with an island": ring(400) | (np.hypot(*(np.mgrid[:400, :400] - 200)) < 15),
    "all but a line": np.arange(90 * 70).reshape(90, 70) % 70 != 33,
    "a frame": np.pad(np.zeros((50, 80), bool), 3, constant_values=True),
}


@pytest.mark.parametrize("name", SEEN)
def test_an_outline_holds_all_that_is_seen_in_few_corners_and_not_much_more(name):
    seen = SEEN[name]
    shape, beyond = outline_of(seen)
    assert shape.is_valid
    assert {part.geom_type for part in shapely.get_parts(shape)} == {"Polygon"}
    assert shapely.get_num_coordinates(shape) <= 512
    shapely.prepare(shape)
    assert shapely.covers(shape, squares(seen)).all()
    # Holes of less than a thousandth are filled; elsewhere nothing lies farther from what is seen than it says.
    around = 150
    padded = np.pad(seen, around)
    far = distance_transform_edt(~padded)
    inside = ~geometry_mask([shapely.affinity.translate(shape, around, around)], padded.shape, Affine.identity())
    assert far[inside].max() <= max(beyond, math.sqrt(shape.area / 1000)) + 1


def test_a_wide_hole_stays_one():
    shape, _ = outline_of(ring(400))
    assert len(shape.interiors) == 1
    assert not shape.contains(shapely.Point(200, 200))


def test_ground_that_is_a_triangle_is_no_square():
    ground = ground_of(cube_of(np.tri(512, 1024), 8, WINDOW), 32632, 0).shape
    assert ground.area < 0.3 * WINDOW.box(32632).area
    assert ground.within(WINDOW.box(32632).buffer(1e-6))


@pytest.mark.parametrize("epsg", [32632, 32660, 32701])
@pytest.mark.parametrize("name", ["blobs", "a ring with an island", "a few single pixels", "all but a line"])
def test_a_footprint_in_degrees_holds_the_data_to_what_it_says(name, epsg):
    """A continental window: 1000 km high, up to 60° north or south, in the zones at 180° as well."""
    seen = SEEN[name]
    side = 400_000 // max(seen.shape)
    origin = 10_000_000.0 if epsg > 32700 else 0.0
    top = 6_600_000.0 if epsg < 32700 else origin - 200_000.0
    left, size = 200_000.0, side * 2.5
    box = shapely.box(left, top - size * seen.shape[0], left + size * seen.shape[1], top)
    found = footprint_in(seen, Affine(size, 0, left, 0, -size, top), box, epsg)
    shape = found.shape
    assert shape.is_valid
    assert shapely.get_num_coordinates(shape) <= 2048
    west, _, east, _ = box_of(shape)
    assert (east - west) % 360 < 20
    rows, cols = np.nonzero(seen)
    chosen = np.random.default_rng(3).integers(0, len(rows), 400)
    corners = np.concatenate(
        [np.stack([cols[chosen] + dx, rows[chosen] + dy]) for dx in (0, 1) for dy in (0, 1)], axis=1
    )
    lon, lat = to_degrees(epsg).transform(left + size * corners[0], top - size * corners[1])
    lon = (np.asarray(lon) + 180) % 360 - 180
    points = shapely.points(np.where(np.abs(np.abs(lon) - 180) < 1e-9, np.sign(lon) * 180, lon), lat)
    away = shapely.distance(shape, points) * 111_320  # degrees of longitude are shorter: an upper bound
    assert found.short_m < 200
    assert away.max() <= found.short_m + 0.01
    assert found.beyond_m is not None
    assert found.beyond_m < 100 * size


@pytest.mark.parametrize("box", [(179.0, -1.0, -179.0, 1.0), (-180.0, 0.0, -179.0, 1.0), (1.0, 2.0, 3.0, 4.0)])
def test_a_box_is_the_box_of_its_shape(box):
    assert box_of(shape_of(box)) == box
