"""`sample` and `mosaic` write what Python reads; what the documents say of reading works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from beside import ROOT
from PIL import Image
from random_cubes import random_cube, window_around

from difffusr.pipeline.readers import open_cube
from difffusr.pipeline.storage.objects import Storage

README = ROOT / "notebooks" / "README.md"

#: What the documents read of the demonstration.
LON, LAT = 9.0165, 47.7485


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the demonstration's cube lies; two months."""
    storage = Storage(str(tmp_path_factory.mktemp("cube") / "cube.zarr"))
    random_cube(storage, {32632: window_around(32632, LON, LAT, (5, 5))}, months=(1, 2), samples=3)
    return storage.url


def points(count: int = 7) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(LON - 0.003, LON + 0.003, count), rng.uniform(LAT - 0.002, LAT + 0.002, count)
    return pd.DataFrame({"name": [f"p{n}" for n in range(count)], "lon": lon, "lat": lat, "scene": "mine"})


def written(kind: str, folder: Path) -> Path:
    table = points()
    shapes = gpd.GeoDataFrame(table, geometry=gpd.points_from_xy(table.lon, table.lat), crs=4326).to_crs(3035)
    path = folder / f"points.{kind.split()[-1]}"
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "plain parquet":
        table.to_parquet(path)
    elif kind == "geo parquet":
        shapes.to_parquet(path)
    else:
        shapes.to_file(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "plain parquet", "geo parquet", "gpkg", "geojson"])
def test_points_of_any_file_get_a_row_for_each_period(kind, url, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command("sample", url, written(kind, tmp_path))
    assert ended.code == 0, ended.err
    assert "14 rows, 14 with data, from 1 zone" in ended.out
    rows = pd.read_parquet(tmp_path / "points-sampled.parquet")
    wanted = open_cube(url).sample(points())
    assert list(rows["period"]) == ["2023-01", "2023-02"] * 7
    assert list(rows["name"]) == [f"p{n}" for n in range(7) for _ in range(2)]
    np.testing.assert_array_equal(rows["B04"], wanted.reflectance.sel(band="B04").values.ravel())
    np.testing.assert_array_equal(rows["B12_std"], wanted.reflectance_std.sel(band="B12").values.ravel())
    assert set(rows["quality"]) <= {"clear", "filled", "cloudy"}
    assert set(rows["scene_of_point"]) == {"mine"}
    assert rows["scene"].str.fullmatch(r"scene-[12]-[12]").all()
    assert set(rows["zone"]) == {32632}


def test_bands_periods_and_the_file_may_be_chosen(url, command, tmp_path):
    path = written("csv", tmp_path)
    words = ["--band", "B08", "--band", "B02", "--period", "2023-02", "-o", tmp_path / "values.csv"]
    assert command("sample", url, path, *words).code == 0
    rows = pd.read_csv(tmp_path / "values.csv")
    assert [name for name in rows.columns if name.startswith("B")] == ["B08", "B02", "B08_std", "B02_std"]
    assert list(rows["period"].unique()) == ["2023-02"]


@pytest.mark.parametrize("variable", ["reflectance", "quality", "source", "reflectance_std"])
def test_a_mosaic_is_a_geotiff_of_what_python_reads(variable, url, command, tmp_path):
    box, out = "9.0150,47.7475,9.0180,47.7495", tmp_path / "area.tif"
    words = ["--bbox", box, "--crs", "EPSG:3035", "--period", "2023-01", "--variable", variable]
    ended = command("mosaic", url, out, *words)
    assert ended.code == 0, ended.err
    wanted = open_cube(url).mosaic(
        bbox=tuple(map(float, box.split(","))), crs="EPSG:3035", period="2023-01", variable=variable
    )
    with rasterio.open(out) as file:
        found = file.read()
        assert file.crs.to_epsg() == 3035
        assert file.transform.a == 2.5
        assert (file.xy(0, 0)) == pytest.approx((float(wanted.x[0]), float(wanted.y[0])))
        assert file.dtypes[0] == str(wanted.dtype)
        if variable == "reflectance":
            assert file.descriptions[:3] == ("B01", "B02", "B03")
            assert np.isnan(file.nodata)
    np.testing.assert_array_equal(found, wanted.values.reshape(found.shape))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["area.tif"]


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_mosaic_may_be_a_picture(kind, url, command, tmp_path):
    out = tmp_path / f"area.{kind}"
    ended = command("mosaic", url, out, "--bbox", "9.015,47.7475,9.018,47.7495", "--period", "2023-02")
    assert ended.code == 0, ended.err
    pixels = np.asarray(Image.open(out).convert("RGB"))
    assert pixels.std() > 20
    assert f"{pixels.shape[1]} × {pixels.shape[0]} px, EPSG:32632" in ended.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["sample", "CUBE", "nowhere.csv"], 2, "is not there"),
        (["sample", "CUBE", "names.csv"], 2, "expected lon and lat"),
        (["sample", "CUBE", "bad.parquet"], 2, "cannot be read as points"),
        (["sample", "CUBE", "far.csv"], 1, "nobody has written the cube at 1 of 1 points"),
        (["sample", "CUBE", "far.csv", "--missing", "zero"], 2, "expected raise or nan"),
        (["sample", "CUBE", "far.csv", "-o", "values.xlsx"], 2, "ends with .parquet or .csv"),
        (["sample", "CUBE", "far.csv", "-o", "no/such/values.csv"], 1, "no such folder"),
        (["sample", "CUBE", "far.csv", "--band", "B10"], 2, "there is no 'B10'"),
        (["sample", "nowhere.zarr", "far.csv"], 1, "holds no cube"),
        (["mosaic", "CUBE", "a.tif"], 2, "say which area"),
        (["mosaic", "CUBE", "a.nc", "--bbox", "9,47,9.1,47.1"], 2, "ends with .tif"),
        (["mosaic", "CUBE", "a.tif", "--bbox", "9,47"], 2, "--bbox"),
        (["mosaic", "CUBE", "a.tif", "--bbox", "9.015,47.7475,9.018,47.7495"], 2, "has several"),
        (["mosaic", "CUBE", "a.tif", "--bbox", "19,47,19.1,47.1", "--period", "2023-01"], 1, "no zone shows"),
        (["mosaic", "CUBE", "a.tif", "--bbox", "9.0,47.74,9.03,47.76", "--period", "2023-01"], 1, "nobody has written"),
    ],
)
def test_what_goes_wrong_is_said_in_a_line_and_leaves_no_file(words, code, said, url, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names.csv").write_text("name\na\n")
    Path("bad.parquet").write_bytes(b"PAR1 but not really")
    Path("far.csv").write_text("lon,lat\n100.0,10.0\n")
    before = sorted(tmp_path.iterdir())
    ended = command(*(url if word == "CUBE" else word for word in words))
    assert (ended.code, said in ended.err) == (code, True), ended.err
    assert ended.err.count("\n") <= 2
    assert sorted(tmp_path.iterdir()) == before


def test_what_nobody_has_written_may_be_no_data(url, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("far.csv").write_text("lon,lat\n100.0,10.0\n")
    ended = command("sample", url, "far.csv", "--missing", "nan")
    assert ended.code == 0
    assert "2 rows, 0 with data" in ended.out
    rows = pd.read_parquet("far-sampled.parquet")
    assert rows["B02"].isna().all()
    assert list(rows["quality"]) == ["no_data"] * 2


def test_what_the_document_says_of_reading_works(url, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points().to_csv("points.csv", index=False)
    section = README.read_text().partition("## Without difffusr")[0]
    one_month = str(tmp_path / "one-month.zarr")
    random_cube(Storage(one_month), {32632: window_around(32632, LON, LAT, (5, 5))}, months=(1,))
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        small = block.replace("demo-output/cube.zarr", one_month).replace("size=256", "size=32")
        exec(small.replace("num_workers=2", "num_workers=0"), names)
    assert names["values"].reflectance.shape == (2, 1, 2)
    assert names["image"].load().shape[0] == 3
    assert names["batch"]["reflectance"].shape[1:] == (12, 32, 32)
    (commands,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    for line in commands.strip().splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "difffusr"
        ended = command(*(one_month if word == "demo-output/cube.zarr" else word for word in words))
        assert ended.code == 0, ended.err
    assert Path("values.parquet").exists()
    assert Path("area.tif").exists()
