"""The map of a cube: what is drawn and said is what the cube holds, where it lies."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer
from random_cubes import FLAT, random_cube, window_around
from starlette.testclient import TestClient

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.commands import cli
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.readers.view import maplibre
from difffusr.pipeline.readers.view.layers import ramp, rgb
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.server import map_app
from difffusr.pipeline.storage.objects import Storage

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine

EPSG = 32648
LON, LAT = 105.02, 16.04
WINDOW = window_around(EPSG, LON, LAT)
SQUARE = window_around(EPSG, LON, LAT, (2, 2))


def client_of(storage: Storage, files: dict[str, Path] | None = None) -> TestClient:
    """Whoever asks the map of a cube."""
    return TestClient(map_app(map_cube(Cube(storage)), files or {}))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """Two months of one zone, 128 × 192 pixels."""
    place = Storage(str(tmp_path_factory.mktemp("view") / "cube.zarr"))
    random_cube(place, {EPSG: WINDOW})
    return place


@pytest.fixture(scope="module")
def client(storage: Storage) -> TestClient:
    return client_of(storage)


@pytest.fixture(scope="module")
def stored(storage: Storage) -> xr.Dataset:
    """The second month as xarray reads it, DN."""
    return xr.open_zarr(storage.url, group=f"{EPSG}/0", mask_and_scale=False, chunks=None).isel(time=1).load()


def tile_over(lon: float, lat: float, zoom: int) -> tuple[int, int, int]:
    """Zoom, column and row of the XYZ tile over a place."""
    y = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2
    return zoom, int((lon + 180) / 360 * 2**zoom), int(y * 2**zoom)


def drawn(
    client: TestClient, layer: str, zxy: tuple[int, int, int], period: str = "2023-02", **query: Any
) -> NDArray[Any]:
    """(512, 512, 4) of a tile."""
    answer = client.get(f"/tiles/{layer}/{period}/{'/'.join(map(str, zxy))}.png", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.array(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def places(
    zxy: tuple[int, int, int], size: int = 1, epsg: int = EPSG, window: Any = WINDOW
) -> tuple[NDArray[Any], ...]:
    """Of every pixel of a tile the cube's row and column in pixels of 2.5 m times `size`, and whether it lies well
    inside of that pixel: where it lies near a border, either neighbour may be drawn."""
    zoom, col, row = zxy
    side = 40_075_016.685578488 / 2**zoom
    x = -20_037_508.342789244 + col * side + (np.arange(512) + 0.5) * side / 512
    y = 20_037_508.342789244 - row * side - (np.arange(512) + 0.5) * side / 512
    east, north = Transformer.from_crs("EPSG:3857", f"EPSG:{epsg}", always_xy=True).transform(*np.meshgrid(x, y))
    left, _, _, top = window.bounds_m(epsg)
    r, c = (top - north) / (2.5 * size), (east - left) / (2.5 * size)
    inside = (abs(r % 1 - 0.5) < 0.3) & (abs(c % 1 - 0.5) < 0.3)
    reaches = (r >= 0) & (c >= 0) & (r < window.height / size) & (c < window.width / size)
    return (
        np.clip(r, 0, window.height // size - 1).astype(int),
        np.clip(c, 0, window.width // size - 1).astype(int),
        inside & reaches,
    )


def test_tile_shows_the_pixels_that_lie_there(client, stored):
    zxy = tile_over(LON, LAT, 17)
    picture = drawn(client, "true-colour", zxy, low=0.1, high=0.5)
    row, col, sure = places(zxy)
    assert sure.sum() > 40_000
    dn = stored.reflectance.sel(band=["B04", "B03", "B02"]).values[:, row, col]
    expected = np.clip((dn * 1e-4 - 0.1) / 0.4, 0, 1) * 255
    seen = dn.min(axis=0) > 0
    np.testing.assert_array_equal(picture[sure][:, 3] > 0, seen[sure])
    difference = picture[..., :3].transpose(2, 0, 1) - expected
    assert np.abs(difference[:, sure & seen]).max() <= 0.51


def test_outside_of_the_cube_and_where_nothing_was_seen_is_transparent(client, stored):
    zxy = tile_over(LON, LAT, 15)
    picture = drawn(client, "true-colour", zxy)
    assert (picture[..., 3] == 0).any()
    assert (picture[..., 3] == 255).any()
    assert client.get("/tiles/true-colour/2023-02/15/3/5.png").status_code == 204


@pytest.mark.parametrize("overviews", [True, False])
def test_ten_metres_are_means_of_sixteen_pixels(storage, flat, overviews):
    place, window = (storage, WINDOW) if overviews else (flat, SQUARE)
    client, zxy = client_of(place), tile_over(LON, LAT, 17)
    picture = drawn(client, "B8A", zxy, low=0, high=0.6, averaged=True)
    row, col, sure = places(zxy, 4, window=window)
    dn = xr.open_zarr(place.url, group=f"{EPSG}/0", mask_and_scale=False).reflectance.sel(band="B8A")[-1].values
    blocks = np.where(dn == 0, np.nan, dn).reshape(window.height // 4, 4, window.width // 4, 4)
    mean = _mean(blocks)
    expected = (np.nan_to_num(mean) * 1e-4 / 0.6 * 255)[row, col]
    seen = sure & np.isfinite(mean)[row, col]
    assert np.abs(picture[..., 0] - expected)[seen].max() <= 0.55
    own = drawn(client, "B8A", zxy, low=0, high=0.6)
    assert own[..., 0][seen].std() > 2 * picture[..., 0][seen].std()


def _mean(blocks: NDArray[Any]) -> NDArray[Any]:
    count = np.isfinite(blocks).sum(axis=(1, 3))
    return np.divide(np.nansum(blocks, axis=(1, 3)), count, out=np.full(count.shape, np.nan), where=count > 0)


def test_index_is_coloured_by_its_ramp(client, stored):
    zxy = tile_over(LON, LAT, 17)
    picture = drawn(client, "ndvi", zxy, low=-0.5, high=0.5)
    row, col, sure = places(zxy)
    infrared, red = (stored.reflectance.sel(band=band).values.astype(float)[row, col] for band in ("B08", "B04"))
    seen = sure & (red > 0)
    ndvi = (infrared - red)[seen] / (infrared + red)[seen]
    described = next(one for one in client.get("/cube.json").json()["layers"] if one["name"] == "ndvi")
    expected = ramp(described["colours"])[np.round(np.clip(ndvi + 0.5, 0, 1) * 255).astype(int)]
    assert np.abs(picture[seen][:, :3].astype(int) - expected).max() <= 3  # a step of the ramp beside, by rounding
    assert described["formula"] == "(B08 − B04) / (B08 + B04)"


@pytest.mark.parametrize("layer", ["quality", "source"])
def test_labels_have_the_colours_of_their_legend(client, stored, layer):
    zxy = tile_over(LON, LAT, 17)
    picture = drawn(client, layer, zxy)
    row, col, sure = places(zxy)
    value = stored[layer].values[row, col]
    described = next(one for one in client.get("/cube.json").json()["layers"] if one["name"] == layer)
    legend = {label["value"]: rgb([label["colour"]])[0] for label in described["labels"]}
    numbers = {"quality": {1, 2, 3}, "source": {3, 4}}[layer]
    assert numbers <= set(np.unique(value[sure]).tolist())
    for number in numbers:
        assert (picture[sure & (value == number)][:, :3] == legend[number]).all()
    assert (picture[sure & (value == 0)][:, 3] == 0).all()
    if layer == "source":
        assert [label["name"] for label in described["labels"]] == ["scene-1-1", "scene-1-2", "scene-2-1", "scene-2-2"]
        assert described["labels"][2]["day"] == "2023-02-01"


def test_every_layer_can_be_drawn_and_every_period_is_another(client):
    said = client.get("/cube.json").json()
    assert [period["label"] for period in said["periods"]] == ["2023-01", "2023-02"]
    zxy = tile_over(LON, LAT, said["zooms"][0])
    pictures = {layer["name"]: drawn(client, layer["name"], zxy).tobytes() for layer in said["layers"]}
    assert len(pictures) == len(set(pictures.values())) == 27
    assert drawn(client, "true-colour", zxy, "2023-01").tobytes() != pictures["true-colour"]


# ---------------------------------------------------------------------------------------------------------------------
# Levels and zones
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def telling(storage: Storage, tmp_path: Path) -> TestClient:
    """The cube with overviews that hold one number each, so that a tile tells which it is made of."""
    shutil.copytree(storage.url, tmp_path / "cube.zarr")
    for level, value in ((1, 1000), (2, 2000)):
        array = zarr.open_array(tmp_path / "cube.zarr" / f"{EPSG}/{level}/reflectance", mode="r+")
        array[...] = value
    return client_of(Storage(str(tmp_path / "cube.zarr")))


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A month of 128 × 128 pixels without overviews."""
    place = Storage(str(tmp_path_factory.mktemp("flat") / "cube.zarr"))
    random_cube(place, {EPSG: SQUARE}, months=(2,), grid=FLAT)
    return place


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


#: On both sides of 102° E, where two zones meet: each reaches over the border.
BORDER = {32647: window_around(32647, 101.999, LAT, (2, 4)), 32648: window_around(32648, 102.001, LAT, (2, 4))}


@pytest.fixture(scope="module")
def two_zones(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """One month of both zones."""
    place = Storage(str(tmp_path_factory.mktemp("zones") / "cube.zarr"))
    random_cube(place, BORDER, months=(1,))
    return place


def test_zones_meet_in_one_map(two_zones):
    client = client_of(two_zones)
    zxy = tile_over(102.0, LAT, 15)
    picture = drawn(client, "B05", zxy, "2023-01", low=0, high=0.6)
    shown, found = picture[..., 0].astype(float), {}
    for epsg, window in BORDER.items():
        row, col, sure = places(zxy, epsg=epsg, window=window)
        dn = xr.open_zarr(two_zones.url, group=f"{epsg}/0", mask_and_scale=False).reflectance.sel(band="B05")[0].values
        own = np.abs(shown - dn[row, col] * 1e-4 / 0.6 * 255) <= 0.51
        found[epsg] = sure & (dn[row, col] > 0), own
    (in_47, own_47), (in_48, own_48) = found.values()
    assert (own_47 | own_48)[in_47 & in_48].all()
    for here, own, there in ((in_47, own_47, in_48), (in_48, own_48, in_47)):
        alone = here & ~_reached(there)
        assert alone.sum() > 500
        assert own[alone].all()


def _reached(sure: NDArray[Any]) -> NDArray[Any]:
    """The box of what a zone reaches of a tile, with a margin."""
    rows, cols = np.flatnonzero(sure.any(axis=1)), np.flatnonzero(sure.any(axis=0))
    box = np.zeros_like(sure)
    box[max(rows[0] - 8, 0) : rows[-1] + 8, max(cols[0] - 8, 0) : cols[-1] + 8] = True
    return box


def test_place_belongs_to_the_zone_of_its_territory(two_zones):
    client = client_of(two_zones)
    for lon, epsg in ((101.9995, 32647), (102.0005, 32648)):
        assert client.get("/spectrum", params={"lon": lon, "lat": LAT}).json()["epsg"] == epsg
    assert [zone["name"] for zone in client.get("/cube.json").json()["zones"]] == ["47N", "48N"]


# ---------------------------------------------------------------------------------------------------------------------
# Numbers
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "object store", "icechunk"])
def anywhere(request: pytest.FixtureRequest, storage: Storage, tmp_path: Path) -> Storage:
    """The same cube wherever cubes may be."""
    if request.param == "folder":
        return storage
    if request.param == "icechunk":
        place = Storage(f"icechunk+{tmp_path}/cube")
    else:
        place = Storage(f"s3://{request.getfixturevalue('bucket')}/cube.zarr", request.getfixturevalue("s3_options"))
    random_cube(place, {EPSG: WINDOW})
    return place


def test_spectrum_is_what_xarray_reads_there(anywhere, storage):
    said = client_of(anywhere).get("/spectrum", params={"lon": LON, "lat": LAT}).json()
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{EPSG}", always_xy=True).transform(LON, LAT)
    here = xr.open_zarr(storage.url, group=f"{EPSG}/0").sel(x=x, y=y, method="nearest")
    assert (said["epsg"], said["easting"], said["northing"]) == (EPSG, float(here.x), float(here.y))
    for step, (label, period) in enumerate(zip(("2023-01", "2023-02"), said["periods"], strict=True)):
        now = here.isel(time=step)
        assert period["label"] == label
        np.testing.assert_allclose(period["reflectance"], now.reflectance, atol=1e-6)
        red, infrared = (float(now.reflectance.sel(band=band)) for band in ("B04", "B08"))
        assert period["indices"]["ndvi"] == pytest.approx((infrared - red) / (infrared + red), abs=1e-6)
        flag = int(now.quality)
        assert period["quality"] == {"value": flag, "meaning": {1: "clear", 2: "filled", 3: "cloudy"}[flag]}
        assert period["scene"]["number"] == int(now.source)
        assert period["scene"]["id"] == f"scene-{step + 1}-{int(now.source) - 2 * step}"
    block = xr.open_zarr(storage.url, group=f"{EPSG}/0").reflectance.isel(time=0).coarsen(x=4, y=4).mean()
    np.testing.assert_allclose(said["periods"][0]["averaged"], block.sel(x=x, y=y, method="nearest"), atol=1e-6)
    ring = np.array(said["outline"])
    assert ring[:, 0].min() < LON < ring[:, 0].max()
    assert ring[:, 1].min() < LAT < ring[:, 1].max()


def test_where_nothing_was_seen_nothing_is_said(client):
    left, _, _, top = WINDOW.bounds_m(EPSG)
    back = Transformer.from_crs(f"EPSG:{EPSG}", "EPSG:4326", always_xy=True)
    lon, lat = back.transform(left + 5, top - 5)
    now = client.get("/spectrum", params={"lon": lon, "lat": lat}).json()["periods"][0]
    assert now["reflectance"] == [None] * len(BANDS)
    assert (now["quality"]["meaning"], now["scene"], now["indices"]["ndvi"]) == ("no_data", None, None)
    # The hole ends after 20 pixels, in the middle of no block of 4: all that is seen counts for the mean.
    assert now["averaged"] == [None] * len(BANDS)


def test_range_holds_what_the_view_shows_but_for_its_extremes(client, stored):
    west, south, east, north = client.get("/cube.json").json()["zones"][0]["extent"]
    answer = client.get(
        "/range/B11/2023-02", params={"west": west, "south": south, "east": east, "north": north}
    ).json()
    dn = stored.reflectance.sel(band="B11").values
    low, high = np.percentile(dn[dn > 0] * 1e-4, (2, 98))
    assert answer["low"] == pytest.approx(low, abs=0.01)
    assert answer["high"] == pytest.approx(high, abs=0.01)


# ---------------------------------------------------------------------------------------------------------------------
# What goes wrong
# ---------------------------------------------------------------------------------------------------------------------


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


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_cube_without_levels_is_said_in_one_line(view, storage, tmp_path):
    shutil.copytree(storage.url, tmp_path / "cube.zarr")
    del zarr.open_group(tmp_path / "cube.zarr" / str(EPSG), mode="r+").attrs["multiscales"]
    code, _, error = view(tmp_path / "cube.zarr")
    assert (code, error.count("\n")) == (1, 1)
    assert "cube.zarr: cannot be read ('multiscales')" in error


@pytest.fixture
def view(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command, where it does not come to serving: its exit code, what it prints, its errors."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["difffusr", "view", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_what_is_no_cube_is_said(view, tmp_path):
    code, _, error = view(tmp_path / "nothing.zarr")
    assert (code, error.count("\n")) == (1, 1)
    assert "nothing.zarr: holds no cube" in error


def test_port_that_is_taken_is_said(view, storage):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        code, _, error = view(storage.url, "--port", other.getsockname()[1])
    assert (code, error.count("\n")) == (2, 1)
    assert "cannot be listened on (Address already in use); choose another --port" in error


def test_address_that_is_not_this_machine_s_is_said(view, storage):
    code, _, error = view(storage.url, "--host", "no-such-host.invalid")
    assert (code, error.count("\n")) == (2, 1)
    assert "no-such-host.invalid, port 0: cannot be listened on" in error


def test_missing_packages_are_named(view, storage, monkeypatch):
    monkeypatch.delitem(sys.modules, "difffusr.pipeline.readers.view.serve", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, error = view(storage.url)
    assert (code, error.count("\n")) == (2, 1)
    assert "view: needs the package uvicorn; pip install 'difffusr[view]'" in error


# ---------------------------------------------------------------------------------------------------------------------
# The page and what it is made of
# ---------------------------------------------------------------------------------------------------------------------


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


def package(folder: Path) -> bytes:
    """A tarball as npm packs it, with the files that the page needs, and one beside that would leave the folder."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name in (*maplibre.FILES.values(), "../../escaped"):
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    (folder / "maplibre-gl.tgz").write_bytes(data.getvalue())
    return data.getvalue()


def test_maplibre_is_fetched_once_and_kept(tmp_path, monkeypatch):
    tarball = package(tmp_path)
    monkeypatch.setattr(maplibre, "INTEGRITY", "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode())
    asked: list[str] = []

    def fetch(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(tarball)

    monkeypatch.setattr("urllib.request.urlopen", fetch)
    for _ in range(2):
        files = maplibre.maplibre_files(None, tmp_path / "cache")
        assert {name: path.read_text() for name, path in files.items()} == maplibre.FILES
    assert asked == [f"https://registry.npmjs.org/maplibre-gl/-/maplibre-gl-{maplibre.VERSION}.tgz"]
    assert not list(tmp_path.rglob("escaped"))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"maplibre-gl-{maplibre.VERSION}"]


def test_other_bytes_than_were_published_are_refused(view, storage, tmp_path, monkeypatch):
    tarball = package(tmp_path)
    code, _, error = view(storage.url, "--maplibre", tmp_path / "maplibre-gl.tgz")
    assert (code, error.count("\n")) == (2, 1)
    assert "is not the tarball of maplibre-gl" in error
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(tarball))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, _, error = view(storage.url, "--no-browser")
    assert (code, error.count("\n")) == (1, 1)
    assert "the downloaded bytes are not those published" in error
    assert not list((tmp_path / "cache").rglob("*.mjs"))


def test_registry_out_of_reach_is_said_with_what_to_do(view, storage, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(maplibre, "TARBALL", "http://127.0.0.1:9/maplibre-gl.tgz")
    code, _, error = view(storage.url)
    assert (code, error.count("\n")) == (1, 1)
    assert "cannot be fetched" in error
    assert "--maplibre" in error


@pytest.mark.parametrize("given", ["nowhere.tgz", "."])
def test_what_is_no_maplibre_is_said(view, storage, tmp_path, given):
    code, _, error = view(storage.url, "--maplibre", tmp_path / given)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: --maplibre: ")


@pytest.mark.parametrize("order", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_command_says_where_and_ends_when_told_to(storage, tmp_path, order):
    for name in maplibre.FILES:
        (tmp_path / name).write_text("")
    start = "from difffusr.pipeline.commands.cli import main; main()"
    words = [sys.executable, "-c", start, "view", storage.url, "--no-browser", "--maplibre", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        line = command.stdout.readline()
        assert line.startswith("http://127.0.0.1:")
        with socket.create_connection(("127.0.0.1", int(line.split("/")[2].split(":")[1]))):
            pass
        command.send_signal(order)
        out, err = command.communicate(timeout=30)
    assert (command.returncode, out, err) == (0, "", "")
