"""What a source makes large takes neither memory nor time: it is refused in one line, and the rest goes on."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import math
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
import rasterio
from bad_http import QuietServer
from paged_api import Answer, PagedApi, paged_api
from shapely.geometry import box
from small_rasters import SQUARE, raster, scene_of

from difffusr.pipeline.ground.errors import CatalogError, ReadError
from difffusr.pipeline.scenes import answers, documents, pages, requests
from difffusr.pipeline.scenes.documents import items_of
from difffusr.pipeline.scenes.fields import MOST_CORNERS, footprint_of
from difffusr.pipeline.scenes.left_out import ItemError
from difffusr.pipeline.scenes.question import Search
from difffusr.pipeline.scenes.windows import read_overview, read_window

# ---- rasters ---------------------------------------------------------------------------------------------------------


def sparse(path, side: int, block: int, **more) -> str:
    """A file of zeros that holds none of them."""
    profile = {"driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "uint16", "crs": "EPSG:32648"}
    place = {"transform": rasterio.Affine(10, 0, 600_000, 0, -10, 1_200_000), "tiled": True}
    with rasterio.open(
        path, "w", **profile, **place, blockxsize=block, blockysize=block, sparse_ok=True, bigtiff="YES",
        compress="deflate", **more,
    ):  # fmt: skip
        return str(path)


READS = {
    "window": lambda scene: read_window(scene, "B04", SQUARE),
    "overview": lambda scene: read_overview(scene, "B04", 640),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("side", [22_016, 100_000, 400_000])
def test_a_file_wider_than_two_tiles_is_refused(tmp_path, read, side):
    path = sparse(tmp_path / "wide.tif", side, 4096)
    with pytest.raises(ReadError, match=rf"has {side:,} × {side:,} pixels of 10 m, at most 22,000 a side are read"):
        READS[read](scene_of(path))


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("block", [12_288, 16_384, 32_768])
def test_a_file_whose_blocks_do_not_fit_into_memory_is_refused(tmp_path, read, block):
    path = sparse(tmp_path / "block.tif", 10_980, block)
    with pytest.raises(ReadError, match=rf"has blocks of {block:,} × {block:,} pixels, [\d,]+ MB each, at most 256"):
        READS[read](scene_of(path))


def test_an_overview_whose_blocks_do_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    path = sparse(tmp_path / "overview.tif", 10_980, 512)
    with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE="2048"), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    monkeypatch.setattr("difffusr.pipeline.scenes.checks._LARGEST_BLOCK", 2 << 20)
    with pytest.raises(ReadError, match="overview 1, has blocks of 2,048 × 2,048 pixels"):
        read_overview(scene_of(path), "B04", 640)


@pytest.mark.parametrize("block", [256, 1024, 10_992])
def test_a_whole_tile_is_read_in_whatever_blocks_it_has(tmp_path, block):
    path = sparse(tmp_path / "tile.tif", 10_980, block)
    if block < 10_000:  # else for what is declared alone: it takes a quarter of a gigabyte
        assert read_overview(scene_of(path), "B04", 640)[0].shape == (172, 173)
    with rasterio.open(path) as file:
        assert math.prod(file.block_shapes[0]) * 2 <= 256 << 20


@pytest.mark.parametrize("nodata", ["1e999", "inf", "nan", "-1e999", "99999", "-1", "1e400", "nothing"])
def test_a_nodata_value_that_no_pixel_can_have_stands_for_nothing(tmp_path, nodata):
    path = raster(tmp_path / "a.tif", 7)
    with rasterio.open(path, "r+") as file:
        file.nodata = 77
    data = path.read_bytes()
    tag, text = data.index(struct.pack("<HH", 42113, 2)), nodata.encode() + b"\0"
    place = text.ljust(4, b"\0") if len(text) <= 4 else struct.pack("<I", len(data))
    path.write_bytes(data[: tag + 4] + struct.pack("<I", len(text)) + place + data[tag + 12 :] + text)
    assert (read_window(scene_of(str(path)), "B04", SQUARE) == 7).all()


# ---- catalogues ------------------------------------------------------------------------------------------------------


def search_of(api: PagedApi) -> Search:
    day = dt.datetime(2023, 6, 1, tzinfo=dt.UTC)
    return Search("stac_api", api.url, None, day, day, (), 100.0, None, box(10, 46, 11, 47))


@contextmanager
def endless_api(items: int) -> Iterator[PagedApi]:
    """An API whose every page has so many new items and leads to another."""

    def answer(asked):
        first = int(asked.query.get("token", 0))
        new = [{"type": "Feature", "id": f"i{k}", "collection": "c"} for k in range(first, first + items)]
        link = {"rel": "next", "href": f"{api.url}/search?token={first + items}"}
        return Answer({"type": "FeatureCollection", "features": new, "links": [link]})

    with paged_api(answer) as api:
        yield api


def test_pages_without_end_are_given_up(monkeypatch):
    monkeypatch.setattr(pages, "MOST_PAGES", 20)
    with endless_api(10) as api, pytest.raises(CatalogError, match="its pages do not end: 200 items on 21 pages"):
        list(items_of(search_of(api)))
    assert len(api.limits()) == 21


def test_items_without_end_are_given_up(monkeypatch):
    monkeypatch.setattr(pages, "MOST_ITEMS", 1000)
    with endless_api(400) as api, pytest.raises(CatalogError, match="choose a smaller area or a shorter period"):
        list(items_of(search_of(api)))


@pytest.mark.parametrize("body", [b"\0" * (40 << 20), b" " * (40 << 20), b'{"features": [' + b"{}," * (10 << 20)])
def test_a_page_that_explodes_is_one_line(monkeypatch, body):
    monkeypatch.setattr(answers, "LARGEST_ANSWER", 8 << 20)
    packed = gzip.compress(body, 1)
    with (
        paged_api(lambda _: Answer(packed, headers={"Content-Encoding": "gzip"})) as api,
        pytest.raises(CatalogError, match="has more than 8 MB, decoded") as caught,
    ):
        list(items_of(search_of(api)))
    assert "\n" not in str(caught.value)


def test_catalogues_without_end_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MOST_CATALOGS", 30)
    for k in range(100):
        links = [{"rel": "child", "href": f"./{2 * k + d}.json"} for d in (1, 2)]
        (tmp_path / f"{k}.json").write_text(json.dumps({"type": "Catalog", "id": f"c{k}", "links": links}))
    search = search_of(PagedApi(str(tmp_path / "0.json"), lambda _: None))
    search.kind = "static_catalog"
    with pytest.raises(CatalogError, match="links to more than 30 catalogues"):
        list(items_of(search))


@contextmanager
def dripping(head: bytes, pause_s: float):
    """A server that sends a byte now and then, after a head or from its first byte on."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(head)
            while not over.wait(pause_s):
                self.wfile.write(b"x")

        def log_message(self, format: str, *args: object) -> None: ...

    server = QuietServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        over.set()
        server.shutdown()
        server.server_close()


HEADS = {
    "status line": b"HTTP/1.1 2",
    "header": b"HTTP/1.1 200 OK\r\nX-Slow: ",
    "body": b"HTTP/1.1 200 OK\r\n\r\n",
    "body of known length": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    "size of a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0",
}


@pytest.mark.parametrize("head", HEADS)
def test_an_answer_that_drips_is_given_up_wherever_it_does(monkeypatch, head):
    monkeypatch.setattr(requests, "_LONGEST_ANSWER_S", 0.3)
    monkeypatch.setattr(requests, "_FIRST_PAUSE_S", 0.001)
    began = time.monotonic()
    with dripping(HEADS[head], 0.01) as url, pytest.raises(requests.RequestFailedError) as caught:
        requests.PatientIO(5.0).fetch(url)
    assert "127.0.0.1" in str(caught.value)
    assert time.monotonic() - began < 20


# ---- footprints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corners", [5, 500, MOST_CORNERS - 1, MOST_CORNERS + 1, 30_000])
def test_a_footprint_of_too_many_corners_is_its_items_fault(corners):
    turn = np.linspace(0, 2 * np.pi, corners)
    ring = np.column_stack([10 + np.cos(turn), 46 + np.sin(turn)]).tolist()
    item = {"id": "a", "geometry": {"type": "Polygon", "coordinates": [[*ring[:-1], ring[0]]]}}
    if corners <= MOST_CORNERS:
        assert footprint_of(item).area > 1.9
        return
    with pytest.raises(ItemError, match="at most 10,000 are read"):
        footprint_of(item)
