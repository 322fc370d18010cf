"""The page of the map in a real browser: headless Chromium, desktop and phone."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
import uvicorn
import xarray as xr
from browser import CHROMIUM, FLAGS, needs_chromium
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_path
from pyproj import Transformer
from random_cubes import random_cube, window_around
from scened_cubes import scened_cube

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.readers.view.basemap import Basemap
from difffusr.pipeline.readers.view.inputs import Inputs
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.maplibre import maplibre_files
from difffusr.pipeline.readers.view.server import map_app
from difffusr.pipeline.storage.objects import Storage

sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: it comes with difffusr[test]")

pytestmark = [needs_chromium, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]

EPSG, LON, LAT = 32648, 105.02, 16.04
SETTLED = "html[data-map=settled]"

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
    with served(cube) as address:
        yield address


@contextmanager
def served(place: Storage, **how: Any) -> Iterator[str]:
    """The address of a map of a cube."""
    try:
        files = maplibre_files(None, user_cache_path("difffusr"))
    except DifffusrError as error:
        pytest.skip(f"no MapLibre GL JS: {error}")
    opened_cube = Cube(place)
    app = map_app(map_cube(opened_cube), files, inputs=Inputs(opened_cube), **how)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        server.force_exit = True  # a browser's connection may still be open
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves maps of further cubes, for as long as pages of them are open."""
    with ExitStack() as servers:
        yield lambda place, **how: servers.enter_context(served(place, **how))


@pytest.fixture
def opened(browser: Any, url: str, serve: Callable[..., str]) -> Iterator[Callable[..., Any]]:
    """Opens the page, once it has drawn; at the end nothing may have gone wrong in it, nor left this machine."""
    troubles: list[str] = []
    contexts = []

    def open_page(
        device: dict[str, Any], hash_: str = "", url: str = url, beside: str = url, *, refused: bool = False
    ) -> Any:
        context = browser.new_context(**device)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: troubles.append(said.text) if is_trouble(said, refused=refused) else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((url, beside, "blob:", "data:")) else troubles.append(asked.url),
        )
        page.goto(url + hash_)
        page.wait_for_selector(SETTLED, timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [said for said in troubles if "GPU stall" not in said] == []  # of reading pixels back without a GPU


def is_trouble(said: Any, *, refused: bool) -> bool:
    """Whether a line of the console is one. Chromium's own for what a server refuses is none where that is meant."""
    return said.type in ("error", "warning") and not (refused and said.text.startswith("Failed to load resource"))


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


@pytest.fixture(scope="module")
def scened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, Any]:
    """A cube whose scenes are there, and these."""
    return scened_cube(tmp_path_factory.mktemp("scened"))


def name_left(page: Any, expected: str) -> None:
    page.wait_for_function("said => document.querySelector('#left-name').textContent === said", arg=expected)


def test_left_side_is_the_input_scene_by_value_and_named(opened, scened, serve):
    place, scenes = scened
    scene = list(scenes.values())[2]  # of February, the page's period
    url = serve(place)
    page = opened(SMALL, f"#map=18/{LAT}/{LON}&layer=B08&compare=scene&scene=3&at=1&low=0&high=0.6", url)
    name_left(page, "Scene of 5 Feb 2023")
    assert page.locator("#input-why").inner_text() == f"{scene.id}, as measured"
    shown = picture(page)
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{EPSG}", always_xy=True).transform(LON, LAT)
    dn = int(scene.bands["B08"][int((scene.top_m - y) / 10), int((x - scene.left_m) / 10)]) - scene.offset_dn
    middle = shown[shown.shape[0] // 2, shown.shape[1] // 2]
    # The middle of the view lies a pixel or two from the border of a scene's pixel at the worst.
    assert np.abs(middle - dn * 1e-4 / 0.6 * 255).max() <= 1.01
    # Another one is another picture; so is what a scene has not: beside it, it is in true colour.
    page.select_option("#scene", "4")
    name_left(page, "Scene of 15 Feb 2023")
    other = picture_other_than(page, shown)
    page.select_option("#layer", "quality")
    name_left(page, "Scene of 15 Feb 2023, true colour")
    colours = picture_other_than(page, other)
    assert np.ptp(colours, axis=2).mean() > 10
    page.wait_for_url("**compare=scene&scene=4**")


def test_scene_is_chosen_by_the_view_and_by_a_pixel(opened, scened, serve):
    place, _ = scened
    url = serve(place)
    page = opened(DESKTOP, f"#map=16/{LAT}/{LON}&compare=scene", url)
    page.wait_for_function("() => document.querySelector('#left-name').textContent.startsWith('Scene of ')")
    words = page.locator("#scene option").all_inner_texts()
    assert words[0].startswith("Automatic: ")
    assert len(words) == 3
    stage = page.locator("#stage").bounding_box()
    page.mouse.click(stage["x"] + stage["width"] * 0.7, stage["y"] + stage["height"] / 2)
    page.wait_for_selector("#spectrum", state="visible")
    own = page.locator("#pixel dd").nth(1).inner_text()
    page.click("text=Compare with this scene")
    page.wait_for_function("name => document.querySelector('#input-why').textContent.startsWith(name)", arg=own)
    page.wait_for_function("() => ['3', '4'].includes(document.querySelector('#scene').value)")


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_scenes_out_of_reach_are_said_and_the_map_is_never_blank(opened, tmp_path, cube, url, device, serve):
    place, _ = scened_cube(tmp_path)
    (tmp_path / "archive").rename(tmp_path / "moved")
    moved = serve(place)
    page = opened(device, f"#map=17/{LAT}/{LON}&compare=scene&at=1", moved, refused=True)
    page.wait_for_function("() => !document.querySelector('#input-why').hidden")
    said = page.locator("#input-why").text_content()
    assert said.startswith("The scenes are out of reach: ")
    assert page.locator("#compare option[value=scene]").is_disabled()
    assert page.input_value("#compare") == "10m"
    name_left(page, "Averaged to 10 m")
    assert (np.ptp(picture(page), axis=2) > 12).mean() > 0.1  # colours, not the empty ground
    page = opened(device, f"#map=17/{LAT}/{LON}&compare=scene", url)  # a cube that names no catalogue
    assert page.locator("#compare option[value=scene]").is_disabled()
    assert "start the map with the run's YAML file" in page.locator("#input-why").text_content()
    assert page.input_value("#compare") == "10m"


def test_a_scene_whose_file_is_gone_leaves_the_others(opened, tmp_path, serve):
    place, scenes = scened_cube(tmp_path)
    (tmp_path / f"archive/items/{list(scenes)[2]}/B04.tif").unlink()
    url = serve(place)
    page = opened(DESKTOP, f"#map=17/{LAT}/{LON}&compare=scene&scene=3", url, refused=True)
    page.wait_for_function("() => document.querySelector('#input-why').textContent.includes('B04.tif')")
    assert page.locator("#input-why").is_visible()
    name_left(page, "Averaged to 10 m")
    assert page.input_value("#compare") == "scene"
    page.select_option("#scene", "4")
    name_left(page, "Scene of 15 Feb 2023")


class Plain(BaseHTTPRequestHandler):
    """A basemap of one colour, with what it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        tile = io.BytesIO()
        Image.new("RGB", (256, 256), (200, 40, 160)).save(tile, "PNG")
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(tile.getvalue())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def basemap() -> Iterator[Basemap]:
    Plain.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Plain)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Basemap.of(f"http://127.0.0.1:{server.server_port}/{{z}}/{{x}}/{{y}}.png", "© <i>Those</i> who drew it")
    server.shutdown()
    thread.join()
    server.server_close()


def share_of_basemap(page: Any) -> float:
    return float((np.abs(picture(page) - (200, 40, 160)).max(axis=2) <= 2).mean())


def test_basemap_lies_below_the_cube_is_credited_and_can_be_switched_off(opened, cube, basemap, serve):
    url = serve(cube, basemap=basemap)
    page = opened(DESKTOP, f"#map=15/{LAT}/{LON}&compare=nothing", url, basemap.origin)
    page.wait_for_function("() => document.querySelector('.maplibregl-ctrl-attrib').textContent.includes('Those')")
    assert page.locator(".maplibregl-ctrl-attrib i").count() == 0
    assert "© <i>Those</i> who drew it" in page.locator(".maplibregl-ctrl-attrib").inner_text()
    share = share_of_basemap(page)
    assert 0.5 < share < 0.97  # around the cube, not over it
    assert Plain.asked
    page.uncheck("#basemap")
    page.wait_for_url("**basemap=off**")
    assert share_of_basemap(page) == 0
    page.check("#basemap")
    page.wait_for_function("() => !location.hash.includes('basemap')")
    assert share_of_basemap(page) == pytest.approx(share, abs=0.01)


def test_map_goes_on_without_a_basemap_that_does_not_answer(opened, cube, serve):
    away = Basemap.of("http://127.0.0.1:9/{z}/{x}/{y}.png")
    url = serve(cube, basemap=away)
    page = opened(DESKTOP, f"#map=17/{LAT}/{LON}&compare=nothing", url, away.origin, refused=True)
    said = "() => document.querySelector('#notice').textContent.startsWith('The basemap does not')"
    page.wait_for_function(said, timeout=8_000)  # at once, not after the time that a slow one has
    assert not page.locator("#basemap").is_checked()
    assert (np.ptp(picture(page), axis=2) > 12).mean() > 0.1  # colours, not the empty ground


@pytest.mark.parametrize("layer", ["quality", "source"])
def test_most_frequent_label_is_on_the_left_and_own_on_the_right(opened, scened, layer, serve):
    place, _ = scened
    url = serve(place)
    page = opened(SMALL, f"#map=17/{LAT}/{LON}&layer={layer}&at=0.5", url)
    assert page.locator("#left-name").inner_text() == "Most frequent in 10 m"
    assert page.locator("#right-name").inner_text() == "2.5 m"
    legend = page.locator("#legend i.swatch:not(.empty)").evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor.match(/\\d+/g).map(Number))"
    )
    shown = picture(page)
    for half in (shown[:, : shown.shape[1] // 2 - 5], shown[:, shown.shape[1] // 2 + 5 :]):
        of_legend = np.min([np.abs(half - colour).max(axis=2) for colour in legend], axis=0) <= 2
        assert of_legend.mean() > 0.2
