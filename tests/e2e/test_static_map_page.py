"""The page that reads a cube by itself, in headless Chromium, from a plain web server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from beside import ROOT
from browser import CHROMIUM, FLAGS, needs_chromium
from continental import continent_config, publish_continent
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_path
from pyproj import Transformer
from random_cubes import random_cube, window_around
from static_server import StaticServer, serving
from two_zones import publish_zones, waves, windows_at

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.readers.static_map.write import write_static_map
from difffusr.pipeline.readers.view.layers import QUALITY, Layer, coloured, layers_of, numbers, rgb
from difffusr.pipeline.storage.objects import Storage

sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: it comes with difffusr[test]")

pytestmark = needs_chromium

EPSG, LON, LAT = 32648, 105.02, 16.04
SETTLED = "html[data-map=settled]"

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
SMALL = {"viewport": {"width": 900, "height": 600}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}

#: What a pixel of the cube takes on the screen where the map is as close as it gets.
CLOSEST = 16

#: Shards as large as a small cube's, so that requests count as they would.
LARGE = Grid(24, 6, 512, 128)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to serve, with two months of 320 × 480 m in `cube.zarr` and its page in `map`."""
    root = tmp_path_factory.mktemp("static map")
    random_cube(Storage(str(root / "cube.zarr")), {EPSG: window_around(EPSG, LON, LAT)})
    page_of(root, "cube.zarr", "map")
    return root


def page_of(root: Path, cube: str, folder: str, cube_url: str | None = None) -> str:
    """Write a cube's page; returns where it looks for the cube."""
    place, cache = Storage(str(root / folder)), user_cache_path("difffusr")
    try:
        return write_static_map(
            Cube(Storage(str(root / cube))), place, cube_url=cube_url, openlayers=None, cache=cache
        )[1]
    except DifffusrError as error:
        if "registry" not in str(error):
            raise
        pytest.skip(f"no OpenLayers: {error}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page, once it has drawn; at the end nothing may have gone wrong in it, nor left this machine."""
    troubles: list[str] = []
    with ExitStack() as contexts:

        def open_page(url: str, device: dict[str, Any] = SMALL, *, troubled: bool = False) -> Any:
            context = contexts.enter_context(browser.new_context(**device))
            page = context.new_page()
            if not troubled:
                page.on("console", lambda said: troubles.append(said.text) if said.type != "log" else None)
                page.on("pageerror", lambda error: troubles.append(str(error)))
            own = ("http://127.0.0.1:", "blob:", "data:")
            page.on("request", lambda asked: None if asked.url.startswith(own) else troubles.append(asked.url))
            page.goto(url)
            page.wait_for_selector(SETTLED, timeout=60_000)
            return page

        yield open_page
    assert [said for said in troubles if "GPU stall" not in said] == []  # of reading pixels back without a GPU


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[StaticServer]:
    with serving(home) as running:
        yield running


def stage(page: Any, path: Path) -> NDArray[Any]:
    """(h, w, 3) of the map without what lies over it; a few lines of longitude and latitude stay."""
    page.wait_for_selector(SETTLED)
    page.evaluate("() => document.querySelectorAll('#tools, #swipe, .side').forEach(one => one.style.opacity = 0)")
    page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    page.locator("#stage").screenshot(path=path)
    return np.array(Image.open(path).convert("RGB")).astype(int)


def centre_of(data: xr.Dataset, row: int, col: int, crs: str = f"EPSG:{EPSG}") -> tuple[float, float]:
    """Longitude and latitude of the middle of a pixel."""
    back = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    return back.transform(float(data.x[col]), float(data.y[row]))


def shown(picture: NDArray[Any], step: int, count: int) -> NDArray[Any]:
    """(2 count + 1, 2 count + 1, 3) colours in the middle of the pixels around the centre, `step` apart."""
    rows, cols = (side // 2 + np.arange(-count, count + 1) * step for side in picture.shape[:2])
    return picture[np.ix_(rows, cols)]


def expected(layer: Layer, values: xr.Dataset, low: float, high: float) -> NDArray[Any]:
    """(h, w, 3) colours of a layer, from stored numbers."""
    if layer.name == "quality":
        attributes = values.quality.attrs
        table = np.zeros((256, 3), int)
        for value, meaning in zip(attributes["flag_values"], attributes["flag_meanings"].split(), strict=True):
            table[value] = rgb([QUALITY[meaning].colour])[0]
        return table[values.quality.values]
    bands = values.reflectance.sel(band=list(dict.fromkeys(layer.bands))).values * np.float32(1e-4)
    return coloured(numbers(layer, bands), low, high, layer.colours).transpose(1, 2, 0).astype(int)


@pytest.mark.parametrize(
    ("name", "low", "high", "step"),
    [("true-colour", 0.0, 0.6, 1), ("B08", 0.1, 0.5, 0), ("agriculture", 0.0, 0.6, 1), ("ndvi", -0.2, 0.9, 1),
     ("ndwi", -0.7, 0.7, 0), ("quality", 0, 0, 1)],
)  # fmt: skip
def test_pixels_are_where_and_what_they_are(opened, home, server, tmp_path, name, low, high, step):
    layer, row, col = layers_of(["reflectance", "quality"])[name], 61, 90
    stored = {n: xr.open_zarr(home / "cube.zarr", group=f"{EPSG}/{n}", mask_and_scale=False) for n in (0, 2)}
    lon, lat = centre_of(stored[0], row, col)
    period = f"2023-0{step + 1}"
    view = f"#map=25/{lat:.9f}/{lon:.9f}&layer={name}&period={period}&low={low}&high={high}"
    own = shown(stage(opened(f"{server.url}/map/{view}&compare=nothing"), tmp_path / "own.png"), CLOSEST, 12)
    truth = stored[0].isel(time=step, y=slice(row - 12, row + 13), x=slice(col - 12, col + 13))
    assert share_alike(own, expected(layer, truth, low, high)) > 0.95  # lines of longitude and latitude lie over some
    # The left of the divider, which stands at the right edge, is the level of 10 m; its pixels are four times as large.
    lon, lat = centre_of(stored[2], row // 4, col // 4)
    view = view.replace(re.search(r"map=[^&]*", view)[0], f"map=25/{lat:.9f}/{lon:.9f}")
    ten = shown(stage(opened(f"{server.url}/map/{view}&compare=10m&at=1"), tmp_path / "ten.png"), 4 * CLOSEST, 3)
    truth = stored[2].isel(time=step, y=slice(row // 4 - 3, row // 4 + 4), x=slice(col // 4 - 3, col // 4 + 4))
    assert share_alike(ten, expected(layer, truth, low, high)) > 0.9


def share_alike(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float((np.abs(one - other).max(axis=-1) <= 3).mean())


def test_first_picture_takes_few_requests(opened, tmp_path_factory, capsys):
    root = tmp_path_factory.mktemp("first picture")
    random_cube(Storage(str(root / "cube.zarr")), {EPSG: window_around(EPSG, LON, LAT, (2, 2), 512)}, (1,), LARGE)
    page_of(root, "cube.zarr", "map")
    with serving(root, delay_s=0.03) as server:
        for device, size in ((DESKTOP, "desktop"), (PHONE, "phone")):
            server.asked.clear()
            server.sent.clear()
            begun = time.monotonic()
            opened(f"{server.url}/map/", device)
            took, requests = time.monotonic() - begun, len(server.asked)
            data = sum("/cube.zarr/" in path for _, path, _ in server.asked)
            with capsys.disabled():
                print(
                    f"\nfirst picture, {size}, at 30 ms a request: {requests} requests, {data} of them of the cube, "
                    f"{server.sent.total() / 1e6:.1f} MB, {took:.2f} s"
                )
            assert requests <= 40


@pytest.fixture(scope="module")
def apart(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StaticServer, StaticServer]]:
    """A server of cubes, and one of another origin with a page that looks there for its cube."""
    root = tmp_path_factory.mktemp("pages")
    with serving(home) as cubes, serving(root) as pages:
        place = Storage(str(root / "map"))
        page_of(home, "cube.zarr", str(root / "map"), f"{cubes.url}/cube.zarr")
        assert place.exists("index.html")
        yield cubes, pages


def s3_rules(origin: str, **more: Any) -> list[dict[str, Any]]:
    """The rules of the documentation, for an origin."""
    rules = json.loads((ROOT / "infra/cors/s3.json").read_text())["CORSRules"]
    return [{**rule, "AllowedOrigins": [origin], **more} for rule in rules]


def trouble(page: Any) -> str:
    return page.locator("#trouble").inner_text() if page.locator("#trouble").is_visible() else ""


def test_a_cube_of_another_origin_needs_the_documented_rules(opened, apart, capsys):
    cubes, pages = apart
    view = f"{pages.url}/map/#map=17/{LAT}/{LON}"
    cubes.cors = s3_rules(pages.url)
    cubes.asked.clear()
    assert trouble(opened(view)) == ""
    methods = {method for method, _, _ in cubes.asked}
    assert {"GET", "HEAD"} <= methods
    assert any(given for _, _, given in cubes.asked)
    with capsys.disabled():
        print(f"\nfrom another origin: {len(cubes.asked)} requests of the cube, methods {', '.join(sorted(methods))}")
    for rules in ([], s3_rules("https://elsewhere.example"), s3_rules(pages.url, AllowedMethods=["PUT"])):
        cubes.cors = rules
        said = trouble(opened(view, troubled=True))
        assert "may not be read from" in said
        assert "(CORS)" in said
        assert said.count("\n") == 0


def test_rules_without_head_are_said_too(opened, apart):
    cubes, pages = apart
    cubes.cors = s3_rules(pages.url, AllowedMethods=["GET"])
    page = opened(f"{pages.url}/map/#map=17/{LAT}/{LON}", troubled=True)
    page.wait_for_selector("#trouble", state="visible")
    assert "(CORS)" in trouble(page)


def test_a_server_out_of_reach_is_said(opened, home, tmp_path):
    page_of(home, "cube.zarr", str(tmp_path / "map"), "http://127.0.0.1:9/cube.zarr")
    with serving(tmp_path) as server:
        assert trouble(opened(f"{server.url}/map/", troubled=True)) == "http://127.0.0.1:9/cube.zarr cannot be reached"


@pytest.mark.parametrize(
    ("document", "status", "said"),
    [
        (None, 404, "holds no cube"),
        (None, 403, "rights"),
        (None, 401, "rights"),
        (None, 416, "answers 416"),
        (b"{", 0, "is damaged: it is not JSON"),
        (b"<html>", 0, "is damaged: it is not JSON"),
        (b"{}", 0, "is not a cube of this kind"),
        (b'{"attributes": {"difffusr:zones": [32648]}}', 0, "is not a cube of this kind"),
        (
            b'{"attributes": {"difffusr:zones": [1]}, "consolidated_metadata": {"metadata": {}}}',
            0,
            "zone 1 lacks",
        ),
    ],
)
def test_what_is_no_cube_is_said_in_a_line(opened, server, home, document, status, said):
    path = "/cube.zarr/zarr.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "broken", {path: status} if status else {})
        patch.setattr(server, "instead", {path: document} if document else {})
        line = trouble(opened(f"{server.url}/map/", troubled=True))
    assert said in line
    assert f"{server.url}/cube.zarr" in line
    assert line.count("\n") == 0


@pytest.mark.parametrize("harm", ["cut", "changed", "refused"])
def test_damaged_pixels_are_said_in_a_line(opened, server, home, harm):
    path = f"/cube.zarr/{EPSG}/0/reflectance/c/1/0/1/1"
    shard = (home / path[1:]).read_bytes()
    instead = {"cut": shard[: len(shard) // 2], "changed": b"\xff" * 5_000 + shard[5_000:], "refused": None}[harm]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "instead", {path: instead} if instead else {})
        patch.setattr(server, "broken", {} if instead else {path: 410})
        page = opened(f"{server.url}/map/#map=18.5/{LAT}/{LON}", troubled=True)
        page.wait_for_selector("#trouble", state="visible")
        assert re.search(r"(is damaged|cannot be read)", trouble(page))
    # With another period the line goes.
    page.click("#earlier")
    page.wait_for_selector("#trouble", state="hidden")


def test_a_server_that_sends_no_parts_will_do(opened, server, tmp_path, home):
    view = f"/map/#map=18/{LAT}/{LON}&compare=nothing"
    whole = stage(opened(server.url + view), tmp_path / "parts.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "parts", False)
        assert (stage(opened(server.url + view), tmp_path / "whole.png") == whole).all()


def test_bands_of_chunks_that_are_there_are_not_asked_for_again(opened, server, tmp_path):
    page = opened(f"{server.url}/map/#map=18/{LAT}/{LON}")
    server.asked.clear()
    before = stage(page, tmp_path / "before.png")
    for layer in ("infrared", "ndvi", "B11"):
        page.select_option("#layer", layer)
        page.wait_for_selector(SETTLED)
        after = stage(page, tmp_path / "after.png")
        assert np.abs(after - before).mean() > 1
        before = after
    assert not [path for _, path, _ in server.asked if "/cube.zarr/" in path]
    # Nor does another range ask for anything.
    page.focus("#low")
    page.keyboard.press("ArrowRight")
    assert np.abs(stage(page, tmp_path / "range.png") - before).mean() > 0.1
    assert not [path for _, path, _ in server.asked if "/cube.zarr/" in path]


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sides of 12° E in `zones.zarr`, the same in one CRS in `europe.zarr`, and their pages."""
    root = tmp_path_factory.mktemp("zones")
    windows = windows_at(12.0, 48.0, (32632, 32633), (2, 4))
    publish_zones(Storage(str(root / "zones.zarr")), windows, dict.fromkeys(windows, waves(12.0, 48.0)))
    publish_continent(continent_config(str(root / "zones.zarr"), str(root / "europe.zarr")))
    for name in ("zones", "europe"):
        page_of(root, f"{name}.zarr", name)
    return root


@pytest.mark.parametrize(("name", "crs"), [("zones", "EPSG:32632"), ("zones", "EPSG:32633"), ("europe", "EPSG:3035")])
def test_ground_is_where_it_is_in_every_zone_and_crs(opened, zones, tmp_path, name, crs):
    with serving(zones) as server:
        data = xr.open_zarr(zones / f"{name}.zarr", group=f"{crs.partition(':')[2]}/0", mask_and_scale=False)
        seen = np.argwhere(data.quality.values[0] > 0)
        # Where this zone alone has data: on its side, far from the border.
        row, col = np.percentile(seen, 25 if crs.endswith("32") else 75, axis=0, method="nearest")
        lon, lat = centre_of(data, row, col, crs)
        page = opened(f"{server.url}/{name}/#map=25/{lat:.9f}/{lon:.9f}&compare=nothing&low=0&high=0.25")
        middle = shown(stage(page, tmp_path / "middle.png"), 2, 1)
        layer = layers_of(["reflectance"])["true-colour"]
        own = data.isel(time=0, y=slice(row, row + 1), x=slice(col, col + 1))
        truth = expected(layer, own, 0, 0.25)[0, 0]
        assert (
            np.abs(np.median(middle.reshape(-1, 3), axis=0) - truth).max() <= 12
        )  # a zone's pixels are turned a little
        assert trouble(page) == ""


def test_a_phone_has_all_in_a_sheet_and_the_divider_by_keys(opened, server):
    page = opened(f"{server.url}/map/", PHONE)
    assert page.locator("#controls").is_hidden()
    page.tap("#toggle")
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, summary, input")].filter(one => one.checkVisibility())
        .filter(one => one.getBoundingClientRect().height < 44).map(one => one.id || one.outerHTML)"""
    )
    assert small == []
    assert page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    page.tap("#toggle")
    page.focus("#swipe")
    for key, now in (("Home", "0"), ("ArrowRight", "2"), ("PageUp", "12"), ("End", "100")):
        page.keyboard.press(key)
        assert page.get_attribute("#swipe", "aria-valuenow") == now
    page.wait_for_function("() => location.hash.endsWith('at=1')")


def test_an_address_is_the_map_again_and_dark_is_dark(opened, server, tmp_path):
    page = opened(f"{server.url}/map/#layer=nonsense&period=1999-01&compare=2023-01", {**SMALL, "color_scheme": "dark"})
    assert page.locator("#layer").input_value() == "true-colour"
    assert page.locator("#left-name").inner_text() == "January 2023"
    assert page.locator("#right-name").inner_text() == "February 2023"
    assert stage(page, tmp_path / "dark.png")[-3, -3].max() < 80
    page.click(".ol-zoom-in")
    page.wait_for_function("() => location.hash.includes('map=')")
    page.wait_for_timeout(500)  # for the zoom to come to its end
    again = opened(page.url, {**SMALL, "color_scheme": "dark"})
    again.wait_for_function("() => location.hash.includes('map=')")
    assert again.url == page.url
    assert "compare=2023-01" in page.url
