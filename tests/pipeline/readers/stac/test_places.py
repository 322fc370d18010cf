"""Addresses: relative where cube and documents can be moved together, else whole; and how they are opened."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from described_cubes import ZONES, describe, make
from small_cubes import published

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.readers.stac.places import Addresses
from difffusr.pipeline.readers.stac.records import write_records
from difffusr.pipeline.storage.objects import Storage


def root(cube: str, folder: str, **more: Any) -> str:
    known: Any = SimpleNamespace(storage=Storage(cube, more.pop("options", {})))
    return Addresses(known, Storage(folder), **more).root


@pytest.mark.parametrize(
    ("cube", "folder", "expected"),
    [
        ("/data/cube.zarr", "/data/catalog", "../cube.zarr"),
        ("/data/cube.zarr", "/data/catalog/2024/cube", "../../../cube.zarr"),
        ("/data/cube.zarr", "/data", "./cube.zarr"),
        ("/data/cube.zarr", "/data/cube.zarr/stac", ".."),
        ("/data/cube.zarr", "/other/catalog", "/data/cube.zarr"),
        ("/data/cube.zarr", "/database/catalog", "/data/cube.zarr"),
        ("/data/a b#1/cube.zarr", "/data/a b#1/stac", "../cube.zarr"),
        ("s3://bucket/runs/cube.zarr", "s3://bucket/runs/stac", "../cube.zarr"),
        ("s3://bucket/cube.zarr", "s3://bucket/stac/here", "../../cube.zarr"),
        ("s3://bucket/runs/cube.zarr", "s3://bucket/stac", "s3://bucket/runs/cube.zarr"),
        ("s3://bucket/cube.zarr", "s3://other/stac", "s3://bucket/cube.zarr"),
        ("s3://bucket/cube.zarr", "/data/stac", "s3://bucket/cube.zarr"),
        ("/data/cube.zarr", "s3://bucket/stac", "/data/cube.zarr"),
        ("icechunk+s3://bucket/cube", "/data/stac", "icechunk+s3://bucket/cube"),
    ],
)
def test_an_address_is_relative_beside_the_cube_and_below_its_folder(cube, folder, expected):
    assert root(cube, folder) == expected
    assert root(cube, folder, absolute=True) == cube


def test_across_a_link_it_is_whole(tmp_path):
    (tmp_path / "real" / "stac").mkdir(parents=True)
    os.symlink(tmp_path / "real" / "stac", tmp_path / "stac")
    assert root(f"{tmp_path}/cube.zarr", f"{tmp_path}/stac") == f"{tmp_path}/cube.zarr"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("places")
    make(home, "laos", {epsg: window for epsg, (window, *_) in ZONES.items()}, months=(1, 2))
    assert describe(home / "laos.zarr", home / "stac") == 0
    return home


def asset(folder: Path, epsg: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"laos_{epsg}_2023-02.json").read_text())["assets"]
    return found


@pytest.mark.parametrize("epsg", ZONES)
def test_xarray_opens_an_asset_as_it_says_wherever_both_are_moved(home, tmp_path, epsg):
    shutil.copytree(home, tmp_path / "moved")
    # All that is asked for stands in the root's document: groups' own are of one publication or another.
    for path in (tmp_path / "moved" / "laos.zarr").rglob("zarr.json"):
        if path.parent.name != "laos.zarr":
            path.unlink()
    folder = tmp_path / "moved" / "stac"
    zarr = asset(folder, epsg)["zarr"]
    assert (zarr["zarr:node_type"], zarr["zarr:zarr_format"], zarr["zarr:consolidated"]) == ("group", 3, True)
    with xr.open_zarr(os.path.normpath(folder / zarr["href"]), **zarr["xarray:open_kwargs"]) as found:
        assert dict(found.sizes)["x"] == zarr["proj:shape"][1]
        assert float(found.reflectance.isel(time=1, band=0, y=3, x=3)) == pytest.approx(20 * zarr["raster:scale"])
        left = zarr["proj:transform"][2]
        assert float(found.x[0]) == left + 1.25


def test_zarr_opens_the_array_of_an_asset(home):
    import zarr

    quality = asset(home / "stac", 32648)["quality"]
    assert quality["zarr:node_type"] == "array"
    array = zarr.open_array(os.path.normpath(home / "stac" / quality["href"]), mode="r")
    assert array.shape[1:] == tuple(quality["proj:shape"])
    assert array.dtype == np.dtype(quality["data_type"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"anon": True}, {"anon": True}),
        ({"anon": True, "client_kwargs": {"endpoint_url": "https://user:secret@host"}}, {"anon": True}),
        ({"key": "me", "secret": "secret"}, None),
        ({"anon": False}, None),
        ({}, None),
    ],
)
def test_only_that_a_bucket_is_open_to_all_is_told(options, expected):
    known: Any = SimpleNamespace(storage=Storage("s3://bucket/cube.zarr", options))
    told = Addresses(known, Storage("s3://bucket/stac")).zarr(32632)
    assert told.get("xarray:storage_options") == expected
    assert "secret" not in json.dumps(told)


def test_a_repository_is_opened_by_icechunk_alone(tmp_path):
    storage = Storage(f"icechunk+{tmp_path}/cube")
    published(storage, Storage(f"{tmp_path}/staging"), 1, 5)
    write_records(Cube(storage), Storage(f"{tmp_path}/stac"), "cube")
    (path,) = Path(f"{tmp_path}/stac").glob("cube_*.json")
    zarr = json.loads(path.read_text())["assets"]["zarr"]
    assert (zarr["href"], zarr["type"]) == (storage.url, "application/vnd.zarr+icechunk")
    assert ("xarray:open_kwargs" in zarr, zarr["zarr:consolidated"]) == (False, False)
