"""The server answers mistakes in one line, and serves nothing but its own files to nobody else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from mapped_cubes import EPSG, LAT, LON, client_of, tile_over
from starlette.testclient import TestClient

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.readers.view import maplibre
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.server import map_app
from difffusr.pipeline.storage.objects import Storage

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("/tiles/rainbow/2023-01/15/1/1.png", 404, "there is no layer 'rainbow'; there are true-colour, infrared"),
        ("/tiles/ndvi/2031-01/15/1/1.png", 404, "there is no period '2031-01'; there are 2023-01, 2023-02"),
        ("/tiles/ndvi/2023-01/15/99999999/1.png", 404, "there is no tile 99999999, 1 at zoom 15"),
        ("/tiles/ndvi/2023-01/15/-1/1.png", 404, "there is no tile -1, 1 at zoom 15"),
        ("/tiles/ndvi/2023-01/99/1/1.png", 404, "there is no zoom 99; there are 0 to 22"),
        ("/tiles/ndvi/2023-01/a/1/1.png", 422, "z: Input should be a valid integer"),
        ("/tiles/ndvi/2023-01/15/1/1.png?low=0.5&high=0.5", 422, "found 0.5 and 0.5, expected low below high"),
        ("/tiles/ndvi/2023-01/15/1/1.png?low=nan", 422, "found nan and 0.9, expected low below high"),
        ("/tiles/ndvi/2023-01/15/1/1.png?averaged=much", 422, "averaged: Input should be a valid boolean"),
        ("/spectrum?lon=0&lat=0", 404, "the cube does not reach 0.00000, 0.00000"),
        ("/spectrum?lon=0", 422, "lat: Field required"),
        ("/spectrum?lon=0&lat=91", 422, "lat: Input should be less than or equal to 90"),
        ("/spectrum?lon=inf&lat=0", 422, "lon: Input should be less than or equal to 540"),
        ("/range/ndvi/2023-01?west=5&south=5&east=4&north=6", 404, "the view has no extent"),
        ("/range/ndvi/2023-01?west=4&south=5&east=4.001&north=5.001", 404, "the cube has no data there"),
        ("/range/ndvi/2023-01?west=-180&south=-85&east=180&north=85", 404, "zoom in"),
        ("/range/ndvi/2023-01?west=nan&south=0&east=1&north=1", 422, "expected degrees"),
        ("/page/../server.py", 404, ""),
        ("/page/%2e%2e%2fserver.py", 404, ""),
        ("/maplibre/nothing.js", 404, "there is no nothing.js"),
    ],
)
def test_mistakes_are_answered_in_one_line(client, path, code, said):
    answer = client.get(path)
    assert answer.status_code == code
    assert said in answer.text
    assert len(answer.text.strip().splitlines()) == 1


def test_damaged_shard_is_said_in_one_line(storage, tmp_path):
    shutil.copytree(storage.url, tmp_path / "cube.zarr")
    client = client_of(Storage(str(tmp_path / "cube.zarr")))
    for shard in (tmp_path / "cube.zarr" / str(EPSG) / "0" / "reflectance" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(b"not a shard at all" * 50)
    z, x, y = tile_over(LON, LAT, 16)
    for path in (f"/tiles/ndvi/2023-01/{z}/{x}/{y}.png", f"/spectrum?lon={LON}&lat={LAT}"):
        answer = client.get(path)
        assert answer.status_code == 502
        assert len(answer.text.strip().splitlines()) == 1
        assert "cube.zarr: cannot be read" in answer.text


def test_page_may_load_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith(
        "default-src 'none'; script-src 'self'; style-src 'self';"
    )
    assert "unsafe" not in page.headers["content-security-policy"]
    folder = Path(maplibre.__file__).with_name("page")
    names = sorted(path.name for path in folder.iterdir())
    linked = re.findall(r'href="page/(.*?\.css)"', page.text)
    assert {"index.html", "view.js", *linked} <= set(names)
    assert sorted(linked) == [name for name in names if name.endswith(".css")]
    for name in names:
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", ""), name
        assert "style=" not in answer.text, name
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_only_who_calls_this_machine_by_its_own_name_is_answered(storage):
    app = map_app(map_cube(Cube(storage)), {}, ["localhost", "127.0.0.1"])
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    assert client.get("/cube.json").status_code == 200
    assert client.get("/cube.json", headers={"host": "evil.example:8000"}).status_code == 400
