"""The page of a cube as files: what it is told, what it may load, where it can be written."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fresh_python import run_python
from mapped_cubes import BORDER, EPSG, WINDOW
from platformdirs import user_cache_path
from pyproj import CRS, Transformer
from random_cubes import random_cube

from difffusr.pipeline.commands import cli
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.lattice import Lattice
from difffusr.pipeline.readers.static_map import libraries
from difffusr.pipeline.readers.static_map.write import _proj4, page_of, settings_of, write_static_map
from difffusr.pipeline.storage.objects import Storage


@pytest.fixture(scope="session")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """Two months of one zone."""
    place = Storage(str(tmp_path_factory.mktemp("static") / "cube.zarr"))
    random_cube(place, {EPSG: WINDOW})
    return place


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with packages as `npm install` unpacks them, with little in them."""
    for package in libraries.PACKAGES:
        for wanted in package.wanted:
            path = tmp_path / "node_modules" / package.name / wanted.replace("*", "chunk")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"// {package.name}\n")
    return tmp_path


@pytest.fixture
def view(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command: its exit code, what it prints, its errors."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["difffusr", "view", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def settings_in(page: bytes) -> dict[str, Any]:
    found = re.search(rb'<script type="application/json" id="settings">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_command_writes_a_page_that_is_whole(view, cube, packages, tmp_path):
    code, out, error = view(cube.url, "--static", tmp_path / "map", "--openlayers", packages)
    assert (code, error) == (0, "")
    assert out.startswith(f"{tmp_path}/map/index.html  reads the cube at ../")
    page = (tmp_path / "map" / "index.html").read_text()
    assert "%" not in re.sub(r"<script type=.*?</script>", "", page, flags=re.DOTALL).replace("100%", "")
    for linked in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert (tmp_path / "map" / linked).is_file(), linked
    for script in (tmp_path / "map" / "page").glob("*.js"):
        for imported in re.findall(r'from "(\./[^"]+)"', script.read_text()):
            assert (script.parent / imported).is_file(), imported
    assert not re.search(r"https?://\w", page)
    assert settings_in(page.encode())["cube"].endswith("/cube.zarr")


def test_the_page_needs_none_of_the_served_map_s_packages(cube, packages, tmp_path):
    words = ["difffusr", "view", cube.url, "--static", f"{tmp_path}/map", "--openlayers", str(packages)]
    code = (
        f"from difffusr.pipeline.commands.cli import main\nsys.argv = {words!r}\ntry: main()\nexcept SystemExit: pass"
    )
    brought = ["fastapi", "uvicorn", "titiler", "rio_tiler", "rioxarray", "torch", "ray", "geopandas"]
    told = run_python(f"import sys\n{code}\nprint([name for name in {brought!r} if name in sys.modules])")
    assert told.endswith("\n[]")
    assert (tmp_path / "map/index.html").is_file()


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("../cube.zarr", "connect-src 'self';"),
        ("https://a.example:1/c.zarr", "connect-src 'self' https://a.example:1;"),
    ],
)
def test_the_page_may_load_from_its_cube_alone(cube, address, allowed):
    page = page_of(settings_of(Cube(cube), address), "")["index.html"].decode()
    policy = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', page)
    assert policy is not None
    assert allowed in policy[1]
    assert "unsafe" not in policy[1]


def test_text_cannot_leave_the_settings():
    told = {"cube": "</script><script>alert(1)</script>", "projections": {}, "layers": ["<!--"]}
    page = page_of(told, "")["index.html"]
    assert settings_in(page) == told
    assert page.count(b"alert(1)") == 1
    assert b"</script><script>alert" not in page


def test_the_page_is_told_where_the_data_are_and_how_large_pixels_are(tmp_path):
    place = Storage(str(tmp_path / "zones.zarr"))
    random_cube(place, BORDER, months=(1,))
    told = settings_of(Cube(place), "../zones.zarr")
    assert told["projections"] == {}
    assert set(told["zones"]) == set(BORDER)
    for epsg, window in BORDER.items():
        left, bottom, right, top = told["zones"][epsg]["extent"]
        whole = Lattice.of_zone(epsg).bounds(window)
        assert np.allclose((left, bottom, right, top), whole, atol=80)  # a hole of 20 pixels, seen at 10 m
        assert told["zones"][epsg]["gsd_m"] == 2.5
    assert {layer["name"] for layer in told["layers"]} >= {"true-colour", "ndvi", "quality", "uncertainty", "B12"}
    assert told["publication"] == Cube(place).attributes["difffusr:publication"]


@pytest.mark.parametrize(
    "crs",
    ["EPSG:3035", "EPSG:2154", "ESRI:54009", "EPSG:3832", "EPSG:4258", "EPSG:31467", "EPSG:32761", "EPSG:3413",
     "+proj=laea +lat_0=48 +lon_0=12 +datum=WGS84"],
)  # fmt: skip
def test_other_crs_are_told_as_proj4_has_them(crs):
    lattice = Lattice.asked_for(crs, None)
    told = _proj4(lattice.number, lattice)
    assert told is not None
    code, definition = told
    assert code == (lattice.code or f"difffusr:{lattice.number}")
    area = CRS(crs).area_of_use
    lon, lat = ((area.west + area.east) / 2, (area.south + area.north) / 2) if area else (12.0, 48.0)
    places = [
        Transformer.from_crs("EPSG:4326", known, always_xy=True).transform(lon + 0.1, lat + 0.1)
        for known in (lattice.known, definition)
    ]
    assert np.allclose(*places, atol=3 if lattice.known.is_projected else 1e-5)


@pytest.mark.parametrize("crs", ["EPSG:32601", "EPSG:32660", "EPSG:32733", "EPSG:4326", "EPSG:3857"])
def test_what_openlayers_knows_needs_no_proj4(crs):
    lattice = Lattice.asked_for(crs, None)
    assert _proj4(lattice.number, lattice) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cube-url", "https://a.example/c.zarr"), "are for --static"),
        (("--openlayers", "."), "are for --static"),
        (("--static", "{cube}/map"), "lies in the cube"),
        (("--static", "{tmp}/map", "--cube-url", "ftp://a.example"), "--cube-url: found"),
        (("--static", "{tmp}/map", "--openlayers", "{tmp}"), "has no ol-"),
    ],
)
def test_wrong_words_are_said_in_a_line(view, cube, tmp_path, words, said):
    code, _, error = view(cube.url, *(word.format(cube=cube.url, tmp=tmp_path) for word in words))
    assert (code, error.count("\n")) == (2, 1)
    assert said in error
    assert not (tmp_path / "map").exists()


def test_other_tarballs_than_were_published_are_refused(view, cube, tmp_path):
    with tarfile.open(tmp_path / libraries.OPENLAYERS.file_name, "w:gz"):
        pass
    code, _, error = view(cube.url, "--static", tmp_path / "map", "--openlayers", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert "is not the tarball of ol" in error


def test_an_icechunk_repository_is_refused_in_a_line(view, tmp_path):
    pytest.importorskip("icechunk")
    url = f"icechunk+{tmp_path}/cube"
    random_cube(Storage(url), {EPSG: WINDOW}, months=(1,))
    code, _, error = view(url, "--static", tmp_path / "map")
    assert (code, error.count("\n")) == (2, 1)
    assert "a page cannot read an Icechunk repository" in error


def test_in_a_bucket_every_file_has_its_type(cube, packages, s3_endpoint, s3_options):
    import boto3

    client = boto3.client(
        "s3", endpoint_url=s3_endpoint, aws_access_key_id="me", aws_secret_access_key="x", region_name="us-east-1"
    )
    client.create_bucket(Bucket="pages")
    page, address = write_static_map(
        Cube(cube),
        Storage("s3://pages/map", s3_options),
        cube_url="https://a.example/cube.zarr",
        openlayers=packages,
        cache=packages / "cache",
    )
    assert (page, address) == ("s3://pages/map/index.html", "https://a.example/cube.zarr")
    types = {
        held["Key"]: client.head_object(Bucket="pages", Key=held["Key"])["ContentType"].partition(";")[0]
        for held in client.list_objects_v2(Bucket="pages")["Contents"]
    }
    assert types["map/index.html"] == "text/html"
    assert {types[name] for name in types if name.endswith(".js")} == {"text/javascript"}
    assert types["map/page/map.css"] == "text/css"
    assert types["map/page/icon.svg"] == "image/svg+xml"


def test_the_libraries_are_those_that_were_published():
    """Where they are kept already: zarrita becomes one script without modules, proj4 comes where it is needed."""
    cache = user_cache_path("difffusr")
    if not all(package.is_in(cache / package.file_name.removesuffix(".tgz")) for package in libraries.PACKAGES):
        pytest.skip("the libraries are not here yet")
    files = libraries.library_files(None, cache, with_proj4=True)
    assert set(files) == {"ol.js", "ol.css", "zarrita.js", "blosc.js", "proj4.js", "LICENSES.txt"}
    assert "proj4.js" not in libraries.library_files(None, cache, with_proj4=False)
    for name in ("zarrita.js", "blosc.js"):
        assert not re.search(rb"^(import|export)\b", files[name], re.MULTILINE)
    assert files["LICENSES.txt"].count(b"Permission") >= 3
