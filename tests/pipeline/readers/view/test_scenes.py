"""The input scenes on the map: found where the run found them, drawn by value, or said in a line to be out of reach."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from continental import continent_config, publish_continent
from mapped_cubes import EPSG, LAT, LON, WINDOW, tile_over
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer
from random_cubes import random_cube
from scened_cubes import DAYS, SIDE_M, TILE, config_of, facts_of, scened_cube
from starlette.testclient import TestClient

from difffusr.kernels.bands import GSD_M
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.readers.view import inputs as looking
from difffusr.pipeline.readers.view.inputs import Inputs, OutOfReachError, SceneGoneError
from difffusr.pipeline.readers.view.layers import ramp
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.server import map_app
from difffusr.pipeline.scenes.synthetic.sensor import RenderedScene
from difffusr.pipeline.storage.objects import Storage

pytestmark = [
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),  # rasterio's and rioxarray's, of affine
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),  # as `serve_map` does
]

Scenes = dict[str, RenderedScene]


@pytest.fixture(scope="module", params=[1000, 0], ids=["with the offset of 05.09", "without"])
def scened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, Scenes]:
    return scened_cube(tmp_path_factory.mktemp("scened"), request.param)


@pytest.fixture
def one(tmp_path: Path) -> tuple[Storage, Scenes]:
    """One to damage."""
    return scened_cube(tmp_path)


def client_with(place: Storage, **how: Any) -> TestClient:
    cube = Cube(place)
    return TestClient(map_app(map_cube(cube), {}, inputs=Inputs(cube, **how)))


def picture(client: TestClient, path: str, zxy: tuple[int, int, int], **query: Any) -> NDArray[Any]:
    answer = client.get(f"/scenes/{path}/{'/'.join(map(str, zxy))}.png", params=query)
    assert answer.status_code == 200, answer.text
    return np.array(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def pixels_of(
    scene: RenderedScene, band: str, zxy: tuple[int, int, int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Reflectance of a scene's band at every pixel of a tile, NaN for none; and where it is well inside of one."""
    zoom, col, row = zxy
    side = 40_075_016.685578488 / 2**zoom
    x = -20_037_508.342789244 + col * side + (np.arange(512) + 0.5) * side / 512
    y = 20_037_508.342789244 - row * side - (np.arange(512) + 0.5) * side / 512
    east, north = Transformer.from_crs("EPSG:3857", f"EPSG:{EPSG}", always_xy=True).transform(*np.meshgrid(x, y))
    gsd, count = GSD_M[band], SIDE_M // GSD_M[band]
    r, c = (scene.top_m - north) / gsd, (east - scene.left_m) / gsd
    reaches = (r >= 0) & (c >= 0) & (r < count) & (c < count)
    dn = scene.bands[band][np.clip(r, 0, count - 1).astype(int), np.clip(c, 0, count - 1).astype(int)]
    sure = (abs(r % 1 - 0.5) < 0.4) & (abs(c % 1 - 0.5) < 0.4)
    return np.where(reaches & (dn > 0), (dn.astype(float) - scene.offset_dn) * 1e-4, np.nan), sure


@pytest.mark.parametrize(
    ("layer", "bands", "number"),
    [
        ("true-colour", ("B04", "B03", "B02"), 1), ("infrared", ("B08", "B04", "B03"), 4), ("B08", ("B08",) * 3, 2),
        ("B11", ("B11",) * 3, 3), ("coast", ("B04", "B03", "B01"), 4),
    ],
)  # fmt: skip
def test_a_scene_s_own_pixels_are_drawn_without_the_offset_of_its_baseline(scened, layer, bands, number):
    place, scenes = scened
    scene, period = list(scenes.values())[number - 1], "2023-01" if number < 3 else "2023-02"
    client = client_with(place)
    for zoom in (15, 17):
        zxy = tile_over(LON, LAT, zoom)
        drawn = picture(client, f"{period}/{number}/{layer}", zxy, low=0.05, high=0.5)
        for channel, band in enumerate(bands):
            values, sure = pixels_of(scene, band, zxy)
            here = sure & np.isfinite(values) & (drawn[..., 3] > 0)
            assert here.sum() > 20_000
            expected = np.clip((values[here] - 0.05) / 0.45, 0, 1) * 255
            assert np.abs(drawn[here][:, channel] - expected).max() <= 0.6, (zoom, band)


def test_an_index_of_a_scene_is_of_its_own_pixels_and_its_corner_without_data_transparent(scened):
    place, scenes = scened
    scene, client = next(iter(scenes.values())), client_with(place)
    x, y = Transformer.from_crs(f"EPSG:{EPSG}", "EPSG:4326", always_xy=True).transform(
        scene.left_m + 900, scene.top_m - 900
    )
    zxy = tile_over(x, y, 16)
    drawn = picture(client, "2023-01/1/ndvi", zxy, low=-0.9, high=0.9)
    (infrared, sure), (red, _) = (pixels_of(scene, band, zxy) for band in ("B08", "B04"))
    none = sure & ~np.isfinite(infrared)
    assert none.sum() > 5_000
    assert (drawn[none][:, 3] == 0).all()
    here = sure & np.isfinite(infrared)
    step = ((infrared - red) / (infrared + red) + 0.9)[here] / 1.8 * 255
    described = next(one for one in client.get("/cube.json").json()["layers"] if one["name"] == "ndvi")
    expected = ramp(described["colours"]).astype(int)[np.clip(np.round(step), 0, 255).astype(int)]
    assert np.abs(drawn[here][:, :3].astype(int) - expected).max() <= 5  # a step of the ramp beside, by rounding


def test_a_tile_is_made_of_the_overview_as_fine_as_it(one):
    place, scenes = one
    name = next(iter(scenes))
    path = Path(place.url).parent / f"archive/items/{name}/B04.tif"
    with rasterio.open(path) as file:
        profile = {**file.profile, "driver": "GTiff"}
    with rasterio.open(path, "w", **profile):
        pass
    # Overviews stay as they were when pixels below are written again: each resolution holds its own number.
    for value, factor in ((4000, 8), (3000, 4), (2000, 2), (1000, None)):
        with rasterio.open(path, "r+") as file:
            file.write(np.full((1, file.height, file.width), value + 1000, np.uint16))
        if factor:
            with rasterio.open(path, "r+") as file:
                file.build_overviews([factor])
    client = client_with(place)
    for zoom, value in ((16, 1000), (13, 1000), (12, 1000), (11, 2000), (10, 3000)):  # 18 m at 12, 37 m at 11, 73 at 10
        drawn = picture(client, "2023-01/1/B04", tile_over(LON, LAT, zoom), low=0, high=0.51)
        seen = drawn[drawn[..., 3] == 255][:, 0]
        assert np.median(seen) == pytest.approx(value / 20, abs=0.6), zoom
    # 294 m at 8: less than four times 80 m by less than tiles of a zoom differ by.
    assert client.get("/scenes/2023-01/1.json").json()["zooms"][0] == 9
    z, x, y = tile_over(LON, LAT, 6)
    answer = client.get(f"/scenes/2023-01/1/B04/{z}/{x}/{y}.png")
    assert answer.status_code == 404
    assert "has no overview for a map of" in answer.text


def test_a_file_without_overviews_is_not_read_whole_for_a_map_of_the_world(scened):
    place, _ = scened
    client = client_with(place)
    first = client.get("/scenes/2023-01/1.json").json()["zooms"][0]
    for zoom, code in ((first, 200), (first - 2, 404)):
        z, x, y = tile_over(LON, LAT, zoom)
        assert client.get(f"/scenes/2023-01/1/B04/{z}/{x}/{y}.png").status_code == code


def test_files_are_opened_once_for_many_tiles(scened, monkeypatch):
    place, _ = scened
    client, opened = client_with(place), []
    open_one = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda *words, **more: opened.append(words) or open_one(*words, **more))
    z, x, y = tile_over(LON, LAT, 18)
    for step in range(6):
        picture(client, "2023-01/1/true-colour", (z, x + step % 3 - 1, y + step // 3))
    assert 3 <= len(opened) <= 12  # three bands, each kept by every reader: four threads


@pytest.mark.parametrize("step", [0, 1])
def test_scenes_of_a_view_are_those_that_its_pixels_are_of(scened, step):
    place, scenes = scened
    client = client_with(place)
    west, south, east, north = client.get("/cube.json").json()["zones"][0]["extent"]
    view = {"west": west, "south": south, "east": east, "north": north}
    told = client.get(f"/scenes/2023-0{step + 1}", params=view).json()
    names = list(scenes)[2 * step : 2 * step + 2]
    assert sorted(one["id"] for one in told) == names
    assert {(one["number"], one["day"], one["tile"]) for one in told} == {
        (2 * step + n + 1, DAYS[step + 1][n], TILE) for n in (0, 1)
    }
    shares = [one["share"] for one in told]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(0.5, abs=0.03)  # stripes as wide, and a hole in one of them
    # Of a view of one stripe, 32 pixels of 2.5 m, it is that one's alone.
    back = Transformer.from_crs(f"EPSG:{EPSG}", "EPSG:4326", always_xy=True)
    left, _, _, top = WINDOW.bounds_m(EPSG)
    (west, south), (east, north) = (
        back.transform(left + (96 + at) * 2.5, top - (64 + 24 - at) * 2.5) for at in (8, 24)
    )
    view = {"west": west, "south": south, "east": east, "north": north}
    told = client.get(f"/scenes/2023-0{step + 1}", params=view).json()
    assert [(one["number"], one["share"]) for one in told] == [(2 * step + 2, 1.0)]


def gone(place: Storage, scenes: Scenes) -> None:
    shutil.rmtree(Path(place.url).parent / "archive")


def not_json(place: Storage, scenes: Scenes) -> None:
    (Path(place.url).parent / "archive/collection.json").write_text("no")


def unlisted(place: Storage, scenes: Scenes) -> None:
    file = Path(place.url).parent / "archive/collection.json"
    document = json.loads(file.read_text())
    document["links"] = [link for link in document["links"] if next(iter(scenes)) not in link["href"]]
    file.write_text(json.dumps(document))


def without_a_file(place: Storage, scenes: Scenes) -> None:
    (Path(place.url).parent / f"archive/items/{next(iter(scenes))}/B04.tif").unlink()


def cut_short(place: Storage, scenes: Scenes) -> None:
    file = Path(place.url).parent / f"archive/items/{next(iter(scenes))}/B04.tif"
    file.write_bytes(file.read_bytes()[:4000])


def no_raster(place: Storage, scenes: Scenes) -> None:
    (Path(place.url).parent / f"archive/items/{next(iter(scenes))}/B04.tif").write_text("not a raster")


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [
        (gone, 502, "the scenes are out of reach: "),
        (not_json, 502, "the scenes are out of reach: "),
        (unlisted, 410, "is no longer in its catalogue"),
        (without_a_file, 410, "B04.tif cannot be opened"),
        (no_raster, 410, "B04.tif cannot be opened"),
        (cut_short, 410, "B04.tif"),
    ],
)
def test_scenes_out_of_reach_are_said_in_one_line_and_break_nothing_else(one, damage: Callable[..., None], code, said):
    place, scenes = one
    damage(place, scenes)
    client = client_with(place)
    zxy = "/".join(map(str, tile_over(LON, LAT, 16)))
    tile = client.get(f"/scenes/2023-01/1/B04/{zxy}.png")
    assert (tile.status_code, tile.text.count("\n")) == (code, 1)
    assert said in tile.text
    if damage is not cut_short:  # its head is whole
        described = client.get("/scenes/2023-01/1.json")
        assert (described.status_code, described.text) == (code, tile.text)
    assert client.get(f"/tiles/B04/2023-01/{zxy}.png").status_code == 200
    other = client.get(f"/scenes/2023-01/2/B04/{zxy}.png")
    assert other.status_code == (502 if code == 502 else 200)
    if damage in (without_a_file, no_raster):
        assert client.get(f"/scenes/2023-01/1/B08/{zxy}.png").status_code == 200


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("2031-01/1/B04", 404, "there is no period '2031-01'"),
        ("2023-01/99/B04", 410, "the cube has no scene 99"),
        ("2023-01/-1/B04", 410, "the cube has no scene -1"),
        ("2023-01/1/rainbow", 404, "there is no layer 'rainbow'"),
        ("2023-01/1/quality", 404, "a scene has no quality"),
        ("2023-01/1/source", 404, "a scene has no source scene"),
        ("2023-01/one/B04", 422, "number: Input should be a valid integer"),
    ],
)
def test_mistakes_are_answered_in_one_line(scened, path, code, said):
    client = client_with(scened[0])
    answer = client.get(f"/scenes/{path}/{'/'.join(map(str, tile_over(LON, LAT, 16)))}.png")
    assert (answer.status_code, answer.text.count("\n")) == (code, 1)
    assert said in answer.text


def test_where_the_scene_does_not_reach_there_is_no_tile(scened):
    client = client_with(scened[0])
    for lon, lat in ((LON + 0.3, LAT), (-70.0, -30.0), (LON, 84.0)):
        z, x, y = tile_over(lon, lat, 14)
        assert client.get(f"/scenes/2023-01/1/B04/{z}/{x}/{y}.png").status_code == 204


def test_a_cube_that_names_no_catalogue_says_so_and_what_to_do(tmp_path):
    place = Storage(str(tmp_path / "cube.zarr"))
    random_cube(place, {EPSG: WINDOW}, months=(1,))
    told = client_with(place).get("/cube.json").json()["scenes"]
    assert not told["possible"]
    assert told["why"].endswith("start the map with the run's YAML file")
    with pytest.raises(OutOfReachError, match="does not say in which catalogue"):
        Inputs(Cube(place)).scene("2023-01", 1)


@pytest.mark.parametrize("facts", [{"tile": None}, {"tile": "99ZZZ"}, {"datetime": "yesterday"}, {"datetime": ""}, {}])
def test_a_scene_of_no_known_tile_and_day_is_not_looked_for(tmp_path, facts):
    place, scenes = scened_cube(tmp_path)
    cube = Cube(place)
    own = {1: {**facts_of(scenes, DAYS[1][0]), **facts}} if facts else {1: {"id": "S2A_old"}}
    found = Inputs(cube)
    found._scenes = own
    with pytest.raises(SceneGoneError, match="does not say of which tile and day scene S2A_"):
        found.scene("2023-01", 1)


def test_the_run_s_file_comes_before_the_plan_and_the_plan_before_the_cube(one, tmp_path):
    place, scenes = one
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "archive").rename(elsewhere)
    with pytest.raises(OutOfReachError):
        Inputs(Cube(place)).scene("2023-01", 1)
    catalog = str(elsewhere / "catalog.json")
    by_file = Inputs(Cube(place), config=config_of(catalog)).scene("2023-01", 1)
    staging = Storage(str(tmp_path / "kept.staging"))
    manifest = json.dumps({"chips": 6, "config": {"source": {"static_catalog": catalog}}})
    staging.child("runs/2023-01/published").write("manifest.json", manifest.encode())
    by_plan = Inputs(Cube(place), staging).scene("2023-01", 1)
    assert by_file.id == by_plan.id == next(iter(scenes))
    assert by_plan.file("B04").href.startswith(str(elsewhere))
    with pytest.raises(OutOfReachError):  # its plan is not kept
        Inputs(Cube(place), staging).scene("2023-02", 3)


def test_a_scene_is_searched_once(scened, monkeypatch):
    asked = []
    search = looking.find_scenes
    monkeypatch.setattr(looking, "find_scenes", lambda config: asked.append(config) or search(config))
    found = Inputs(Cube(scened[0]))
    for _ in range(3):
        assert found.scene("2023-01", 2).datetime.day == 15
    assert [(config.area.tiles, str(config.period.start), str(config.period.end)) for config in asked] == [
        ((TILE,), DAYS[1][1], DAYS[1][1])
    ]


def test_a_cube_of_one_crs_shows_the_scenes_of_the_cube_that_it_is_made_of(one, tmp_path):
    place, scenes = one
    publish_continent(
        continent_config(place.url, str(tmp_path / "continent.zarr"), period="2023-02", staging=f"{place.url}.staging")
    )
    client = client_with(Storage(str(tmp_path / "continent.zarr")))
    told = client.get("/cube.json").json()
    assert told["scenes"] == {"possible": True, "why": None}
    view = dict(zip(("west", "south", "east", "north"), told["zones"][0]["extent"], strict=True))
    assert {one["id"] for one in client.get("/scenes/2023-02", params=view).json()} == set(list(scenes)[2:])
    zxy = tile_over(LON, LAT, 17)
    drawn = picture(client, "2023-02/4/B08", zxy, low=0, high=0.6)
    values, sure = pixels_of(list(scenes.values())[3], "B08", zxy)
    here = sure & np.isfinite(values) & (drawn[..., 3] > 0)
    assert here.sum() > 20_000
    assert np.abs(drawn[here][:, 0] - np.clip(values[here] / 0.6, 0, 1) * 255).max() <= 0.6
