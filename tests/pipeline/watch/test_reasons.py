"""The kind of a chip's failure is known by the message that GDAL, a store or the run itself gives."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import rasterio
from rasterio.errors import RasterioIOError

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.scenes.files import GDAL_OPTIONS
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.watch.reasons import REASONS, reason_class


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """A server that answers every path with the status it begins with."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.split("/")[1]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def gdal_says(address: str, **options: str) -> str:
    """A chip's message as `pipeline.scenes.files` makes it of what GDAL says."""
    environment = rasterio.Env(**{**GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY": "0", **options})
    with environment, pytest.raises(RasterioIOError) as caught:
        rasterio.open(address)
    return f"scene S2A_404, B04: {address} cannot be opened ({first_line(caught.value)}); check that the file exists"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "http_404"), (403, "http_403"), (401, "http_403"), (429, "http_429"), (500, "http_5xx"), (503, "http_5xx")],
)
def test_a_refusal_is_known_by_its_status(refusing, status, reason):
    assert reason_class(gdal_says(f"{refusing}/{status}/x.tif")) == reason


def test_a_server_that_does_not_answer_is_a_timeout():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x.tif"
        assert reason_class(gdal_says(address, GDAL_HTTP_TIMEOUT="1")) == "timeout"
    nobody_listens_now = address.replace("x.tif", "y.tif")  # of x.tif GDAL remembers that it is not there
    assert reason_class(gdal_says(nobody_listens_now)) == "timeout"


def test_a_file_that_is_no_raster_is_damaged(tmp_path):
    (tmp_path / "x.tif").write_bytes(b"garbage" * 100)
    assert reason_class(gdal_says(str(tmp_path / "x.tif"))) == "damaged"


def test_a_file_that_is_not_there_is_missing(tmp_path):
    assert reason_class(gdal_says(str(tmp_path / "x.tif"))) == "missing"


def test_a_store_that_refuses_is_the_store_s_failure(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        Storage(str(tmp_path / "file")).write("chips/1.chip", b"x")
    assert reason_class(str(caught.value)) == "store"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("scene A, B02: /a.tif has CRS EPSG:32647, its item says EPSG:32648; correct the item", "crs"),
        (
            "scene A, B02: /a.tif has the transform (10.0,), expected north-up pixels of 10 m on the zone's lattice",
            "crs",
        ),
        ("scene A, B02: /a.tif is damaged or incomplete (Read failed. See previous exception for details.)", "damaged"),
        ("scene A, B02: /a.tif is damaged or incomplete (CURL error: Operation timed out after 60000 ms)", "timeout"),
        ("scene A, B02: /404.tif is damaged or incomplete (TIFFReadEncodedTile failed)", "damaged"),
        ("s3://b/cube.staging/chips/1: cannot be written (SlowDown); check the store's URL", "http_429"),
        ("s3://b/cube.staging/chips/1: cannot be written (No space left on device); check", "store"),
        (
            "super_resolve: given up after 3 workers ended or stalled at it; the workers' memory may not be enough",
            "stall",
        ),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "memory"),
        ("KeyError: 'B04'", "other"),
        ("", "other"),
    ],
)
def test_messages_of_the_pipeline_have_a_reason(message, reason):
    assert reason_class(message) == reason
    assert reason in REASONS
