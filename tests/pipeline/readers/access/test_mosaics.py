"""An area in any CRS has the ground's values, whatever zones it lies in, and is the same however it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from continental import continent_config, publish_continent
from numpy.typing import NDArray
from pyproj import Transformer
from random_cubes import random_cube, window_around
from ray import cloudpickle
from two_zones import Truth, publish_zones, waves, windows_at

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.ground.errors import ConfigError, CoverageError, StoreError
from difffusr.pipeline.readers import OpenCube, mosaic, open_cube, picture
from difffusr.pipeline.storage.objects import Storage

#: Places on borders between zones, with the shards around them that each zone has.
PLACES = {
    "Europe": (12.0, 48.0, (32632, 32633)),
    "Fiji": (180.0, -17.0, (32760, 32701)),
    "Gabon": (12.0, 0.0, (32632, 32633, 32732, 32733)),
}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[OpenCube, Truth]]:
    @cache
    def at(place: str) -> tuple[OpenCube, Truth]:
        lon, lat, zones = PLACES[place]
        url = f"{tmp_path_factory.mktemp('held')}/cube.zarr"
        truth = waves(lon, lat)
        windows = windows_at(lon, lat, zones, (3, 4))
        publish_zones(Storage(url), windows, dict.fromkeys(windows, truth), collar_m=240.0)
        return open_cube(url), truth

    return at


@pytest.fixture(scope="module")
def whole(held: Callable[[str], tuple[OpenCube, Truth]]) -> xr.DataArray:
    """Three bands of Europe, in memory."""
    cube, _ = held("Europe")
    return cube.mosaic(bbox=box_around("Europe"), crs="EPSG:3035", bands=["B04", "B03", "B02"]).load()


def true_values(found: xr.DataArray, crs: str, truth: Truth) -> NDArray[np.float64]:
    """What the ground has in the pixels of a mosaic, in reflectance."""
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*np.meshgrid(found.x, found.y))
    lon = (lon + 180) % 360 - 180
    return np.stack([truth(lon, lat, BANDS.index(band)) for band in found.band.values]) / 10_000


def box_around(place: str, half_deg: float = 0.001) -> tuple[float, float, float, float]:
    lon, lat, _ = PLACES[place]
    east = lon + half_deg
    return lon - half_deg, lat - half_deg, east if east <= 180 else east - 360, lat + half_deg


@pytest.mark.parametrize(
    ("place", "crs"),
    [
        ("Europe", "EPSG:3035"),
        ("Europe", "EPSG:32632"),
        pytest.param("Europe", "EPSG:32633", marks=pytest.mark.slow),
        ("Europe", "EPSG:4326"),
        pytest.param("Europe", "EPSG:3857", marks=pytest.mark.slow),
        ("Europe", "+proj=laea +lat_0=48 +lon_0=12 +datum=WGS84"),
        ("Fiji", "EPSG:4326"),
        ("Fiji", "EPSG:3832"),
        pytest.param("Fiji", "EPSG:32701", marks=pytest.mark.slow),
        ("Gabon", "EPSG:4326"),
        pytest.param("Gabon", "EPSG:32733", marks=pytest.mark.slow),
        pytest.param("Gabon", "EPSG:6933", marks=pytest.mark.slow),
    ],
)
def test_pixels_across_a_border_are_those_of_the_ground(place, crs, held):
    cube, truth = held(place)
    found = cube.mosaic(bbox=box_around(place), crs=crs, bands=["B04", "B03", "B02"]).load()
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    apart = np.abs(found - true_values(found, crs, truth))
    assert float(apart.quantile(0.99)) < 0.0025  # of ± 0.095
    assert float(apart.mean()) < 0.0006


def test_by_default_it_is_the_zone_of_the_middle_and_its_own_pixels(tmp_path):
    window = {32648: window_around(32648, 105.0, 15.0)}
    random_cube(Storage(f"{tmp_path}/cube.zarr"), window, months=(1,))
    cube = open_cube(f"{tmp_path}/cube.zarr")
    whole = cube.dataset(32648).isel(time=0).load()
    left, bottom, right, top = window[32648].bounds_m(32648)
    inner = shapely.box(left + 100, bottom + 60, right - 30, top - 50)
    found = cube.mosaic(area=gpd.GeoSeries([inner], crs=32648))
    own = whole.sel(x=found.x, y=found.y)
    assert found.sizes["x"] >= 140
    np.testing.assert_array_equal(found, own.reflectance)
    for name in ("quality", "source"):
        label = cube.mosaic(area=gpd.GeoSeries([inner], crs=32648), variable=name)
        assert label.dtype == whole[name].dtype
        np.testing.assert_array_equal(label, own[name])
    assert "32648" in found.rio.crs.to_string()
    assert found.rio.transform().a == 2.5


@pytest.mark.parametrize("resolution", [5.0, 10.0, 20.0, 30.0])
def test_coarse_pixels_are_means(resolution, tmp_path):
    window = {32648: window_around(32648, 105.0, 15.0, (4, 4))}
    random_cube(Storage(f"{tmp_path}/cube.zarr"), window, months=(1,))
    cube = open_cube(f"{tmp_path}/cube.zarr")
    stored = cube.dataset(32648).isel(time=0).load().reflectance
    left, bottom, right, top = window[32648].bounds_m(32648)
    inner = shapely.box(left + 120, bottom + 120, right - 120, top - 120)
    found = cube.mosaic(area=gpd.GeoSeries([inner], crs=32648), resolution=resolution).load()
    for at in ((0, 0), (1, 2), (-1, -1)):
        x, y = float(found.x[at[1]]), float(found.y[at[0]])
        below = stored.sel(
            x=slice(x - resolution / 2, x + resolution / 2), y=slice(y + resolution / 2, y - resolution / 2)
        )
        assert below.sizes["x"] == resolution / 2.5
        np.testing.assert_allclose(found[:, at[0], at[1]], below.mean(("x", "y")), atol=1.5e-4)


def test_a_cube_of_one_crs_gives_its_own_pixels_and_any_other(held, tmp_path):
    zones, truth = held("Europe")
    config = continent_config(zones.url, f"{tmp_path}/continent.zarr")
    publish_continent(config)
    cube = open_cube(config.store.url)
    box = box_around("Europe")
    own = cube.mosaic(bbox=box).load()
    stored = cube.dataset(cube.zones[0], missing="nan").isel(time=0).reflectance.sel(x=own.x, y=own.y)
    np.testing.assert_array_equal(own, stored)
    apart = np.abs(own - zones.mosaic(bbox=box, crs="EPSG:3035"))
    assert float(apart.max()) <= 0.0005
    other = cube.mosaic(bbox=box, crs="EPSG:32633").load()
    assert float(np.abs(other - true_values(other, "EPSG:32633", truth)).quantile(0.99)) < 0.004


INDEXES: dict[str, dict[str, Any]] = {
    "a pixel": {"y": 7, "x": 11},
    "a row": {"y": 3},
    "a window": {"y": slice(20, 61), "x": slice(30, 100)},
    "every third": {"y": slice(1, 90, 3), "x": slice(2, None, 7)},
    "backwards": {"y": slice(None, None, -1)},
    "bands in another order": {"band": [2, 0]},
    "some rows": {"y": [5, 80, 6], "x": slice(4, 9)},
    "nothing": {"x": slice(4, 4)},
    "points": {"y": xr.DataArray([1, 90, 4], dims="p"), "x": xr.DataArray([8, 2, 57], dims="p")},
}


@pytest.mark.parametrize("index", INDEXES)
def test_a_part_is_what_the_whole_has_there(index, held, whole):
    cube, _ = held("Europe")
    image = cube.mosaic(bbox=box_around("Europe"), crs="EPSG:3035", bands=["B04", "B03", "B02"])
    np.testing.assert_array_equal(image.isel(INDEXES[index]).values, whole.isel(INDEXES[index]).values)


@pytest.mark.parametrize("other", ["dask", "cloudpickle", "another area", "one band"])
def test_it_is_the_same_however_it_is_read(other, held, whole):
    cube, _ = held("Europe")
    image = cube.mosaic(bbox=box_around("Europe"), crs="EPSG:3035", bands=["B04", "B03", "B02"])
    if other == "dask":
        chunked = image.chunk({"x": 50, "y": 70})
        assert chunked.chunks is not None
        np.testing.assert_array_equal(chunked.compute(), whole)
        assert [len(sizes) for sizes in image.chunk({}).chunks or ()] == [1, 1, 1]
    elif other == "cloudpickle":
        np.testing.assert_array_equal(cloudpickle.loads(cloudpickle.dumps(image)), whole)
    elif other == "another area":
        box = 11.9993, 47.9995, 12.0004, 48.0002
        part = cube.mosaic(bbox=box, crs="EPSG:3035", bands=["B04", "B03", "B02"]).load()
        np.testing.assert_array_equal(part, whole.sel(x=part.x, y=part.y))
    else:
        one = mosaic(cube, bbox=box_around("Europe"), crs="EPSG:3035", bands="B03")
        np.testing.assert_array_equal(one, whole.sel(band=["B03"]))


def test_several_periods_make_a_dimension(tmp_path):
    windows = {zone: window_around(zone, 12.0, 48.0, (3, 3)) for zone in (32632, 32633)}
    random_cube(Storage(f"{tmp_path}/cube.zarr"), windows, months=(1, 2, 3))
    cube = open_cube(f"{tmp_path}/cube.zarr")
    box = (11.9995, 47.9998, 12.0005, 48.0002)
    both = cube.mosaic(bbox=box, period=["2023-03", "2023-01"], bands=["B02", "B08"])
    assert both.dims == ("time", "band", "y", "x")
    for at, label in enumerate(["2023-03", "2023-01"]):
        one = cube.mosaic(bbox=box, period=label, bands=["B02", "B08"])
        assert str(one.period.values) == label
        np.testing.assert_array_equal(both[at], one)
    with pytest.raises(ConfigError, match="has several, 2023-01, 2023-02, 2023-03; give one"):
        cube.mosaic(bbox=box)


def gone(cube: OpenCube, zone: int, row: int, col: int) -> OpenCube:
    """The cube without a shard, as if nobody had written it."""
    for path in Path(cube.url).glob(f"{zone}/0/*/c/0/**/{row}/{col}"):
        path.unlink()
    return open_cube(cube.url)


@pytest.mark.parametrize("read", ["mosaic", "dataset"])
def test_what_nobody_has_written_is_an_error_or_no_data(read, tmp_path):
    window = {32648: window_around(32648, 105.0, 15.0)}
    random_cube(Storage(f"{tmp_path}/cube.zarr"), window, months=(1,))
    before = open_cube(f"{tmp_path}/cube.zarr").dataset(32648).reflectance.load()
    cube = gone(open_cube(f"{tmp_path}/cube.zarr"), 32648, 1, 2)
    left, bottom, right, top = window[32648].bounds_m(32648)
    if read == "dataset":
        whole = cube.dataset(32648).reflectance
        np.testing.assert_array_equal(whole[..., :128], before[..., :128])
        with pytest.raises(CoverageError, match="1 of 1 shards of zone 32648, level 0, in 2023-01, such as row 1, col"):
            whole[..., 70:, 140:].load()
        filled = cube.dataset(32648, missing="nan").reflectance.load()
        assert np.isnan(filled[..., 64:, 128:]).all()
        np.testing.assert_array_equal(filled[..., :64, :], before[..., :64, :])
        return
    area = gpd.GeoSeries([shapely.box(left + 10, bottom + 10, right - 10, top - 10)], crs=32648)
    image = cube.mosaic(area=area)
    assert np.isfinite(image[:, :50, 30:120]).all()
    with pytest.raises(CoverageError, match="nobody has written the cube at 10"):
        image.load()
    assert np.isnan(cube.mosaic(area=area, missing="nan")[:, -20:, -20:]).all()
    # Where the area leaves it out, nothing is missing.
    left_out = gpd.GeoSeries([shapely.box(left + 10, bottom + 10, right - 161, top - 10)], crs=32648)
    assert cube.mosaic(area=left_out).load().sizes["y"] > 100


def test_a_hole_within_written_shards_is_no_data(tmp_path):
    window = {32648: window_around(32648, 105.0, 15.0)}
    random_cube(Storage(f"{tmp_path}/cube.zarr"), window, months=(1,))
    left, _, _, top = window[32648].bounds_m(32648)
    area = gpd.GeoSeries([shapely.box(left + 5, top - 100, left + 100, top - 5)], crs=32648)
    image = open_cube(f"{tmp_path}/cube.zarr").mosaic(area=area).load()
    assert np.isnan(image.sel(x=slice(None, left + 50), y=slice(None, top - 50))).all()
    assert np.isfinite(image.sel(x=slice(left + 50, None))).all()


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("give one of them", {}),
        ("give one of them", {"bbox": (11, 47, 12, 48), "area": shapely.box(11, 47, 12, 48)}),
        ("expected west, south, east, north", {"bbox": (11, 47, 12)}),
        ("expected west, south, east, north", {"bbox": (11, 48, 12, 47)}),
        ("expected west, south, east, north", {"bbox": "Luxembourg"}),
        ("cover some ground", {"area": shapely.Point(12, 48)}),
        ("cover some ground", {"area": shapely.Polygon()}),
        ("expected polygons", {"area": "Luxembourg"}),
        ("does not say its CRS", {"area": gpd.GeoSeries([shapely.box(11, 47, 12, 48)])}),
        ("expected a CRS", {"bbox": (11.99, 47.99, 12, 48), "crs": "EPSG:none"}),
        ("expected a pixel's side", {"bbox": (11.99, 47.99, 12, 48), "resolution": -10}),
        ("has no 'albedo'", {"bbox": (11.99, 47.99, 12, 48), "variable": "albedo"}),
        ("there is no 'B10'", {"bbox": (11.99, 47.99, 12, 48), "bands": ["B10"]}),
        ("has no '2020-01'", {"bbox": (11.99, 47.99, 12, 48), "period": "2020-01"}),
        ("does not show all of the area", {"bbox": (-170, -80, -160, -70), "crs": "+proj=ortho +lat_0=48 +lon_0=12"}),
        ("expected 'raise' or 'nan'", {"bbox": (11.99, 47.99, 12, 48), "missing": 0}),
    ],
)
def test_what_is_not_understood_is_said_in_a_line(words, options, held):
    cube, _ = held("Europe")
    with pytest.raises(ConfigError, match=words) as raised:
        cube.mosaic(**options)
    assert "\n" not in str(raised.value)


def test_an_area_that_no_zone_shows_is_an_error(held):
    with pytest.raises(CoverageError, match=r"no zone shows 20.00000, 10.00000, 20.01000, 10.01000"):
        held("Europe")[0].mosaic(bbox=(20, 10, 20.01, 10.01))


def test_it_knows_its_place(held):
    image = held("Europe")[0].mosaic(bbox=box_around("Europe"), crs="EPSG:3035", resolution=10)
    attributes = image.spatial_ref.attrs
    assert "3035" in json.dumps(attributes["crs_wkt"])
    assert float(image.x[0]) % 10 == 5.0
    assert image[:, 1:, 2:].rio.transform() * (0, 0) == (float(image.x[2]) - 5, float(image.y[1]) + 5)
    assert image.sel(band="B04").wavelength == pytest.approx(664.6, abs=1)


def test_a_picture_has_one_range_for_all_bands_and_no_colour_where_there_is_no_data():
    values = xr.DataArray(np.full((3, 4, 5), 0.2, np.float32), dims=("band", "y", "x"))
    values[:, 0, 0] = np.nan
    values[:, 1, :] = 0.05
    values[:, 2, 0] = [0.1, 0.2, 0.3]
    pixels = np.asarray(picture(values))
    assert pixels.shape == (4, 5, 4)
    assert pixels[0, 0, 3] == 0
    assert len(set(pixels[3, 3, :3].tolist())) == 1
    assert pixels[2, 0, 0] < pixels[2, 0, 1] < pixels[2, 0, 2]
    assert np.asarray(picture(values[0])).shape == (4, 5, 4)
    with pytest.raises(ConfigError, match="expected three bands"):
        picture(values.expand_dims(time=2))


@pytest.mark.parametrize("name", ["quality", "reflectance"])
@pytest.mark.parametrize("length", [0, 30])
def test_a_shard_that_was_cut_short_is_an_error_not_a_hole(name, length, tmp_path):
    random_cube(Storage(f"{tmp_path}/cube.zarr"), {32648: window_around(32648, 105.0, 15.0)}, months=(1,))
    (path,) = (tmp_path / f"cube.zarr/32648/0/{name}").glob("c/**/1/2")
    path.write_bytes(path.read_bytes()[:length])
    cube = open_cube(f"{tmp_path}/cube.zarr")
    with pytest.raises(StoreError, match=f"32648/0/{name}: cannot be read"):
        cube.dataset(32648, missing="nan")[name][..., 64:100, 130:140].load()


def test_the_footprint_holds_all_data_and_little_else(held):
    cube, _ = held("Europe")
    ground = cube.footprint()
    assert ground.covers(shapely.box(11.9995, 47.9995, 12.0005, 48.0005))
    assert ground.area < 1.3 * cube.coverage().union_all().area
    assert ground.equals(cube.footprint(list(cube.periods)))


@pytest.mark.parametrize(("crs", "resolution"), [("EPSG:3035", 100.0), ("EPSG:3035", 200.0), ("EPSG:4326", 0.001)])
def test_a_coarse_picture_of_a_continent_shows_the_one_place_there_is(crs, resolution, held):
    image = held("Europe")[0].mosaic(bbox=(-10, 35, 40, 65), crs=crs, resolution=resolution, bands="B02", missing="nan")
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(12.0, 48.0)
    reach = 9 * resolution
    part = image[0].sel(x=slice(x - reach, x + reach), y=slice(y + reach, y - reach)).load()
    assert np.isfinite(part.sel(x=x, y=y, method="nearest"))
    assert 0 < np.isfinite(part).sum() < part.size


@pytest.mark.parametrize(("crs", "resolution"), [("EPSG:3035", 2000.0), ("EPSG:4326", 0.05)])
def test_pixels_that_are_too_coarse_are_refused_not_left_empty(crs, resolution, held):
    with pytest.raises(ConfigError, match="pixels of up to 1,100 m"):
        held("Europe")[0].mosaic(bbox=(-10, 35, 40, 65), crs=crs, resolution=resolution)
