"""An area is read from any vector file, or one line says why not."""

from __future__ import annotations

import zipfile
from pathlib import Path
from urllib.parse import quote

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from drawn_areas import FIJI, area_of, refused, share_not_common
from odd_names import ODD_NAMES
from shapely.geometry import Point, box

from difffusr.pipeline.config.sections import AreaSection
from difffusr.pipeline.geo.vector import condition_for, read_vector_file
from difffusr.pipeline.ground.errors import ConfigError

COUNTRIES = {"LUX": box(5.7, 49.4, 6.6, 50.2), "FJI": FIJI, "LIE": box(9.47, 47.05, 9.64, 47.27)}


@pytest.fixture
def countries() -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"iso": list(COUNTRIES), "pop": [660, 930, 39]}, geometry=[*COUNTRIES.values()], crs=4326)


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb", "a.geojson", "a.parquet", "a.zip", "folder"])
def test_a_country_is_chosen_from_any_boundaries_file(tmp_path: Path, name: str, countries: gpd.GeoDataFrame) -> None:
    file = tmp_path / name
    if name == "a.parquet":
        countries["sources"] = [["a"], ["b"], []]  # what OGR has no type for
        countries.to_parquet(file)
    elif name == "a.zip":
        countries.to_file(tmp_path / "b.shp")
        with zipfile.ZipFile(file, "w") as archive:
            for part in tmp_path.glob("b.*"):
                archive.write(part, part.name)
    elif name == "folder":
        file.mkdir()
        countries.to_file(file / "a.shp")
    else:
        countries.to_file(file)
    assert area_of(tmp_path, file=name, where="iso = 'LUX'").equals(COUNTRIES["LUX"])
    assert share_not_common(FIJI, area_of(tmp_path, file=name, where="pop > 900")) < 1e-9
    both = area_of(tmp_path, file=name, where="iso IN ('LUX', 'LIE')")
    assert share_not_common(COUNTRIES["LUX"].union(COUNTRIES["LIE"]), both) < 1e-9
    assert share_not_common(shapely.union_all([*COUNTRIES.values()]), area_of(tmp_path, file=name)) < 1e-9


def test_a_layer_is_asked_for_only_where_several_have_polygons(tmp_path: Path, countries: gpd.GeoDataFrame) -> None:
    file = tmp_path / "a.gpkg"
    gpd.GeoDataFrame(geometry=[Point(0, 0)], crs=4326).to_file(file, layer="capitals")
    countries[:1].to_file(file, layer="countries")
    assert area_of(tmp_path, file="a.gpkg").equals(COUNTRIES["LUX"])
    countries[2:].to_file(file, layer="principalities")
    message = refused(tmp_path, file="a.gpkg")
    assert message == (
        "found polygons in several layers, expected one of them as area.layer: 'countries', 'principalities'"
    )
    assert area_of(tmp_path, file="a.gpkg", layer="principalities").equals(COUNTRIES["LIE"])
    message = refused(tmp_path, file="a.gpkg", layer="countrys")
    assert message == "no layer 'countrys' (area.layer), found 'capitals', 'countries', 'principalities'"
    assert refused(tmp_path, file="a.gpkg", layer="capitals") == (
        "found Point, expected a Polygon or MultiPolygon that covers some ground"
    )


def write_raster(file: Path) -> None:
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        width=4,
        height=4,
        count=1,
        dtype="uint8",
        transform=rasterio.Affine(1, 0, 0, 0, -1, 4),
    ) as raster:
        raster.write(np.zeros((1, 4, 4), "uint8"))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gpkg").write_text("no database")
    (tmp_path / "a.parquet").write_text("no table")
    (tmp_path / "empty.shp").touch()
    write_raster(tmp_path / "a.tif")
    assert refused(tmp_path, file="nowhere.gpkg") == "cannot be read: no such file here"
    for name in ("a.gpkg", "a.tif", "empty.shp"):
        assert refused(tmp_path, file=name).startswith("not a vector file that GDAL reads: ")
    assert refused(tmp_path, file="a.parquet").startswith("not a GeoParquet file: ")


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb", "a.geojson", "a.parquet"])
def test_a_condition_that_cannot_be_met_is_refused(tmp_path: Path, name: str, countries: gpd.GeoDataFrame) -> None:
    countries.to_parquet(tmp_path / name) if name == "a.parquet" else countries.to_file(tmp_path / name)
    for where in ("nation = 'LUX'", "iso = ("):
        message = refused(tmp_path, file=name, where=where)
        assert message.startswith(f"area.where {where!r} is not understood, expected a condition on its attributes")
    assert refused(tmp_path, file=name, where="iso = 'ABC'") == (
        "nothing matches area.where \"iso = 'ABC'\", expected a Polygon or MultiPolygon"
    )


def test_a_layer_of_geoparquet_is_refused(tmp_path: Path, countries: gpd.GeoDataFrame) -> None:
    countries.to_parquet(tmp_path / "a.parquet")
    assert refused(tmp_path, file="a.parquet", layer="x") == "no layer 'x' (area.layer), GeoParquet has none"


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.parquet"])
def test_coordinates_without_a_crs_are_refused(tmp_path: Path, name: str) -> None:
    frame = gpd.GeoDataFrame({"n": [1]}, geometry=[box(1, 2, 3, 4)], crs=None)
    frame.to_parquet(tmp_path / name) if name == "a.parquet" else frame.to_file(tmp_path / name)
    assert refused(tmp_path, file=name).startswith("has no CRS; set the one that its coordinates are in")


@pytest.mark.parametrize("kind", ["gpkg", "shp", "fgb", "parquet", "geojson"])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_vector_file_may_lie_in_a_folder_of_any_name(
    tmp_path: Path, kind: str, name: str, countries: gpd.GeoDataFrame
) -> None:
    plain, odd = tmp_path / "plain", tmp_path / name
    plain.mkdir()
    if kind == "parquet":
        countries.to_parquet(plain / "a.parquet")
    else:
        countries.to_file(plain / f"a.{kind}")
    plain.rename(odd)
    assert area_of(odd, file=f"a.{kind}", where="iso = 'LUX'").equals(COUNTRIES["LUX"])
    assert area_of(odd, file=f"file://{quote(str(odd))}/a.{kind}", where="iso = 'LUX'").equals(COUNTRIES["LUX"])
    if kind == "geojson":
        assert share_not_common(area_of(odd, geojson="a.geojson"), area_of(odd, file="a.geojson")) < 1e-9


NAMED = {
    "SOVEREIGNT": ["Belgium", "Belgium", "Côte d'Ivoire"],
    "NAME_LONG": ["Flanders", "Wallonia", "Côte d'Ivoire"],
    "iso_a2": ["BE", "BE", "CI"],
    "odd name": ["a", "b", "c"],
    'odder "name"': ["d", "e", "f"],
    "POP": [1.0, None, 3.0],
}


@pytest.mark.parametrize(
    ("wanted", "condition", "count"),
    [
        ("be", "\"iso_a2\" = 'BE'", 2),
        ("BELGIUM", "\"SOVEREIGNT\" = 'Belgium'", 2),
        ("Flanders", "\"NAME_LONG\" = 'Flanders'", 1),
        ("côte d'ivoire", "\"NAME_LONG\" = 'Côte d''Ivoire'", 1),
        ("b", "\"odd name\" = 'b'", 1),
    ],
)
@pytest.mark.parametrize("kind", ["gpkg", "parquet", "geojson"])
def test_a_country_is_found_by_whatever_names_it(tmp_path, kind, wanted, condition, count):
    frame = gpd.GeoDataFrame(NAMED, geometry=[box(i, 0, i + 1, 1) for i in range(3)], crs="EPSG:4326")
    file = tmp_path / f"countries.{kind}"
    frame.to_parquet(file) if kind == "parquet" else frame.to_file(file)
    assert condition_for(AreaSection(file=str(file)), wanted) == condition
    assert len(read_vector_file(AreaSection(file=str(file), where=condition)).geometries) == count


@pytest.mark.parametrize("wanted", ["Belgien", "3", "d", "", "Belgium' OR '1' = '1"])
def test_a_country_that_no_attribute_names_is_refused(tmp_path, wanted):
    file = tmp_path / "countries.gpkg"
    gpd.GeoDataFrame(NAMED, geometry=[box(i, 0, i + 1, 1) for i in range(3)], crs="EPSG:4326").to_file(file)
    with pytest.raises(ConfigError, match="nothing is called"):
        condition_for(AreaSection(file=str(file)), wanted)
