"""What overviews with chunks of one band would cost and give to the page that reads a cube by itself.

`make bench-guards` runs it; it leaves `static-map.json` beside this file. A cube of 2048 × 2048 pixels of the synthetic
world is published as always, and copied with the reflectance of its overviews written again in chunks of one band; the
page shows each in headless Chromium from a plain web server that takes 30 ms a request and sends `MB_PER_S`. Requests
and bytes are of the cube alone, and exact; seconds are until the page has drawn, in software.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from browser import CHROMIUM, needs_chromium
from machine import machine
from platformdirs import user_cache_path
from random_cubes import random_cube, window_around
from static_server import StaticServer, serving

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.readers.static_map import write_static_map
from difffusr.pipeline.scenes.synthetic.world import generate_world
from difffusr.pipeline.storage.objects import Storage

sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: it comes with difffusr[test]")

HERE = Path(__file__).resolve().parent

EPSG, LON, LAT = 32648, 105.02, 16.04
GRID = Grid(144, 24, 2048, 256)

DELAY_S, MB_PER_S = 0.03, 6.25

#: Layers that are looked at in turn, each once the one before is drawn.
TOUR = ("true-colour", "infrared", "shortwave", "ndvi", "B09")

FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@needs_chromium
@pytest.mark.bench
def test_overviews_in_chunks_of_one_band_save_bytes_of_the_first_picture_and_cost_requests_later(tmp_path, capsys):
    ground = np.rint(generate_world(size_m=(5160, 5160)).reflectance * 10_000).astype(np.uint16)
    ground = ground[:, : GRID.shard_px, : GRID.shard_px]
    place = Storage(str(tmp_path / "twelve.zarr"))
    random_cube(place, {EPSG: window_around(EPSG, LON, LAT, (1, 1), 2048)}, (1,), GRID, ground=ground)
    shutil.copytree(tmp_path / "twelve.zarr", tmp_path / "one.zarr")
    in_single_bands(tmp_path / "one.zarr")
    rows = []
    with serving(tmp_path, delay_s=DELAY_S, bytes_per_s=MB_PER_S * 1e6) as server, sync_api.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, bands in (("twelve", 12), ("one", 1)):
            try:
                cube, folder = Cube(Storage(str(tmp_path / f"{name}.zarr"))), Storage(str(tmp_path / name))
                write_static_map(cube, folder, cube_url=None, openlayers=None, cache=user_cache_path("difffusr"))
            except DifffusrError as error:
                pytest.skip(f"no OpenLayers: {error}")
            stored = sum(
                path.stat().st_size
                for level in range(1, 1 + cube.overviews(EPSG))
                for path in (tmp_path / f"{name}.zarr/{EPSG}/{level}/reflectance/c").rglob("*")
                if path.is_file()
            )
            rows.append({"bands_a_chunk": bands, "overviews_mb": stored / 1e6, "looks": tour(browser, server, name)})
        browser.close()
    twelve, one = rows
    figures = {"delay_ms": 1000 * DELAY_S, "mb_per_s": MB_PER_S, "machine": machine(), "rows": rows}
    (HERE / "static-map.json").write_text(json.dumps(figures, indent=1) + "\n")
    with capsys.disabled():
        for row in rows:
            print(f"\nchunks of {row['bands_a_chunk']} bands, overviews of {row['overviews_mb']:.2f} MB")
            for look in row["looks"]:
                print(f"  {look['layer']:12} {look['requests']:3} requests {look['mb']:6.2f} MB {look['s']:5.2f} s")
    assert one["looks"][0]["mb"] < 0.5 * twelve["looks"][0]["mb"]
    assert sum(look["requests"] for look in one["looks"]) > sum(look["requests"] for look in twelve["looks"])


def in_single_bands(cube: Path) -> None:
    """Write the reflectance of a cube's overviews again, in the same shards, with chunks of one band."""
    root = json.loads((cube / "zarr.json").read_text())
    documents = root["consolidated_metadata"]["metadata"]
    for path in [path for path in documents if path.endswith("/reflectance") and path.split("/")[1] != "0"]:
        before = zarr.open_array(cube / path, mode="r")[:]
        for codec in documents[path]["codecs"]:
            codec["configuration"]["chunk_shape"][1] = 1
        shutil.rmtree(cube / path)
        (cube / path).mkdir()
        (cube / path / "zarr.json").write_text(json.dumps(documents[path]))
        zarr.open_array(cube / path, mode="r+")[:] = before
    (cube / "zarr.json").write_text(json.dumps(root))


def tour(browser: Any, server: StaticServer, name: str) -> list[dict[str, Any]]:
    """Look at layers in turn, at the level of 10 m: requests, megabytes and seconds of each."""
    page = browser.new_page(viewport={"width": 900, "height": 600})
    looks = []
    for layer in TOUR:
        server.asked.clear()
        server.sent.clear()
        begun = time.monotonic()
        if layer == TOUR[0]:
            page.goto(f"{server.url}/{name}/#compare=nothing&layer={layer}")
        else:
            page.select_option("#layer", layer)
        page.wait_for_selector("html[data-map=settled]", timeout=60_000)
        took = time.monotonic() - begun
        asked = [path for _, path, _ in server.asked if ".zarr/" in path]
        sent = sum(size for path, size in server.sent.items() if ".zarr/" in path)
        looks.append({"layer": layer, "requests": len(asked), "mb": round(sent / 1e6, 3), "s": round(took, 2)})
    page.close()
    return looks
