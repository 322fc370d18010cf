"""A mosaic of zones: the ground's own values where they are, across borders of zones and 180°, in any CRS."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
from continental import continent_config, publish_continent
from pyproj import CRS, Transformer
from two_zones import publish_zones, waves, windows_at

from difffusr.pipeline.config import AreaSection
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.area import geometry_of
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.readers.access import mosaic
from difffusr.pipeline.readers.export import sources
from difffusr.pipeline.readers.export.chosen import exports_of
from difffusr.pipeline.readers.export.writing import export_cogs
from difffusr.pipeline.storage.objects import Storage

EUROPE, FIJI = (12.0, 48.0, (32632, 32633)), (180.0, -17.0, (32701, 32760))


class Case(NamedTuple):
    """Where, in which CRS, pixels (None: about 2.5 m), DN by which half of the pixels may be off."""

    place: tuple[float, float, tuple[int, int]]
    crs: str
    resolution: float | None
    off: float


CASES = {
    "metres": Case(EUROPE, "EPSG:3035", None, 4),
    "degrees": Case(EUROPE, "EPSG:4326", None, 6),
    "one of the zones": Case(EUROPE, "EPSG:32632", None, 4),
    "without a code": Case(EUROPE, "+proj=laea +lat_0=48 +lon_0=12 +datum=WGS84", None, 4),
    "coarser": Case(EUROPE, "EPSG:2154", 10.0, 20),
    "feet": Case(EUROPE, "+proj=laea +lat_0=48 +lon_0=12 +datum=WGS84 +units=us-ft", None, 4),
    "metres across 180": Case(FIJI, "EPSG:3832", None, 4),
    "degrees across 180": Case(FIJI, "EPSG:4326", None, 6),
}


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[float, float, tuple[int, int]]], Cube]:
    """The cube at a place, made when it is first asked for."""
    home = tmp_path_factory.mktemp("mosaics")

    @cache
    def made(place: tuple[float, float, tuple[int, int]]) -> Cube:
        lon, lat, codes = place
        windows = windows_at(lon, lat, codes, (2, 4))
        url = f"{home}/{codes[0]}.zarr"
        publish_zones(Storage(url), windows, dict.fromkeys(windows, waves(lon, lat)))
        return Cube(Storage(url))

    return made


def around(place: tuple[float, float, tuple[int, int]], half: float = 0.0012) -> Any:
    lon, lat, _ = place
    west, east = ((at + 180) % 360 - 180 for at in (lon - half, lon + half))
    return geometry_of(AreaSection(bbox=(west, lat - half / 2, east, lat + half / 2)))


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_the_grounds(cubes, tmp_path, name):
    case = CASES[name]
    lon, lat, _ = case.place
    files = exports_of(cubes(case.place), around(case.place), crs=case.crs, resolution=case.resolution)
    spectral, quality = export_cogs(cubes(case.place), files, Storage(str(tmp_path)))
    with rasterio.open(spectral) as file, rasterio.open(quality) as labels:
        crs = CRS.from_wkt(file.crs.to_wkt())
        assert crs.equals(CRS.from_user_input(case.crs), ignore_axis_order=True)
        seen = labels.read(1) == 1
        assert seen.mean() > 0.7
        rows, cols = np.nonzero(seen)
        x, y = (np.asarray(axis) for axis in rasterio.transform.xy(file.transform, rows, cols))
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        parts = (np.arange(4) + 0.5) / 4 - 0.5 if case.resolution else np.zeros(1)
        size, truth = file.transform.a, waves(lon, lat)
        for band in (1, 8):
            true = np.mean(
                [truth(*to_degrees.transform(x + dx * size, y + dy * size), band) for dx in parts for dy in parts],
                axis=0,
            )
            off = np.abs(file.read(band + 1)[seen] - true)
            assert np.median(off) < case.off
            assert np.percentile(off, 95) < 8 * case.off
        # Both sides of the border of zones are there.
        longitudes, _ = to_degrees.transform(x, y)
        sides = (np.asarray(longitudes) - lon + 180) % 360 - 180
        assert sides.min() < -0.0008
        assert sides.max() > 0.0008


@pytest.mark.parametrize("name", ["metres", "degrees", "coarser"])
def test_they_are_those_that_python_reads(cubes, tmp_path, monkeypatch, name):
    monkeypatch.setattr(sources, "SQUARE_PX", 512)
    case = CASES[name]
    cube = cubes(case.place)
    files = exports_of(cube, around(case.place, 0.0006), crs=case.crs, resolution=case.resolution)
    spectral, _ = export_cogs(cube, files, Storage(str(tmp_path)))
    with rasterio.open(spectral) as file:
        read = mosaic(
            cube.storage.url, area=around(case.place, 0.0006), crs=case.crs, resolution=case.resolution, missing="nan"
        )
        there = np.nan_to_num(read.sel(band=["B02", "B08"]).values * 1e4).round().astype(int)
        left, top = float(read.x[0]) - file.transform.a / 2, float(read.y[0]) + file.transform.a / 2
        place = rasterio.windows.Window(
            round((left - file.bounds.left) / file.transform.a),
            round((file.bounds.top - top) / file.transform.a),
            there.shape[2],
            there.shape[1],
        )
        found = file.read([2, 8], window=place, boundless=True).astype(int)
    assert (found > 0).mean() > 0.5
    np.testing.assert_allclose(found, there, atol=1)
    assert (found == there).mean() > 0.9


@pytest.mark.parametrize(
    ("crs", "resolution"),
    [
        ("EPSG:4326", None),
        pytest.param("EPSG:32632", None, marks=pytest.mark.slow),
        pytest.param("EPSG:3035", 10.0, marks=pytest.mark.slow),
    ],
)
def test_a_cube_of_one_crs_is_had_in_others_too(cubes, tmp_path, crs, resolution):
    url = f"{tmp_path}/derived.zarr"
    publish_continent(continent_config(cubes(EUROPE).storage.url, url, "EPSG:3035"))
    derived = Cube(Storage(url))
    files = exports_of(derived, around(EUROPE, 0.0006), crs=crs, resolution=resolution, variables=["reflectance"])
    assert files[0].mosaic
    (spectral,) = export_cogs(derived, files, Storage(f"{tmp_path}/out"))
    with rasterio.open(spectral) as file:
        values = file.read(2)
        rows, cols = np.nonzero(values)
        x, y = rasterio.transform.xy(file.transform, rows, cols)
        to_degrees = Transformer.from_crs(file.crs.to_wkt(), "EPSG:4326", always_xy=True)
        true = waves(12.0, 48.0)(*(np.asarray(axis) for axis in to_degrees.transform(x, y)), 1)
        assert np.corrcoef(values[rows, cols], true)[0, 1] > 0.99
        assert (values > 0).mean() > 0.7


def test_in_its_own_crs_a_cube_of_one_crs_is_copied(cubes, tmp_path):
    url = f"{tmp_path}/derived.zarr"
    publish_continent(continent_config(cubes(EUROPE).storage.url, url, "EPSG:3035"))
    (file, *_) = exports_of(Cube(Storage(url)), None, crs="EPSG:3035")
    assert (file.mosaic, file.name) == (False, "EPSG3035_2023-06_reflectance.tif")


def test_a_period_that_one_zone_lacks_is_that_of_the_other(cubes, tmp_path):
    lon, lat, codes = EUROPE
    url = f"{tmp_path}/later.zarr"
    windows = windows_at(lon, lat, codes, (1, 2))
    publish_zones(Storage(url), windows, dict.fromkeys(windows, waves(lon, lat)), collar_m=None)
    later = {32632: windows[32632]}
    publish_zones(Storage(url), later, dict.fromkeys(later, waves(lon, lat)), collar_m=None, month=7)
    cube = Cube(Storage(url))
    files = exports_of(cube, None, crs="EPSG:3035", variables=["quality"])
    assert [file.label for file in files] == ["2023-06", "2023-07"]
    june, july = (rasterio.open(path).read(1) for path in export_cogs(cube, files, Storage(f"{tmp_path}/out")))
    assert june.shape == july.shape
    assert 0 < (july > 0).sum() <= (june > 0).sum()
    with pytest.raises(ConfigError, match="the cube has no 2023-08; it has 2023-06, 2023-07"):
        exports_of(cube, None, ["2023-08"], crs="EPSG:3035")
