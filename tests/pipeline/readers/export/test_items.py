"""Items of exported files: true to the files, and loaded by odc-stac."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import shapely
from exported_tiles import PLACE
from pyproj import Transformer
from shapely.geometry import shape

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.readers.export.chosen import exports_of
from difffusr.pipeline.readers.export.tiling import How, export_items
from difffusr.pipeline.storage.objects import Storage

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:odc.*"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:odc.*"),
]

WISHES: dict[str, dict[str, Any]] = {
    "zones": {},
    "tiles of zones": {"tile_km": 0.2},
    "a mosaic": {"crs": "EPSG:3035"},
    "tiles of a mosaic": {"crs": "EPSG:3035", "tile_km": 0.2},
    "degrees": {"crs": "EPSG:4326", "tile_km": 0.3},
}


@pytest.fixture(scope="module", params=WISHES)
def folder(request: pytest.FixtureRequest, kept_zones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    cube = Cube(Storage(str(kept_zones)))
    export_items(cube, exports_of(cube, None, **WISHES[request.param]), Storage(str(folder)), "items", How(workers=1))
    return folder


def items_in(folder: Path) -> list[pystac.Item]:
    return list(pystac.Collection.from_file(str(folder / "collection.json")).get_items())


def test_the_collection_leads_to_items_that_say_what_the_files_are(folder):
    items = items_in(folder)
    assert {item.assets[name].href for item in items for name in item.assets} == {
        f"./{path.name}" for path in folder.glob("*.tif")
    }
    for item in items:
        assert item.get_collection().id == "items"
        for asset in item.assets.values():
            path, told = Path(asset.get_absolute_href()), asset.extra_fields
            assert told["file:size"] == path.stat().st_size
            assert told["file:checksum"] == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
            with rasterio.open(path) as file:
                assert told["proj:shape"] == [file.height, file.width]
                assert told["proj:transform"] == pytest.approx(list(file.transform)[:6], abs=1e-9)
                assert told["proj:code"] == f"EPSG:{file.crs.to_epsg()}"
                assert (told["nodata"], told["data_type"]) == (file.nodata, file.dtypes[0])
                if asset.title == "surface reflectance":
                    assert told["raster:scale"] == file.scales[0]
                    assert [band["name"] for band in told["bands"]] == list(file.descriptions)


def test_a_footprint_holds_the_files_data(folder):
    for item in items_in(folder):
        with rasterio.open(item.assets["quality"].get_absolute_href()) as file:
            rows, cols = np.nonzero(file.read(1))
            x, y = rasterio.transform.xy(file.transform, rows, cols)
            lon, lat = Transformer.from_crs(file.crs.to_wkt(), "EPSG:4326", always_xy=True).transform(x, y)
        ground = shape(item.geometry)
        assert ground.is_valid
        assert tuple(item.bbox) == ground.bounds
        away = shapely.distance(ground, shapely.points(np.stack([lon, lat], axis=-1))) * 111_320
        assert away.max() <= item.properties["difffusr:footprint"]["short_m"]


def test_odc_stac_loads_what_the_files_hold(folder):
    items = items_in(folder)
    codes = {item.properties["proj:code"] for item in items}
    for code in codes:
        here = [item for item in items if item.properties["proj:code"] == code]
        loaded = odc.stac.load(here, bands=["B04", "nir", "quality"])
        assert f"EPSG:{loaded.odc.crs.epsg}" == code
        for item in here:
            with rasterio.open(item.assets["reflectance"].get_absolute_href()) as file:
                x = file.transform.c + file.transform.a * (np.arange(file.width) + 0.5)
                y = file.transform.f + file.transform.e * (np.arange(file.height) + 0.5)
                names = list(loaded.dims)
                down, right = [name for name in names if name != "time"][-2:]
                part = loaded.isel(time=0).sel({right: x, down: y}, method="nearest", tolerance=file.transform.a / 10)
                np.testing.assert_array_equal(part.B04, file.read(BANDS.index("B04") + 1))
                np.testing.assert_array_equal(part.nir, file.read(BANDS.index("B08") + 1))


def test_odc_stac_warps_them_into_another_crs(folder):
    items = items_in(folder)
    lon, lat = PLACE
    loaded = odc.stac.load(
        items, bands=["B03"], crs="EPSG:3857", resolution=5, bbox=(lon - 1e-3, lat - 4e-4, lon + 1e-3, lat + 4e-4),
        groupby="time",
    )  # fmt: skip
    assert (loaded.B03.isel(time=0) > 0).mean() > 0.95


def test_the_command_writes_items_where_it_is_asked_to(kept_zones, run, tmp_path):
    plain, told = tmp_path / "plain", tmp_path / "told"
    words = ("--bbox", "11.999,47.9995,12.0,48.0", "--variable", "quality")
    assert run(kept_zones, "--cog", plain, *words)[0] == 0
    assert {path.suffix for path in plain.iterdir()} == {".tif"}
    assert run(kept_zones, "--cog", told, *words, "--stac")[0] == 0
    assert {path.name for path in plain.iterdir()} < {path.name for path in told.iterdir()}
    assert len(items_in(told)) == len(list(plain.iterdir()))
    for path in plain.iterdir():
        with rasterio.open(path) as one, rasterio.open(told / path.name) as other:
            np.testing.assert_array_equal(one.read(), other.read())


def test_a_mosaic_says_that_it_was_warped(kept_zones, tmp_path):
    cube = Cube(Storage(str(kept_zones)))
    export_items(cube, exports_of(cube, None, crs="EPSG:3035"), Storage(str(tmp_path)), "items", How(workers=1))
    (path,) = (path for path in tmp_path.glob("*.json") if path.name != "collection.json")
    assert (
        "warped into EPSG:3035 from the UTM zones" in json.loads(path.read_text())["properties"]["processing:lineage"]
    )
