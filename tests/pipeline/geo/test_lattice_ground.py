"""What a lattice says of the ground: how large its pixels are there, what a window covers, which part an area is."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from pyproj import Geod, Transformer

from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.geo.lattice import Lattice

GLOBE_M2 = 510_065_621_724_088.4


def window_over(lattice: Lattice, lon: float, lat: float, px: int = 400) -> PixelWindow:
    """A square window around a place."""
    x, y = Transformer.from_crs("EPSG:4326", lattice.crs, always_xy=True).transform(lon, lat)
    col, row = round(x / lattice.pixel) - px // 2, round((lattice.origin - y) / lattice.pixel) - px // 2
    return PixelWindow(row, col, px, px)


@pytest.mark.parametrize(
    ("crs", "lon", "lat", "ground_m"),
    [
        ("EPSG:3035", 12.0, 48.0, 2.5),
        ("EPSG:3035", -20.0, 65.0, 2.5),
        ("EPSG:4326", 12.0, 48.0, 2.5),
        ("EPSG:4326", 12.0, 0.5, 2.5),  # of the equator's degree, the longer one there
        ("EPSG:4258", 25.0, 70.0, 2.5),
        ("EPSG:3857", 12.0, 60.0, 1.25),
        ("EPSG:2263", -74.0, 40.7, 2.5),  # feet of the US
        ("EPSG:32633", 15.0, 10.0, 2.5),
    ],
)
def test_pixels_are_as_large_as_they_are_on_the_ground(crs, lon, lat, ground_m):
    lattice = Lattice.asked_for(crs, None)
    assert lattice.ground_m(window_over(lattice, lon, lat)) == pytest.approx(ground_m, rel=0.011)


@pytest.mark.parametrize(
    ("crs", "pixel", "window"),
    [
        ("EPSG:4326", 0.5, PixelWindow(-180, -360, 360, 720)),
        ("ESRI:54009", 10_000.0, PixelWindow(-910, -1810, 1820, 3620)),
        ("EPSG:6933", 10_000.0, PixelWindow(-732, -1737, 1464, 3474)),
    ],
)
def test_the_whole_globe_is_as_large_as_the_ellipsoid(crs, pixel, window):
    assert Lattice.asked_for(crs, pixel).area_m2(window) == pytest.approx(GLOBE_M2, rel=0.02)


@pytest.mark.parametrize("crs", ["EPSG:3035", "EPSG:2154", "EPSG:4326", "EPSG:3857", "EPSG:2263"])
def test_a_window_covers_what_its_outline_encloses(crs):
    lattice = Lattice.asked_for(crs, None)
    window = window_over(lattice, -74.0 if crs == "EPSG:2263" else 9.0, 45.0, 4000)
    outline = shapely.segmentize(lattice.box(window), 400 * lattice.pixel).exterior
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(*lattice.degrees(*np.asarray(outline.xy)))
    assert lattice.area_m2(window) == pytest.approx(abs(area), rel=1e-6)


@pytest.mark.parametrize("west", [-180.0, 0.0, -5.0, 100.0])
@pytest.mark.parametrize(
    ("box", "lons"), [((179.0, -18.0, 180.0, -16.0), (179.0, 180.0)), ((-180.0, -18.0, -179.0, -16.0), (180.0, 181.0))]
)
def test_longitudes_of_an_area_go_on_beyond_180(west, box, lons):
    lattice = Lattice("EPSG:4326", 0.01, west=west)
    here = PixelWindow(1500, 17_700 if west > -180 else -18_000, 400, 600 if west > -180 else 36_000)
    part = lattice.part_of(here, shapely.box(*box))
    if west == -180.0 and lons[0] >= 180:
        lons = (-180.0, -179.0)
    assert part == PixelWindow(1600, round(lons[0] * 100), 200, 100)


@pytest.mark.parametrize("pole", ["EPSG:3413", "EPSG:3031"])
def test_a_window_over_a_pole_is_a_cap(pole):
    lattice = Lattice.asked_for(pole, 1000.0)
    shape = lattice.shape_in_degrees(lattice.box(PixelWindow(-1000, -1000, 2000, 2000)))
    assert shape.is_valid
    west, south, east, north = shape.bounds
    assert (west, east) == (-180, 180)
    assert (north if pole == "EPSG:3413" else -south) == 90


def test_corners_beyond_the_globe_are_left_out():
    lattice = Lattice.asked_for("ESRI:54009", 10_000.0)
    shape = lattice.shape_in_degrees(lattice.box(PixelWindow(-900, -1800, 1800, 3600)))
    assert shape.is_valid
    assert 150 < shape.bounds[2] <= 180
    everywhere = lattice.part_of(PixelWindow(-900, -1800, 1800, 3600), shapely.box(5.0, 45.0, 10.0, 50.0))
    assert everywhere is not None
    assert 30 < everywhere.width < 60


@pytest.mark.parametrize(
    ("crs", "name", "code"),
    [
        ("EPSG:3035", "EPSG:3035", "EPSG:3035"),
        ("ESRI:54009", "ESRI:54009", "ESRI:54009"),
        ("+proj=laea +lat_0=1 +lon_0=2", "crs-", None),
    ],
)
def test_a_crs_has_a_name(crs, name, code):
    lattice = Lattice.asked_for(crs, None)
    assert lattice.name.startswith(name)
    assert lattice.code == code
