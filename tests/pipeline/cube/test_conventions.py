"""A cube's groups follow the Zarr conventions that they name, and CF: what GIS and xarray go by."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import xarray as xr
from beside import SHARED
from small_cubes import EPSG, GROUP, WINDOW, published

from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.storage.objects import Storage

SCHEMAS = SHARED / "schemas" / "zarr-conventions"

#: What names the conventions: a zone's group.
ZONE = str(EPSG)
CONVENTIONS = ("geo-proj", "spatial", "multiscales")


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One month."""
    folder = tmp_path_factory.mktemp("conventions")
    published(Storage(str(folder / "cube.zarr")), Storage(str(folder / "cube.staging")), 1, 11)
    return folder / "cube.zarr"


def group(cube: Path, path: str) -> dict[str, Any]:
    """A group's metadata."""
    document: dict[str, Any] = json.loads((cube / path / "zarr.json").read_text())
    return document


def check(schema: str, document: dict[str, Any]) -> None:
    """Raise where the document does not follow the schema."""
    file = SCHEMAS / f"{schema}.schema.json"
    if not file.is_file():
        pytest.skip("the conventions' schemas are not beside this checkout")
    # The schemas say draft 7, in which whatever stands beside a $ref is not looked at; later drafts look at it.
    for draft in (jsonschema.Draft7Validator, jsonschema.Draft202012Validator):
        draft(json.loads(file.read_text())).validate(document)


@pytest.mark.parametrize("schema", CONVENTIONS)
def test_a_zone_follows_the_conventions_it_names(cube, schema):
    check(schema, group(cube, ZONE))


def test_levels_and_arrays_name_none(cube):
    """Their names are objects, which netCDF does not have, and a crop would go on telling the place of the whole."""
    nested = {"zarr_conventions", "spatial:transform", "proj:code"}
    below = [json.loads(file.read_text())["attributes"] for file in cube.glob(f"{ZONE}/*/**/zarr.json")]
    assert len(below) > 20
    assert not any(nested & attributes.keys() for attributes in below)


def without(key: str) -> Callable[[dict[str, Any]], None]:
    """Takes an attribute away."""
    return lambda attributes: attributes.pop(key) and None


def renamed(attributes: dict[str, Any]) -> None:
    """Names no convention any more."""
    attributes["zarr_conventions"] = [{"name": "mine"}]


def bent(attributes: dict[str, Any]) -> None:
    """A transform of four numbers is none."""
    attributes["spatial:transform"] = attributes["spatial:transform"][:4]


def one_dimension(attributes: dict[str, Any]) -> None:
    """Rows without columns."""
    attributes["spatial:dimensions"] = ["y"]


def without_layout(attributes: dict[str, Any]) -> None:
    """Levels of no layout."""
    attributes["multiscales"] = {"resampling_method": "average"}


@pytest.mark.parametrize(
    ("schema", "breaks"),
    [
        ("geo-proj", without("proj:code")),
        ("geo-proj", renamed),
        ("spatial", one_dimension),
        ("spatial", bent),
        ("spatial", renamed),
        ("multiscales", without("multiscales")),
        ("multiscales", without_layout),
        ("multiscales", renamed),
    ],
)
def test_a_group_that_breaks_a_convention_fails(cube, schema, breaks):
    broken = copy.deepcopy(group(cube, ZONE))
    breaks(broken["attributes"])
    with pytest.raises(jsonschema.ValidationError):
        check(schema, broken)


def test_every_convention_is_named_once(cube):
    names = [convention["name"] for convention in group(cube, ZONE)["attributes"]["zarr_conventions"]]
    assert sorted(names) == ["multiscales", "proj:", "spatial"]


def test_attributes_are_those_of_cf(cube):
    with xr.open_zarr(cube, group=GROUP, decode_coords="all") as data:
        assert data.attrs["Conventions"] == "CF-1.11"
        left, _, _, top = WINDOW.bounds_m(EPSG)
        assert float(data.x[0]) == left + 1.25
        assert float(data.y[0]) == top - 1.25
        assert (data.x.attrs["standard_name"], data.y.attrs["units"]) == ("projection_x_coordinate", "m")
        assert data.spatial_ref.attrs["grid_mapping_name"] == "transverse_mercator"
        assert data.reflectance.encoding["grid_mapping"] == "spatial_ref"
        assert data.reflectance.attrs["standard_name"] == "surface_bidirectional_reflectance"
        assert data.wavelength.attrs == {
            "standard_name": "radiation_wavelength", "units": "nm", "long_name": "central wavelength of Sentinel-2A"
        }  # fmt: skip
        assert data.time.values.tolist() == [np.datetime64("2023-01-01", "ns").astype(int)]
        assert data.time_bnds.values.astype("datetime64[D]").astype(str).tolist() == [["2023-01-01", "2023-02-01"]]
        flags = data.quality.attrs
        assert flags["flag_values"] == [int(flag) for flag in Quality]
        assert len(flags["flag_meanings"].split()) == len(flags["flag_values"])


def gdal(*words: str) -> str:
    """What a program of GDAL prints."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    told = subprocess.run(["gdalinfo", "--version"], capture_output=True, text=True, check=True).stdout
    if tuple(map(int, told.split()[1].strip(",").split(".")[:2])) < (3, 13):
        pytest.skip(f"GDAL reads sharded Zarr from 3.13 on, this is {told.split(',')[0]}")
    ended = subprocess.run(words, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return ended.stdout


@pytest.mark.parametrize("name", ["quality", "reflectance"])
def test_gdal_finds_pixels_place_and_overviews(cube, name):
    top = WINDOW.bounds_m(EPSG)[3]
    index = ":0" if name == "quality" else ":0:3"
    told = json.loads(gdal("gdalinfo", "-json", "-mm", f'ZARR:"{cube}":/{GROUP}/{name}{index}'))
    assert told["size"] == [WINDOW.width, WINDOW.height]
    assert told["geoTransform"] == [WINDOW.bounds_m(EPSG)[0], 2.5, 0.0, top, 0.0, -2.5]
    assert told["stac"]["proj:epsg"] == EPSG
    assert (told["bands"][0]["computedMin"], told["bands"][0]["computedMax"]) == (11, 11)
    # It takes the levels for what they are, and grumbles at nothing: that would be told on standard error.
    levels = json.loads(gdal("gdalmdiminfo", str(cube)))["groups"][str(EPSG)]["groups"]
    assert [name in level["arrays"] for level in levels.values()] == [True, True]
