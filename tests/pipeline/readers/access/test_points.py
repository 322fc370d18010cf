"""Points are read from the pixel that holds them, whichever zone, period or store it is in."""

from __future__ import annotations

import math
import pickle
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from continental import continent_config, publish_continent
from file_bucket import serve
from numpy.typing import NDArray
from pyproj import Transformer
from random_cubes import FLAT, random_cube, window_around
from read_by_hand import ByHand
from two_zones import publish_zones, waves, windows_at

from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.ground.errors import ConfigError, CoverageError
from difffusr.pipeline.readers import open_cube, sample
from difffusr.pipeline.storage.objects import Storage

#: Borders between zones: longitude, latitude, zones.
BORDERS = {
    "plain": (12.0, 48.0, (32632, 32633)),
    "southern": (24.0, -30.0, (32734, 32735)),
    "Norway, where 32 is wider": (3.0, 60.0, (32631, 32632)),
    "the equator": (9.0, 0.0, (32632, 32732)),
    "180 degrees": (180.0, -17.0, (32760, 32701)),
    "four zones at a corner": (24.0, 0.0, (32634, 32635, 32734, 32735)),
}


def scattered(windows: dict[int, PixelWindow], number: int, seed: int = 0, beyond: float = 0.0) -> NDArray[np.float64]:
    """Points in degrees over all windows, and some pixels beyond their edges."""
    rng, found = np.random.default_rng(seed), []
    for zone, window in windows.items():
        left, bottom, right, top = window.bounds_m(zone)
        x = rng.uniform(left - beyond, right + beyond, number // len(windows))
        y = rng.uniform(bottom - beyond, top + beyond, number // len(windows))
        to_degrees = Transformer.from_crs(f"EPSG:{zone}", "EPSG:4326", always_xy=True)
        found.append(np.stack(to_degrees.transform(x, y), axis=1))
    return rng.permutation(np.concatenate(found))


def check(url: Storage, points: NDArray[np.float64], found: Any) -> set[int]:
    """Compare all values with those read by hand; returns the zones that had a part."""
    by_hand, zones = ByHand(url), set()
    for at, (lon, lat) in enumerate(points):
        for step, label in enumerate(found.period.values):
            wanted = by_hand.at(lon, lat, str(label))
            here = found.isel(point=at, time=step)
            assert int(here.zone) == wanted.zone, (lon, lat, label)
            assert (int(here.quality), int(here.source)) == (wanted.quality, wanted.source)
            expected = np.where(wanted.reflectance == 0, np.nan, wanted.reflectance / 10_000)
            np.testing.assert_allclose(here.reflectance.values, expected, rtol=1e-6)
            zones.add(wanted.zone)
    return zones


@pytest.mark.parametrize("border", BORDERS)
def test_points_on_both_sides_of_a_border_are_of_their_own_zone(border, tmp_path):
    lon, lat, zones = BORDERS[border]
    windows = windows_at(lon, lat, zones, (2, 4))
    storage = Storage(str(tmp_path / "cube.zarr"))
    publish_zones(storage, windows, dict.fromkeys(windows, waves(lon, lat)), collar_m=120.0)
    points = scattered(windows, 240)
    assert check(storage, points, sample(storage.url, points)) >= set(zones)


def test_a_hole_of_a_zone_is_read_from_its_neighbour(tmp_path):
    windows = {zone: window_around(zone, 12.0, 48.0) for zone in (32632, 32633)}
    storage = Storage(str(tmp_path / "cube.zarr"))
    random_cube(storage, windows)
    left, _, _, top = windows[32633].bounds_m(32633)
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    in_the_hole = np.stack(to_degrees.transform(left + 2.5 * np.arange(1, 19), np.full(18, top - 20.0)), axis=1)
    in_the_hole = np.concatenate([in_the_hole, scattered(windows, 120)])
    assert check(storage, in_the_hole, sample(storage.url, in_the_hole)) >= {32632, 32633}


@pytest.mark.parametrize("where", ["plain", "icechunk"])
def test_periods_and_bands_come_in_the_order_that_was_asked_for(where, tmp_path):
    windows = {zone: window_around(zone, 12.0, 48.0) for zone in (32632, 32633)}
    if where == "icechunk":
        pytest.importorskip("icechunk")
    url = str(tmp_path / "cube.zarr") if where == "plain" else f"icechunk+file://{tmp_path}/cube"
    random_cube(Storage(url), windows, months=(1, 2, 3))
    points = scattered(windows, 60)
    whole = sample(url, points)
    check(Storage(url), points, whole)
    part = sample(url, points, bands=["B12", "B02"], periods=["2023-03", "2023-01"])
    assert list(part.band.values) == ["B12", "B02"]
    assert list(part.period.values) == ["2023-03", "2023-01"]
    expected = whole.reflectance.sel(band=["B12", "B02"], time=part.time)
    np.testing.assert_array_equal(part.reflectance, expected)
    assert part.reflectance.dtype == np.float32
    one = sample(url, points, bands="B08", periods="2023-02")
    np.testing.assert_array_equal(one.reflectance, whole.reflectance.sel(band=["B08"], time=one.time))


def test_a_cube_of_one_crs_is_read_as_any_other(tmp_path):
    windows = windows_at(180.0, -17.0, (32701, 32760), (1, 2))
    publish_zones(Storage(f"{tmp_path}/zones.zarr"), windows, dict.fromkeys(windows, waves(180.0, -17.0)))
    config = continent_config(f"{tmp_path}/zones.zarr", f"{tmp_path}/continent.zarr", crs="EPSG:4326")
    publish_continent(config)
    points = scattered(windows, 120)
    found = sample(config.store.url, points, missing="nan")
    check(Storage(config.store.url), points, found)
    assert int((found.quality > 0).sum()) > 60


@pytest.mark.parametrize("corner", ["upper left", "lower right"])
def test_the_first_and_last_pixels_are_reached_and_nothing_beyond(corner, tmp_path):
    window = {32648: window_around(32648, 105.0, 15.0)}
    storage = Storage(str(tmp_path / "cube.zarr"))
    random_cube(storage, window, months=(1,))
    left, bottom, right, top = window[32648].bounds_m(32648)
    x, y, outwards = (left, top, -1) if corner == "upper left" else (right, bottom, 1)
    to_degrees = Transformer.from_crs("EPSG:32648", "EPSG:4326", always_xy=True)
    inside = np.stack(to_degrees.transform([x - outwards * 0.01], [y + outwards * 0.01]), axis=1)
    check(storage, inside, sample(storage.url, inside))
    beyond = np.stack(to_degrees.transform([x + outwards * 0.01], [y + outwards * 0.01]), axis=1)
    with pytest.raises(CoverageError, match="nobody has written the cube at 1 of 1 points, such as row 0"):
        sample(storage.url, beyond)
    found = sample(storage.url, beyond, missing="nan")
    assert np.isnan(found.reflectance).all()
    assert int(found.zone.sum()) == 0


@pytest.mark.parametrize("kind", ["a shard is gone", "a period of one zone alone"])
def test_what_nobody_has_written_is_no_zero(kind, tmp_path):
    windows = {32632: window_around(32632, 11.99, 48.0), 32633: window_around(32633, 12.01, 48.0)}
    storage = Storage(str(tmp_path / "cube.zarr"))
    if kind == "a shard is gone":
        random_cube(storage, windows, months=(1,))
        for name in ("quality", "source", "reflectance"):
            (tmp_path / f"cube.zarr/32633/0/{name}/c/0/{'0/' if name == 'reflectance' else ''}1/2").unlink()
        row, col = windows[32633].row + 70, windows[32633].col + 140
    else:
        random_cube(storage, {32632: windows[32632]}, months=(1,))
        random_cube(storage, windows, months=(2,))
        row, col = windows[32633].row + 120, windows[32633].col + 190
    x, y = (col + 0.5) * 2.5, -(row + 0.5) * 2.5
    lon, lat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(x, y)
    assert ByHand(storage).of_zone(32632, lon, lat, "2023-01") is None
    cube = open_cube(storage.url)
    with pytest.raises(CoverageError, match=r"in 2023-01; `coverage\(\)`"):
        cube.sample([(lon, lat)])
    assert np.isnan(cube.sample([(lon, lat)], missing="nan").reflectance.sel(time="2023-01")).all()
    covered = cube.coverage("2023-01")
    assert not covered.contains(shapely.Point(lon, lat)).any()


def _frame(points: NDArray[np.float64]) -> pd.DataFrame:
    return pd.DataFrame({"name": [f"p{n}" for n in range(len(points))], "lon": points[:, 0], "lat": points[:, 1]})


FORMS = {
    "numbers": lambda points: points,
    "pairs": lambda points: [tuple(pair) for pair in points],
    "lon and lat": _frame,
    "Longitude and Latitude": lambda points: _frame(points).rename(columns={"lon": "Longitude", "lat": "Latitude"}),
    "x and y": lambda points: _frame(points).rename(columns={"lon": "x", "lat": "y"}),
    "geopandas": lambda points: gpd.GeoDataFrame(_frame(points), geometry=gpd.points_from_xy(*points.T), crs=4326),
    "geopandas in another CRS": lambda points: gpd.GeoSeries(gpd.points_from_xy(*points.T), crs=4326).to_crs(3857),
    "with an index": lambda points: _frame(points).set_index("name"),
    "past 180": lambda points: points + np.array([360.0, 0.0]),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, NDArray[np.float64]]:
    folder = tmp_path_factory.mktemp("small")
    windows = {32648: window_around(32648, 105.0, 15.0)}
    random_cube(Storage(str(folder / "cube.zarr")), windows, months=(1,))
    return str(folder / "cube.zarr"), scattered(windows, 20)


@pytest.mark.parametrize("form", FORMS)
def test_points_may_come_in_any_form(form, small):
    url, points = small
    wanted, found = sample(url, points), sample(url, FORMS[form](points))
    np.testing.assert_array_equal(found.reflectance, wanted.reflectance)
    if form == "with an index":
        assert list(found.point.values) == [f"p{n}" for n in range(len(points))]
        assert found.to_dataframe().loc["p3"].shape[0] == 12


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        ([(0.0, 91.0)], {}, "row 0 is at 0, 91, which is no place"),
        ([(0.0, 1.0), (math.nan, 0.0)], {}, "row 1 is at nan, 0"),
        ([(700_000.0, 1_600_000.0)], {}, "which is no place in EPSG:4326"),
        ([1.0, 2.0, 3.0], {}, "expected points"),
        ("Luxembourg", {}, "expected points"),
        (pd.DataFrame({"name": ["a"], "lon": [1.0]}), {}, "found columns name, lon"),
        (pd.DataFrame({"lat": ["north"], "lon": ["east"]}), {}, "have to be numbers"),
        (gpd.GeoSeries([shapely.Point(0, 0)]), {}, "do not say their CRS"),
        (gpd.GeoSeries([shapely.box(0, 0, 1, 1)], crs=4326), {}, "row 0 is no point"),
        (gpd.GeoSeries([None], crs=4326), {}, "row 0 is no point"),
        ([(105.0, 15.0)], {"crs": "EPSG:none"}, "expected a CRS"),
        ([(105.0, 15.0)], {"bands": ["B10"]}, "there is no 'B10'"),
        ([(105.0, 15.0)], {"bands": []}, "found none"),
        ([(105.0, 15.0)], {"bands": ["B02", "B02"]}, "each wanted band once"),
        ([(105.0, 15.0)], {"periods": ["2024-01"]}, "has no '2024-01'; it has 2023-01"),
        ([(105.0, 15.0)], {"missing": "zero"}, "expected 'raise' or 'nan'"),
    ],
)
def test_what_is_not_understood_is_said_in_a_line(points, options, words, small):
    with pytest.raises(ConfigError, match=words) as raised:
        sample(small[0], points, **options)
    assert "\n" not in str(raised.value)


def test_no_points_are_no_values(small):
    assert sample(small[0], []).reflectance.shape == (0, 1, 12)


def test_a_pickled_cube_reads_the_state_that_was_opened(tmp_path):
    windows = {32648: window_around(32648, 105.0, 15.0)}
    storage = Storage(str(tmp_path / "cube.zarr"))
    random_cube(storage, windows, months=(1,))
    kept = pickle.dumps(open_cube(storage.url))
    random_cube(storage, windows, months=(2,))
    cube = pickle.loads(kept)
    assert list(cube.periods) == ["2023-01"]
    points = scattered(windows, 10)
    np.testing.assert_array_equal(
        cube.sample(points).reflectance, sample(storage.url, points, periods="2023-01").reflectance
    )


def test_on_an_object_store_a_chunk_costs_one_request_and_a_shard_one_more(tmp_path, capsys):
    windows = {zone: window_around(zone, 12.0, 48.0) for zone in (32632, 32633)}
    (tmp_path / "bucket").mkdir()
    random_cube(Storage(str(tmp_path / "bucket/cube.zarr")), windows, months=(1, 2))
    points = scattered(windows, 200)
    with serve(tmp_path) as bucket:
        cube = open_cube("s3://bucket/cube.zarr", bucket.s3fs_options)
        opened = bucket.counted()
        found = cube.sample(points)
        read = bucket.counted()
        counted = [request for request in read.requests if "/c/" in request]
    np.testing.assert_array_equal(found.reflectance, sample(str(tmp_path / "bucket/cube.zarr"), points).reflectance)
    shards, chunks = (sum(w.height // side * (w.width // side) for w in windows.values()) for side in (64, 32))
    most = 2 * 3 * (shards + chunks)  # two months, three variables
    with capsys.disabled():
        print(
            f"\n200 points, 2 zones, 2 months on S3: {len(opened.requests)} requests to open, {len(read.requests)} to "
            f"read {chunks} chunks of {shards} shards, at most {most} of chunks and indexes"
        )
    assert len(opened.requests) <= 4
    assert len(counted) <= most


@pytest.mark.parametrize("store", ["that lists", "that does not list", "icechunk"])
def test_coverage_is_what_the_store_has(store, tmp_path, request):
    windows = {32632: window_around(32632, 11.99, 48.0, (1, 2)), 32633: window_around(32633, 12.01, 48.0, (1, 2))}
    if store == "that lists":
        bucket, options = request.getfixturevalue("bucket"), request.getfixturevalue("s3_options")
        url = f"s3://{bucket}/cube.zarr"
    elif store == "icechunk":
        pytest.importorskip("icechunk")
        url, options = f"icechunk+file://{tmp_path}/cube", {}
    else:
        (tmp_path / "bucket").mkdir()
        url, options = f"{tmp_path}/bucket/cube.zarr", {}
    random_cube(Storage(url, options), windows, months=(1,), grid=FLAT)
    random_cube(Storage(url, options), {32633: windows[32633]}, months=(2,), grid=FLAT)
    if store == "that does not list":
        with serve(tmp_path) as served:
            covered = open_cube("s3://bucket/cube.zarr", served.s3fs_options).coverage()
    else:
        covered = open_cube(url, options).coverage()
    counts = covered.groupby(["zone", "period"]).size().to_dict()
    assert counts == {(32632, "2023-01"): 2, (32633, "2023-01"): 2, (32633, "2023-02"): 2}
    window = windows[32633]
    left, _, _, top = window.bounds_m(32633)
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    row = covered[(covered.zone == 32633) & (covered.row == 0) & (covered.col == 1)].iloc[0]
    middle = shapely.Point(to_degrees.transform(left + 2.5 * 96, top - 2.5 * 32))
    assert row.geometry.centroid.distance(middle) < 1e-6
    assert row.geometry.area == pytest.approx(covered.area.mean(), rel=1e-3)
