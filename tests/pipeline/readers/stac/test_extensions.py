"""Documents keep to the extensions that they name: every field known, where it belongs, of the right kind."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pystac
import pytest
from described_cubes import ZONES, describe, make
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from pystac.extensions.render import RenderExtension
from stac_extensions import faults

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.readers.export.chosen import exports_of
from difffusr.pipeline.readers.export.tiling import How, export_items
from difffusr.pipeline.storage.objects import Storage


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items of a cube's zones in `zones`, of files exported from it in `files`, of its tiles in `tiles`."""
    home = tmp_path_factory.mktemp("extensions")
    make(home, "laos", {epsg: window for epsg, (window, *_) in ZONES.items()}, months=(1,))
    assert describe(home / "laos.zarr", home / "zones") == 0
    cube = Cube(Storage(str(home / "laos.zarr")))
    for folder, wishes in (
        ("files", {"variables": ["reflectance", "quality", "source"]}),
        ("tiles", {"tile_km": 0.3}),
        ("mosaic", {"crs": "EPSG:3857", "resolution": 500.0}),
    ):
        export_items(cube, exports_of(cube, None, **wishes), Storage(str(home / folder)), folder, How(workers=1))
    return home


def items(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [one for one in found if one["type"] == "Feature" and "mlm:name" not in one["properties"]]


@pytest.mark.parametrize("folder", ["zones", "files", "tiles", "mosaic"])
def test_every_field_is_as_its_extension_says(home, folder):
    found = items(home / folder)
    assert found
    for item in found:
        assert faults(item) == []
    for document in (*found, json.loads((home / folder / "collection.json").read_text())):
        pystac.validation.validate_dict(document, extensions=[])


BREAKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a shape of text": lambda item: item["assets"]["zarr"].update({"proj:shape": ["128", "128"]}),
    "a code that is a number": lambda item: item["properties"].update({"proj:code": 32648}),
    "a colour in small letters": lambda item: item["assets"]["quality"]["classification:classes"][1].update(
        color_hint="3c9d5d"
    ),
    "a class without a value": lambda item: item["assets"]["quality"]["classification:classes"][1].pop("value"),
    "a render of nothing": lambda item: item["properties"]["renders"]["quality"].pop("assets"),
    "a Zarr format of the future": lambda item: item["assets"]["zarr"].update({"zarr:zarr_format": 4}),
    "a field of another place": lambda item: item["properties"].update({"zarr:node_type": "group"}),
    "a field of an extension that is not named": lambda item: item["assets"]["zarr"].update({"file:size": 3}),
    "an extension that is not used": lambda item: item["stac_extensions"].append(
        "https://stac-extensions.github.io/file/v2.1.0/schema.json"
    ),
    "a common name that nobody knows": lambda item: item["assets"]["zarr"]["bands"][0].update(
        {"eo:common_name": "ultraviolet"}
    ),
    "arguments that are a list": lambda item: item["assets"]["zarr"].update({"xarray:open_kwargs": []}),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_not_so_is_found(home, name):
    broken = copy.deepcopy(items(home / "zones")[0])
    BREAKS[name](broken)
    assert len(faults(broken)) == 1


def test_pystac_understands_them(home):
    item = pystac.Item.from_dict(items(home / "zones")[0])
    assert ProjectionExtension.ext(item).code == "EPSG:32648"
    for name, shape in (("zarr", [128, 128]), ("quality", [128, 128])):
        projected = ProjectionExtension.ext(item.assets[name])
        assert (projected.code, projected.shape, projected.transform[0]) == ("EPSG:32648", shape, 2.5)
    classes = ClassificationExtension.ext(item.assets["quality"]).classes
    assert classes is not None
    assert [(one.value, one.name, one.color_hint) for one in classes[:2]] == [
        (0, "no_data", "9AA0A6"),
        (1, "clear", "3C9D5D"),
    ]
    renders = RenderExtension.ext(item).renders
    assert set(renders) == {"true-colour", "infrared", "quality"}
    assert RasterExtension.has_extension(item)


@pytest.mark.parametrize("folder", ["zones", "files", "tiles", "mosaic"])
def test_renders_name_assets_and_bands_that_there_are(home, folder):
    for item in items(home / folder):
        for render in item["properties"]["renders"].values():
            for asset, names in zip(render["assets"], render.get("bands", [[]]), strict=True):
                bands = [band["name"] for band in item["assets"][asset].get("bands", [{"name": asset}])]
                assert [bands[index - 1] for index in render["bidx"]] == (names or bands)
            assert all(low < high for low, high in render.get("rescale", []))


@pytest.mark.parametrize("folder", ["zones", "files", "tiles", "mosaic"])
def test_assets_of_pixels_say_their_scale_type_and_fill(home, folder):
    for item in items(home / folder):
        for name, asset in item["assets"].items():
            if name == "thumbnail":
                assert asset["roles"] == ["thumbnail"]
                continue
            assert {"proj:code", "proj:transform", "proj:shape", "data_type", "nodata"} <= set(asset)
            if name in ("zarr", "reflectance"):
                assert (asset["raster:scale"], asset["raster:offset"], asset["nodata"]) == (1e-4, 0.0, 0)
                assert [band["name"] for band in asset["bands"]] == list(BANDS)
            assert asset["data_type"] == ("uint8" if name == "quality" else "uint16")
