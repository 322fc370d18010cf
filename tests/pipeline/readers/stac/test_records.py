"""A cube's STAC documents: valid, true to the cube, and found through a server."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
import xarray as xr
from described_cubes import PROVENANCE, ZONES, describe, make
from pyproj import Transformer
from pystac.extensions.mlm import MLMExtension, TaskType
from pystac_client import Client
from shapely.geometry import shape
from small_cubes import label, published
from stac_geoparquet.arrow import stac_table_to_items
from stac_server import stac_server

from difffusr.kernels.bands import BANDS, GROUPS
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.storage.objects import Storage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two zones, two months, described."""
    home = tmp_path_factory.mktemp("stac")
    make(home, "laos", {epsg: window for epsg, (window, *_) in ZONES.items()}, months=(1, 2))
    assert describe(home / "laos.zarr", home / "out") == 0
    return home / "out"


def documents(folder: Path) -> dict[str, dict[str, Any]]:
    """Every document by its id."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return {document["id"]: document for document in found}


def valid(document: dict[str, Any]) -> list[Any]:
    """Check against the schemas of STAC's core, which pystac brings along; extensions' lie on the net."""
    return pystac.validation.validate_dict(document, extensions=[])


def test_documents_are_valid(folder):
    found = documents(folder)
    items = [f"laos_{epsg}_{label(number)}" for epsg in ZONES for number in (1, 2)]
    assert sorted(found) == ["laos", *items, "laos_model"]
    assert all(valid(document) for document in found.values())


@pytest.mark.parametrize(
    ("name", "key"), [("laos", "extent"), ("laos_32648_2023-01", "geometry"), ("laos_32648_2023-01", "assets")]
)
def test_a_document_that_lacks_something_is_not(folder, name, key):
    broken = copy.deepcopy(documents(folder)[name])
    del broken[key]
    with pytest.raises(pystac.errors.STACValidationError):
        valid(broken)


def test_a_start_without_an_end_is_not_valid(folder):
    broken = copy.deepcopy(documents(folder)["laos_32648_2023-01"])
    del broken["properties"]["end_datetime"]
    with pytest.raises(pystac.errors.STACValidationError):
        valid(broken)


def test_links_lead_from_the_collection_to_its_items_and_back(folder):
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    items = list(collection.get_items())
    assert len(items) == 4
    assert all(item.get_collection().id == "laos" for item in items)
    assert {asset.href for asset in collection.assets.values()} == {
        "../laos.zarr",
        "./items.parquet",
        "./laos_32749_2023-02.png",
    }
    assert collection.assets["zarr"].get_absolute_href() == str(folder.parent / "laos.zarr")


@pytest.mark.parametrize("epsg", ZONES)
def test_item_is_true_to_the_cube(folder, epsg):
    window, _, name = ZONES[epsg]
    item = pystac.Item.from_file(str(folder / f"laos_{epsg}_2023-02.json"))
    properties, ground = item.properties, shape(item.geometry)
    assert ground.is_valid
    assert ground.exterior.is_ccw
    assert tuple(item.bbox) == ground.bounds
    lon, lat = ground.centroid.coords[0]
    assert (lon, lat) == pytest.approx({32648: (105.0, 16.3), 32749: (111.0, -15.9)}[epsg], abs=0.4)
    assert (properties["start_datetime"], properties["end_datetime"]) == (
        "2023-02-01T00:00:00Z",
        "2023-02-28T23:59:59Z",
    )
    assert (properties["proj:code"], properties["proj:shape"]) == (f"EPSG:{epsg}", [128, 128])
    assert properties["proj:bbox"] == list(window.bounds_m(epsg))
    assert properties["processing:software"] == {"difffusr": "0.1.0", "torch": "2.13.0+cpu"}
    # Opened at the asset's address, the store says the same.
    asset = item.assets["zarr"]
    with xr.open_zarr(asset.get_absolute_href(), **asset.extra_fields["xarray:open_kwargs"]) as group:
        described = properties["cube:variables"]
        assert {variable: entry["dimensions"] for variable, entry in described.items()} == {
            str(variable): list(array.dims) for variable, array in group.data_vars.items() if array.ndim > 2
        }
        for axis in ("x", "y"):
            entry = properties["cube:dimensions"][axis]
            assert entry["extent"] == [float(group[axis].min()), float(group[axis].max())]
        assert properties["cube:dimensions"]["band"]["values"] == group.band.values.tolist()
        days = [str(day)[:10] for day in group.time.values]
        assert [day[:10] for day in properties["cube:dimensions"]["time"]["values"]] == days
    assert [band["name"] for band in item.assets["zarr"].extra_fields["bands"]] == list(BANDS)
    sources = [(link.href, link.title) for link in item.links if link.rel == "derived_from"][:-1]
    assert sources == [(f"https://example.com/v1/collections/l2a/items/{name}2", f"{name}2")]


def test_the_model_is_described_and_linked_from_what_it_made(folder):
    item = pystac.Item.from_file(str(folder / "laos_32648_2023-02.json"))
    assert [link.href for link in item.links if link.rel == "derived_from"][-1] == "./model.json"
    model = pystac.Item.from_file(str(folder / "model.json"))
    assert valid(model.to_dict())
    told = MLMExtension.ext(model)
    assert (told.mlm_name, told.framework, told.tasks) == ("DiffFuSR", "pytorch", [TaskType.SUPER_RESOLUTION])
    assert told.hyperparameters.to_dict() == {"seed": 3, **PROVENANCE["sampling"]}
    assert [entry.input.shape for entry in told.input] == [[-1, 4, 192, 192], [-1, 6, 96, 96], [-1, 2, 32, 32]]
    assert [band for entry in told.input for band in entry.bands] == [
        band for bands in GROUPS.values() for band in bands
    ]
    assert told.output[0].result.shape == [-1, 12, 768, 768]
    fusion = model.assets["fusion"]
    assert fusion.href == "pkg:pypi/difffusr@0.1.0#kernels/weights/small-fusion.safetensors"
    assert fusion.extra_fields["file:checksum"] == "1220" + "cd" * 32
    assert model.assets["stage1"].href == "https://example.com/last.ckpt"  # its signature is no part of an address


def test_a_cube_that_does_not_say_its_weights_has_no_model(tmp_path):
    storage, staging = Storage(str(tmp_path / "old.zarr")), Storage(str(tmp_path / "old.staging"))
    published(storage, staging, 1, 5)
    assert describe(tmp_path / "old.zarr", tmp_path / "out") == 0
    assert not (tmp_path / "out" / "model.json").exists()
    assert "model" not in (tmp_path / "out" / "collection.json").read_text()


def around(lon: float, lat: float, epsg: int) -> PixelWindow:
    """Four shards around a place."""
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True).transform(lon, lat)
    origin = PixelWindow(0, 0, 0, 0).bounds_m(epsg)[3]
    return PixelWindow(round((origin - y) / 160) * 64 - 64, round(x / 160) * 64 - 64, 128, 128)


#: Zones of a cube, and which of their items cross 180°.
AT_180 = {
    "both zones, north": ({32660: 180.0, 32601: 180.0}, 66.0, {32660, 32601}),
    "both zones, south": ({32760: 180.0, 32701: 180.0}, -17.0, {32760, 32701}),
    "zone 1 alone, north": ({32601: 180.0}, 52.0, {32601}),
    "zone 60 alone, south": ({32760: 180.0}, -44.0, {32760}),
    "either side of it": ({32760: 178.5, 32701: -178.5}, -17.0, set()),
    "on the other side": ({32601: 179.5}, 70.0, set()),
    "near 84 degrees": ({32660: 180.0, 32601: 180.0}, 83.9, {32660, 32601}),
    "near 80 degrees": ({32760: 180.0}, -79.9, {32760}),
}


@pytest.mark.parametrize("place", AT_180)
def test_a_cube_at_180_degrees_is_where_it_is(tmp_path, place):
    zones, lat, crossing = AT_180[place]
    make(tmp_path, "date", {epsg: around(lon, lat, epsg) for epsg, lon in zones.items()}, months=[3])
    assert describe(tmp_path / "date.zarr", tmp_path / "out") == 0
    found = documents(tmp_path / "out")
    assert all(valid(document) for document in found.values())
    for epsg, lon in zones.items():
        item = found[f"date_{epsg}_2023-03"]
        ground, (west, south, east, north) = shape(item["geometry"]), item["bbox"]
        assert ground.is_valid
        assert (ground.geom_type == "MultiPolygon", west > east) == (epsg in crossing, epsg in crossing)
        assert (east - west) % 360 < 0.1 / math.cos(math.radians(lat))
        assert south < lat < north
        assert (lon - west) % 360 < (east - west) % 360
    # The collection and the model lie around what is there, not around the globe.
    model, extent = found["date_model"], found["date"]["extent"]["spatial"]["bbox"]
    west, _, east, _ = model["bbox"]
    assert extent[0] == model["bbox"]
    assert (west > east) == (bool(crossing) or len(zones) > 1)
    assert (east - west) % 360 < 4
    assert (shape(model["geometry"]).geom_type == "MultiPolygon") == (west > east)
    assert all((lon - west) % 360 < (east - west) % 360 for lon in zones.values())
    table = {item["id"]: item for item in stac_table_to_items(pq.read_table(tmp_path / "out" / "items.parquet"))}
    for name, item in table.items():
        assert item["bbox"] == found[name]["bbox"]
        assert shape(item["geometry"]).equals(shape(found[name]["geometry"]))


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[str]:
    # This server takes relative links from the folder that it runs in.
    assert describe(folder.parent / "laos.zarr", tmp_path, "--absolute") == 0
    with stac_server("collection.json", folder=tmp_path) as url:
        yield url


def test_items_are_found_through_a_server(folder, server):
    client = Client.open(server)
    assert client.get_collection("laos").title.startswith("Super-resolved Sentinel-2")
    search = client.search(collections=["laos"], bbox=[104.9, 16.0, 105.2, 16.6], datetime="2023-02-05/2023-02-06")
    found = list(search.items())
    assert [item.id for item in found] == ["laos_32648_2023-02"]
    assert found[0].properties["proj:code"] == "EPSG:32648"
    assert found[0].assets["zarr"].href == str(folder.parent / "laos.zarr")


def test_table_holds_the_same_items(folder):
    items = list(stac_table_to_items(pq.read_table(folder / "items.parquet")))
    written = documents(folder)
    assert len(items) == 4
    for item in items:
        document = written[item["id"]]
        assert (item["bbox"], item["links"]) == (document["bbox"], document["links"])
        assert item["properties"]["cube:dimensions"] == document["properties"]["cube:dimensions"]
        assert item["assets"]["zarr"]["href"] == document["assets"]["zarr"]["href"]
        assert shape(item["geometry"]).equals(shape(document["geometry"]))


def test_the_same_cube_gives_the_same_documents(folder):
    other = folder.parent / "out again"
    assert describe(folder.parent / "laos.zarr", other) == 0
    assert {path.name: path.read_bytes() for path in other.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_an_id_that_is_none_is_one_line(folder, tmp_path, capsys):
    assert describe(folder.parent / "laos.zarr", tmp_path / "out", "--id", "a b/c") == 2
    error = capsys.readouterr().err
    assert (error.count("\n"), "--id: found 'a b/c'" in error) == (1, True)
    assert not (tmp_path / "out").exists()
