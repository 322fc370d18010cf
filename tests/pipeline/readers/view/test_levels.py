"""Tiles are made from the level that fits, and reading stays bounded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import zarr
from mapped_cubes import EPSG, LAT, LON, client_of, drawn, tile_over
from starlette.testclient import TestClient

from difffusr.pipeline.storage.objects import Storage

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine


@pytest.fixture
def telling(storage: Storage, tmp_path: Path) -> TestClient:
    """The cube with overviews that hold one number each, so that a tile tells which it is made of."""
    shutil.copytree(storage.url, tmp_path / "cube.zarr")
    for level, value in ((1, 1000), (2, 2000)):
        array = zarr.open_array(tmp_path / "cube.zarr" / f"{EPSG}/{level}/reflectance", mode="r+")
        array[...] = value
    return client_of(Storage(str(tmp_path / "cube.zarr")))


def test_tile_is_made_of_the_coarsest_level_that_is_as_fine_as_it(telling):
    # A tile's pixel is 78 271.5 · cos(16°) / 2^zoom metres of ground: 4.6 m at 14, 9.2 at 13, 18.4 at 12, 36.7 at 11.
    for zoom, value in ((13, 1000), (12, 2000), (11, 2000)):
        picture = drawn(telling, "B04", tile_over(LON, LAT, zoom), low=0, high=0.51)
        assert set(picture[picture[..., 3] > 0][:, 0].tolist()) == {value // 20}
    fine = drawn(telling, "B04", tile_over(LON, LAT, 14), low=0, high=0.4)
    assert len(set(fine[fine[..., 3] > 0][:, 0].tolist())) > 20
    assert telling.get("/cube.json").json()["zones"][0]["gsd_m"] == [2.5, 5, 10]


def test_ten_metres_come_of_the_level_of_ten_metres(telling):
    picture = drawn(telling, "B04", tile_over(LON, LAT, 17), low=0, high=0.51, averaged=True)
    assert set(picture[picture[..., 3] > 0][:, 0].tolist()) == {100}


def test_reading_stays_bounded_however_far_away_the_map_is(client, flat):
    for asked, first in ((client, 11), (client_of(flat), 13)):
        said = asked.get("/cube.json").json()
        assert said["zooms"][0] == first
        z, x, y = tile_over(LON, LAT, first)
        assert asked.get(f"/tiles/ndvi/2023-02/{z}/{x}/{y}.png").status_code == 200
        refused = asked.get(f"/tiles/ndvi/2023-02/{z - 1}/{x // 2}/{y // 2}.png")
        assert refused.status_code == 404
        assert "zoom in" in refused.text


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_cube_without_levels_is_said_in_one_line(view, storage, tmp_path):
    shutil.copytree(storage.url, tmp_path / "cube.zarr")
    root = tmp_path / "cube.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    del document["consolidated_metadata"]["metadata"][str(EPSG)]["attributes"]["multiscales"]
    root.write_text(json.dumps(document))
    code, _, error = view(tmp_path / "cube.zarr")
    assert (code, error.count("\n")) == (1, 1)
    assert "cube.zarr: cannot be read ('multiscales')" in error
