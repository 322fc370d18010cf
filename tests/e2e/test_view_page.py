"""The page of the map in a real browser: headless Chromium, desktop and phone."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import uvicorn
import xarray as xr
from browser import CHROMIUM, needs_chromium
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_path
from pyproj import Transformer
from random_cubes import random_cube, window_around

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.maplibre import maplibre_files
from difffusr.pipeline.readers.view.server import map_app
from difffusr.pipeline.storage.objects import Storage

sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: it comes with difffusr[test]")

pytestmark = needs_chromium

EPSG, LON, LAT = 32648, 105.02, 16.04
SETTLED = "html[data-map=settled]"

#: WebGL without a GPU, and nothing of Chromium's own on the network.
FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]  # fmt: skip

DESKTOP = {"viewport": {"width": 1440, "height": 900}}
SMALL = {"viewport": {"width": 900, "height": 600}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """Two months of 320 × 480 m."""
    place = Storage(str(tmp_path_factory.mktemp("page") / "cube.zarr"))
    random_cube(place, {EPSG: window_around(EPSG, LON, LAT)})
    return place


@pytest.fixture(scope="module")
def url(cube: Storage) -> Iterator[str]:
    """Where the map is served."""
    try:
        files = maplibre_files(None, user_cache_path("difffusr"))
    except DifffusrError as error:
        pytest.skip(f"no MapLibre GL JS: {error}")
    server = uvicorn.Server(uvicorn.Config(map_app(map_cube(Cube(cube)), files), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """Opens the page, once it has drawn; at the end nothing may have gone wrong in it, nor left this machine."""
    troubles: list[str] = []
    contexts = []

    def open_page(device: dict[str, Any], hash_: str = "") -> Any:
        context = browser.new_context(**device)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((url, "blob:", "data:")) else troubles.append(asked.url),
        )
        page.goto(url + hash_)
        page.wait_for_selector(SETTLED, timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [said for said in troubles if "GPU stall" not in said] == []  # of reading pixels back without a GPU


def picture(page: Any) -> NDArray[Any]:
    """(h, w, 3) of the stage without what lies over it."""
    page.wait_for_selector(SETTLED)
    over = "#degrees, #swipe, .side, #busy, .maplibregl-control-container"
    show = "(over, how) => document.querySelectorAll(over).forEach(one => one.style.opacity = how)"
    page.evaluate(f"over => ({show})(over, '0')", over)
    page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    taken = page.locator("#stage").screenshot()
    page.evaluate(f"over => ({show})(over, '')", over)
    return np.array(Image.open(io.BytesIO(taken)).convert("RGB")).astype(int)


def picture_other_than(page: Any, before: NDArray[Any]) -> NDArray[Any]:
    """The stage once it shows something else; after 20 s as it is. What is typed or dragged takes effect after a pause,
    until which the map is still settled."""
    patience = time.monotonic() + 20
    while np.abs((now := picture(page)) - before).mean() <= 1 and time.monotonic() < patience:
        page.wait_for_timeout(100)
    return now


def stored(cube: Storage) -> xr.Dataset:
    return xr.open_zarr(cube.url, group=f"{EPSG}/0").load()


def at(data: xr.Dataset, lon: float, lat: float) -> xr.Dataset:
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{EPSG}", always_xy=True).transform(lon, lat)
    return data.sel(x=x, y=y, method="nearest")


def middle_of_pixel(data: xr.Dataset, lon: float, lat: float) -> tuple[float, float]:
    here = at(data, lon, lat)
    back = Transformer.from_crs(f"EPSG:{EPSG}", "EPSG:4326", always_xy=True)
    return back.transform(float(here.x), float(here.y))


def table(page: Any) -> dict[str, float]:
    """Reflectance by band as the page lists it."""
    rows = page.locator("#values tbody tr").all()
    return {row.locator("th").inner_text(): float(row.locator("td").nth(1).inner_text()) for row in rows}


def test_pixels_are_where_and_what_they_are(opened, cube):
    data = stored(cube)
    lon, lat = middle_of_pixel(data, LON, LAT)
    page = opened(SMALL, f"#map=19/{lat:.8f}/{lon:.8f}&compare=nothing&low=0&high=0.6")
    drawn = picture(page)
    middle = drawn[drawn.shape[0] // 2 - 2 : drawn.shape[0] // 2 + 2, drawn.shape[1] // 2 - 2 : drawn.shape[1] // 2 + 2]
    own = at(data, lon, lat).isel(time=1).reflectance.sel(band=["B04", "B03", "B02"]).values
    assert np.abs(middle - own / 0.6 * 255).max() <= 1
    # Another layer, another period, another range: other pixels.
    page.select_option("#layer", "ndvi")
    index = picture_other_than(page, drawn)
    page.click("#earlier")
    before = picture_other_than(page, index)
    assert page.locator("#period-name").inner_text() == "January 2023"
    page.focus("#low")
    page.keyboard.press("ArrowRight")
    assert page.locator("#low-said").inner_text() == "−0.19"
    pictures = [drawn, index, before, picture_other_than(page, before)]
    for one, other in pairwise(pictures):
        assert np.abs(one - other).mean() > 1


def test_divider_moves_by_keys_and_by_dragging_and_parts_the_sides(opened, cube):
    page = opened(DESKTOP, f"#map=18.5/{LAT}/{LON}&layer=B08")
    assert page.locator("#left-name").inner_text() == "Averaged to 10 m"
    whole = picture(page)
    middle = whole.shape[1] // 2
    page.focus("#swipe")
    page.keyboard.press("End")
    ten = picture(page)
    page.keyboard.press("Home")
    own = picture(page)
    assert (whole[:, : middle - 5] == ten[:, : middle - 5]).all()
    assert (whole[:, middle + 5 :] == own[:, middle + 5 :]).all()
    assert own[:, :].std() > 1.5 * ten[:, :].std()
    for key, now in (("ArrowRight", "2"), ("PageUp", "12"), ("ArrowLeft", "10")):
        page.keyboard.press(key)
        assert page.get_attribute("#swipe", "aria-valuenow") == now
    handle = page.locator("#swipe span").bounding_box()
    page.mouse.move(handle["x"] + 22, handle["y"] + 22)
    page.mouse.down()
    page.mouse.move(900, 300, steps=3)
    page.mouse.up()
    stage = page.locator("#stage").bounding_box()
    assert int(page.get_attribute("#swipe", "aria-valuenow")) == round((900 - stage["x"]) / stage["width"] * 100)
    assert page.locator("#spectrum").is_hidden()


def test_spectrum_is_what_xarray_reads(opened, cube):
    data = stored(cube)
    lon, lat = middle_of_pixel(data, LON, LAT)
    page = opened(DESKTOP, f"#map=18/{lat:.8f}/{lon:.8f}&compare=nothing&layer=ndvi")
    stage = page.locator("#stage").bounding_box()
    page.mouse.click(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    page.wait_for_selector("#spectrum", state="visible")
    own = at(data, lon, lat)
    expected = dict(zip(BANDS, own.isel(time=1).reflectance.values.round(4).tolist(), strict=True))
    assert table(page) == pytest.approx(expected, abs=1e-9)
    assert page.locator("#chart circle").count() == 2 * 12
    assert page.locator("#series-chart circle").count() == 2
    assert page.locator("#pixel dd").nth(1).inner_text().startswith("scene-2-")
    # The address leads there again.
    page.wait_for_url("**pin=*")
    shared = opened(DESKTOP, page.url[page.url.index("#") :])
    shared.wait_for_selector("#spectrum", state="visible")
    assert table(shared) == table(page)
    # By keys alone: close it, go to the map, open it in the middle.
    page.keyboard.press("Escape")
    assert page.locator("#spectrum").is_hidden()
    page.focus("#after canvas")
    page.keyboard.press("Enter")
    page.wait_for_selector("#spectrum", state="visible")
    assert table(page) == pytest.approx(expected, abs=1e-9)
    assert page.locator("#said").inner_text().startswith("Spectrum at 16.0")


def test_phone_shows_everything_in_a_sheet(opened, cube):
    page = opened(PHONE, f"#map=17/{LAT}/{LON}&layer=quality&compare=nothing")
    assert page.locator("#controls").is_hidden()
    page.tap("#toggle")
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, summary, input")].filter(one => one.checkVisibility())
        .filter(one => one.getBoundingClientRect().height < 44).map(one => one.id || one.outerHTML)"""
    )
    assert small == []
    assert widths(page) == [390, 390]
    sheet = page.locator("#panel").bounding_box()
    assert sheet["y"] > 200
    page.tap("#toggle")
    page.touchscreen.tap(195, 300)
    page.wait_for_selector("#spectrum", state="visible")
    page.set_viewport_size({"width": 360, "height": 740})
    assert widths(page) == [360, 360]
    assert len(table(page)) == 12
    page.tap("#close")
    assert page.locator("#spectrum").is_hidden()
    page.tap("#toggle")
    assert page.locator("#layer").is_visible()
    assert widths(page) == [360, 360]


def widths(page: Any) -> list[int]:
    """Of what the page holds and of the screen."""
    return page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")


def test_dark_is_dark_and_every_control_is_reached_by_the_tabulator(opened):
    page = opened({**SMALL, "color_scheme": "dark"}, f"#map=14/{LAT}/{LON}")
    assert picture(page)[5, 5].max() < 80
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.tagName"))
    assert {"CANVAS", "swipe", "layer", "period", "earlier", "compare", "low", "high", "fit", "usual", "all"} <= reached
