"""A source that is busy or slow is asked again as long as that makes sense; what stays broken costs its chips alone."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import rasterio
import ray
import xarray as xr
from affine import Affine
from bad_http import BadServer, Fault, bad_server
from shapely.geometry import box
from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.geo.grid import ChipIndex, Grid, PixelWindow
from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.scenes import documents, files, requests
from difffusr.pipeline.scenes.files import PassingReadError
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.search import find_scenes
from difffusr.pipeline.scenes.windows import read_window

SECRET = "SIGNATURE-NOBODY-MAY-SEE"
GROUP = "32632/0"
#: Of these GDAL fetches all at once (7 kB), and of a large file the tiles by themselves.
SMALL, LARGE = "B11", "B02"
#: How often an impatient reader tries.
TRIES = 4


@pytest.fixture
def served(world, tmp_path: Path) -> Iterator[BadServer]:
    """The world's catalogue behind HTTP; its files are given only to signed requests, and its items sign them."""
    folder = tmp_path / "served"
    shutil.copytree(world.catalog.parent, folder)
    with bad_server(folder) as server:
        server.secret = SECRET
        for path in folder.glob("items/*/*.json"):
            item = json.loads(path.read_text())
            for asset in item["assets"].values():
                asset["href"] = f"{server.url}/items/{item['id']}/{asset['href'][2:]}?sig={SECRET}"
            path.write_text(json.dumps(item))
        yield server


@pytest.fixture
def address(served: BadServer) -> str:
    return f"{served.url}/catalog.json"


@pytest.fixture
def scene(served: BadServer, address: str, loaded: Callable[..., RunConfig]) -> Scene:
    """The best-placed scene of the served catalogue."""
    return find_scenes(loaded(source={"static_catalog": address}))[0]


@pytest.fixture
def large(served: BadServer, scene: Scene) -> Scene:
    """The scene with one file of 2 MB."""
    asset = scene.assets[LARGE]
    assert asset.transform is not None
    path = served.folder / "large" / f"{LARGE}.tif"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(1, 10_000, (1024, 1024), np.uint16)
    profile = {"driver": "COG", "count": 1, "dtype": "uint16", "crs": f"EPSG:{scene.epsg}", "blocksize": 128}
    with rasterio.open(
        path, "w", width=1024, height=1024, transform=Affine(*asset.transform), compress="deflate", **profile
    ) as file:
        file.write(pixels, 1)
    href = f"{served.url}/large/{LARGE}.tif?sig={SECRET}"
    return replace(scene, assets={**scene.assets, LARGE: replace(asset, href=href)})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, and servers that do not answer given up after a second or two."""
    for module in (files, requests):
        monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.01)
        monkeypatch.setattr(module, "_ATTEMPTS", TRIES)
    monkeypatch.setattr(documents, "DOCUMENT_S", 0.5)
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "2")


def chip_in(scene: Scene) -> PixelWindow:
    """A chip that the scene covers."""
    asset = scene.assets["B02"]
    assert asset.transform is not None
    grid = Grid(96, 24, 512, 256)
    left, top = asset.transform[2] + 500, asset.transform[5] - 500
    rows, cols = grid.chips_over(scene.epsg, box(left, top - 10, left + 10, top))
    return grid.chip_window(ChipIndex(int(rows[0]), int(cols[0])))


def truth(scene: Scene, band: str, window: PixelWindow, served: BadServer) -> np.ndarray:
    """The same pixels from the file on disk."""
    asset = scene.assets[band]
    local = str(served.folder / urlsplit(asset.href).path[1:])
    return read_window(replace(scene, assets={**scene.assets, band: replace(asset, href=local)}), band, window)


# ---- files ----------------------------------------------------------------------------------------------------------

PASSING = {
    "503 twice": Fault("status", 503, times=2),
    "429 twice": Fault("status", 429, times=2, retry_after=1),
    "500": Fault("status", 500, times=1),
    "408": Fault("status", 408, times=1),
    "503 in the middle": Fault("status", 503, times=2, first_byte=16384),
    "hung up": Fault("reset", times=1),
    "hung up three times": Fault("reset", times=3),
    "cut off": Fault("truncated", times=1, first_byte=16384),
    "no answer": Fault("stall", times=1),
    "half an answer": Fault("stall halfway", times=1, first_byte=16384),
    "a slow answer": Fault("slow", pause_s=0.02),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_what_passes_is_waited_for_and_the_pixels_are_the_same(
    served: BadServer, large: Scene, impatient: None, fault: Fault
) -> None:
    fault = replace(fault)  # it counts down
    window = chip_in(large)
    served.misbehave(f"*/{LARGE}.tif", fault)
    assert np.array_equal(read_window(large, LARGE, window), truth(large, LARGE, window, served))
    assert fault.times in (0, None)


LASTING = {
    "404": (Fault("status", 404), False, "cannot be opened (HTTP response code: 404)", "check that the file exists"),
    "410": (Fault("status", 410), False, "cannot be opened (HTTP response code: 410)", "leave the scene out"),
    "403": (Fault("status", 403), False, "cannot be opened (HTTP response code: 403)", "that has not expired"),
    "401": (Fault("status", 401), False, "cannot be opened (HTTP response code: 401)", "access is refused"),
    "garbled": (Fault("garbled"), False, "not recognized as being in a supported file format", "leave the scene out"),
    "503": (Fault("status", 503), True, "cannot be opened (HTTP response code: 503)", "run again later"),
    "no answer": (Fault("stall"), True, "cannot be opened (CURL error: Operation too slow", "run again later"),
    "cut off": (Fault("truncated"), True, "is damaged or incomplete (TIFFFillTile:Read error", "leave the scene out"),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "again", "reason", "advice"), LASTING.values(), ids=LASTING.keys())
def test_what_does_not_pass_is_one_line_that_names_scene_band_and_file(
    served: BadServer,
    scene: Scene,
    impatient: None,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    again: bool,
    reason: str,
    advice: str,
) -> None:
    served.misbehave(f"*/{SMALL}.tif", fault)
    started = time.monotonic()
    with caplog.at_level(logging.DEBUG), pytest.raises(ReadError) as caught:
        read_window(scene, SMALL, chip_in(scene))
    assert time.monotonic() - started < 90
    said = str(caught.value)
    for fragment in (f"scene {scene.id}, {SMALL}: {served.url}/items/{scene.id}/{SMALL}.tif ", reason, advice):
        assert fragment in said
    assert "\n" not in said
    asked = served.times_asked(f"*/{SMALL}.tif")
    # GDAL may ask more than once each time; what lasts is looked at twice, without a pause
    assert asked >= TRIES if again else asked <= 6
    assert isinstance(caught.value, PassingReadError) == again
    assert SECRET not in said + caplog.text


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("truncated", first_byte=16384), "Read error"),
        (Fault("garbled", first_byte=16384), "Decoding error"),
        (Fault("status", 503, first_byte=16384), "got 0 bytes"),
    ],
    ids=["cut off", "garbled", "503"],
)
def test_a_file_that_opens_and_cannot_be_read_is_damaged_or_incomplete(
    served: BadServer, large: Scene, impatient: None, caplog: pytest.LogCaptureFixture, fault: Fault, reason: str
) -> None:
    served.misbehave(f"*/{LARGE}.tif", fault)
    with caplog.at_level(logging.DEBUG), pytest.raises(ReadError, match="is damaged or incomplete") as caught:
        read_window(large, LARGE, chip_in(large))
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value) + caplog.text


@pytest.mark.parametrize(
    "fault",
    [Fault("status", 503), Fault("reset"), Fault("truncated"), Fault("status", 404), Fault("garbled")],
    ids=lambda fault: f"{fault.kind} {fault.status}",
)
def test_a_file_that_failed_once_is_not_remembered_as_failed(
    served: BadServer, scene: Scene, impatient: None, fault: Fault
) -> None:
    """GDAL keeps a failed answer as long as the process lives; the next chip or run must not meet it."""
    served.misbehave(f"*/{SMALL}.tif", fault)
    with pytest.raises(ReadError):
        read_window(scene, SMALL, chip_in(scene))
    served.behave()
    pixels = truth(scene, SMALL, chip_in(scene), served)
    assert np.array_equal(read_window(scene, SMALL, chip_in(scene)), pixels)


@pytest.mark.parametrize("first_byte", [0, 16384])
@pytest.mark.slow
def test_a_stalled_read_is_given_up_within_about_a_minute(served: BadServer, large: Scene, first_byte: int) -> None:
    served.misbehave(f"*/{LARGE}.tif", Fault("stall", first_byte=first_byte))
    started = time.monotonic()
    with pytest.raises(ReadError, match=LARGE):
        read_window(large, LARGE, chip_in(large))
    assert time.monotonic() - started < 75


# ---- catalogues -----------------------------------------------------------------------------------------------------

DOCUMENTS = {
    "503 twice": Fault("status", 503, times=2),
    "429": Fault("status", 429, times=1, retry_after=1),
    "hung up": Fault("reset", times=1),
    "no answer": Fault("stall", times=1),
    "half an answer": Fault("stall halfway", times=1),
    "cut off": Fault("truncated", times=1),
}


@pytest.mark.parametrize("fault", DOCUMENTS.values(), ids=DOCUMENTS.keys())
@pytest.mark.parametrize("name", ["catalog.json", "S2A_32TMT_20230605_0_L2A.json"])
def test_a_document_that_comes_late_comes(
    served: BadServer, address: str, loaded: Callable[..., RunConfig], impatient: None, name: str, fault: Fault
) -> None:
    fault = replace(fault)
    served.misbehave(f"*/{name}", fault)
    started = time.monotonic()
    assert len(find_scenes(loaded(source={"static_catalog": address}))) == 4
    assert fault.times == 0
    assert time.monotonic() - started > (fault.retry_after or 0)


@pytest.mark.parametrize(
    ("fault", "says", "asked"),
    [
        (Fault("status", 503), "HTTP 503", TRIES),
        (Fault("status", 404), "HTTP 404", 1),
        (Fault("status", 403), "HTTP 403", 1),
        (Fault("stall"), "Read timed out", TRIES),
        (Fault("stall halfway"), "Read timed out", TRIES),
        (Fault("truncated"), "IncompleteRead", TRIES),
        (Fault("reset"), "Connection aborted", TRIES),
        (Fault("garbled"), "is not JSON", 1),
    ],
    ids=lambda value: f"{value.kind} {value.status}" if isinstance(value, Fault) else "",
)
def test_a_document_that_does_not_come_is_one_line(
    served: BadServer, address: str, command, configure, impatient: None, fault: Fault, says: str, asked: int
) -> None:
    served.misbehave("/collection.json", fault)
    started = time.monotonic()
    ended = command("plan", configure(source={"static_catalog": f"{address}?token={SECRET}"}))
    assert time.monotonic() - started < 90
    assert ended.code == 1
    assert ended.err.startswith(f"error: {served.url}/collection.json (linked from {served.url}/catalog.json): ")
    assert says in ended.err
    assert len(ended.err.splitlines()) == 1
    assert SECRET not in ended.err + ended.out
    assert served.times_asked("/collection.json") == asked


def test_a_table_of_items_is_waited_for_as_well(
    served: BadServer, loaded: Callable[..., RunConfig], configure, command, impatient: None
) -> None:
    items = [json.loads(path.read_text()) for path in served.folder.glob("items/*/*.json")]
    to_parquet(parse_stac_items_to_arrow(items), served.folder / "items.parquet")
    source = {"items": f"{served.url}/items.parquet"}
    served.misbehave("/items.parquet", Fault("status", 503, times=2))
    assert len(find_scenes(loaded(source=source))) == 4
    served.misbehave("/items.parquet", Fault("status", 503))
    ended = command("plan", configure(source=source))
    assert (ended.code, len(ended.err.splitlines())) == (1, 1)
    assert "items.parquet: cannot be read: HTTP 503" in ended.err


@pytest.mark.parametrize("href", ["file:///etc/hostname", "file://localhost/etc/hostname", "FILE:///etc/hostname"])
def test_a_catalogue_of_another_machine_names_no_file_of_this_one(
    served: BadServer, command, configure, monkeypatch: pytest.MonkeyPatch, href: str
) -> None:
    """The server is asked as a proxy, so that the catalogue is one of another host."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, served.url)
    path = next(served.folder.glob("items/S2A_32TMT*/*.json"))
    item = json.loads(path.read_text())
    item["assets"]["red"]["href"] = href
    path.write_text(json.dumps(item))
    source = {"static_catalog": "http://catalogue.example/catalog.json"}
    ended = command("plan", configure(source=source))
    assert ended.code == 0  # the item is left out, the others are used
    assert "with an address that cannot be used" in ended.out
    ended = command("plan", configure(source={**source, "max_left_out": 0}))
    assert ended.code == 1
    assert "item S2A_32TMT_20230605_0_L2A: asset red: href" in ended.err
    assert "is a local file, which a remote catalogue may not name" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_a_classification_that_does_not_come_costs_its_scene_alone(
    served: BadServer, address: str, command, configure, impatient: None
) -> None:
    served.misbehave("*/S2A_32TMT*/SCL.tif", Fault("stall"))
    started = time.monotonic()
    ended = command("plan", configure(source={"static_catalog": address}))
    assert ended.code == 0, ended.err
    assert time.monotonic() - started < 120
    assert "scene left out: scene S2A_32TMT_20230605_0_L2A, SCL" in ended.err
    assert "Operation too slow" in ended.err
    assert SECRET not in ended.err


# ---- whole runs -----------------------------------------------------------------------------------------------------


def secrets_below(*folders: Path) -> list[str]:
    """Files that hold the signature; tables, which are compressed, are looked through."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += pd.read_parquet(path).to_csv().encode()
        if SECRET.encode() in data:
            found.append(str(path))
    return found


def cube_of(path: Path) -> xr.Dataset:
    return xr.open_zarr(path.with_suffix(".zarr"), group=GROUP).load()


def test_a_busy_source_gives_the_same_cube_and_its_signatures_are_nowhere(
    served: BadServer, address: str, difffusr, configure, finished_run: Path
) -> None:
    busy = [
        ("*/B02.tif", Fault("status", 503, times=2)),
        ("*/B8A.tif", Fault("status", 429, times=2, retry_after=1)),
        ("*/B05.tif", Fault("reset", times=1)),
        ("*/B08.tif", Fault("truncated", times=1)),
        ("*/SCL.tif", Fault("status", 500, times=1)),
        ("/collection.json", Fault("status", 503, times=1)),
    ]
    for pattern, fault in busy:
        served.misbehave(pattern, fault)
    path = configure(source={"static_catalog": address})
    ended = difffusr("run", path, "--verbose")
    assert ended.code == 0, ended.err
    assert [fault.times for _, fault in busy] == [0] * len(busy)
    here, there = cube_of(path), cube_of(finished_run)
    for name in ("reflectance", "quality", "source"):
        assert here[name].equals(there[name]), name
    assert SECRET not in ended.out + ended.err
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    assert not secrets_below(path.with_suffix(".staging"), path.with_suffix(".zarr"), logs)


@pytest.mark.slow  # another scene in their place, and none: test_broken_scene, test_bad_input
def test_files_that_stay_broken_cost_their_chips_with_the_reason(
    served: BadServer, address: str, difffusr, configure, finished_run: Path
) -> None:
    """One tile's files are broken, on either date in another way; the other tile's chips are done."""
    served.misbehave(f"*/S2A_32TNT*/{SMALL}.tif", Fault("status", 404))
    served.misbehave(f"*/S2B_32TNT*/{SMALL}.tif", Fault("garbled"))
    path = configure(source={"static_catalog": address}, model={"sampler": "draft", "sampler_steps": None})
    ended = difffusr("run", path)
    assert ended.code == 3, ended.err
    assert "Traceback" not in ended.err
    (report,) = path.with_suffix(".staging").rglob("report.json")
    reasons = json.loads(report.read_text())["failed"].values()
    assert 0 < len(reasons) <= 10
    for reason in reasons:
        assert f", {SMALL}: {served.url}/items/S2" in reason
        assert "32TNT" in reason
        assert "HTTP response code: 404" in reason or "not recognized" in reason
        assert reason in ended.err
    seen, whole = (float((cube_of(cube).source > 0).mean()) for cube in (path, finished_run))
    assert 0.1 * whole < seen < 0.9 * whole
    assert not secrets_below(path.with_suffix(".staging"), path.with_suffix(".zarr"))
    assert SECRET not in ended.out + ended.err


def test_the_configuration_says_nothing_of_a_signature(served: BadServer, address: str, configure) -> None:
    config = load_config(configure(source={"static_catalog": f"{address}?sig={SECRET}"}))
    assert SECRET not in json.dumps(config.canonical())
