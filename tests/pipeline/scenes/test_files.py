"""Files that readers keep open between two chips."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import rasterio
from small_rasters import SQUARE, raster, scene_of

from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.scenes import files as reading
from difffusr.pipeline.scenes.windows import read_window


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file that is opened from now on, by readers who have none open yet."""
    found: list[str] = []
    open_file = rasterio.open

    def noted(path: Any, *rest: Any, **more: Any) -> Any:
        if not rest:
            found.append(Path(path).name)
        return open_file(path, *rest, **more)

    monkeypatch.setattr(reading, "_kept", reading._Kept())
    monkeypatch.setattr(rasterio, "open", noted)
    return found


def value(path: Path) -> int:
    pixels = read_window(scene_of(str(path)), "B04", SQUARE)
    assert (pixels == pixels[0, 0]).all()
    return int(pixels[0, 0])


def test_a_file_that_is_wanted_again_is_opened_once(tmp_path, opens):
    one, other = raster(tmp_path / "a.tif", 7), raster(tmp_path / "b.tif", 8)
    assert [value(path) for path in (one, other, one, other, one)] == [7, 8, 7, 8, 7]
    assert opens == ["a.tif", "b.tif"]


def test_a_file_that_was_replaced_is_opened_anew(tmp_path, opens):
    path = raster(tmp_path / "a.tif", 7)
    assert value(path) == 7
    raster(tmp_path / "new.tif", 9).replace(path)
    assert value(path) == 9
    with rasterio.open(path, "r+") as file:
        file.write(file.read() + 1)
    assert value(path) == 10
    path.unlink()
    with pytest.raises(ReadError, match="No such file"):
        value(path)


def test_a_file_is_checked_against_the_scene_that_wants_it(tmp_path, opens):
    path = raster(tmp_path / "a.tif", 7)
    assert value(path) == 7
    with pytest.raises(ReadError, match="its item says EPSG:32632"):
        read_window(scene_of(str(path), epsg=32632), "B04", SQUARE)


def test_a_file_whose_reading_failed_is_not_kept(tmp_path, opens, monkeypatch):
    path = raster(tmp_path / "a.tif", 7)
    scene = scene_of(str(path))
    with pytest.raises(ZeroDivisionError), reading.opened(scene, "B04", scene.assets["B04"], keep=True) as file:
        raise ZeroDivisionError
    assert file.closed
    assert value(path) == 7
    assert opens == ["a.tif"] * 2


def test_no_more_files_are_kept_than_three_scenes_have(tmp_path, opens):
    paths = [raster(tmp_path / f"{i}.tif", i + 1) for i in range(40)]
    assert [value(path) for path in paths] == list(range(1, 41))
    kept = list(reading._kept._files.values())
    assert len(kept) == reading._FILES_KEPT == 39
    assert not any(held.file.closed for held in kept)
    assert value(paths[-1]) == 40
    assert opens.count("39.tif") == 1
    assert value(paths[0]) == 1  # used longest ago: closed, and opened again
    assert opens.count("0.tif") == 2


def test_two_threads_share_no_file(tmp_path, opens):
    path = raster(tmp_path / "a.tif", 7)
    assert value(path) == 7
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(value(path)))
    thread.start()
    thread.join()
    assert found == [7]
    assert opens == ["a.tif"] * 2


@pytest.mark.parametrize("scheme", ["ftp", "file", "gopher", "dict", "ftps"])
def test_a_redirect_is_followed_to_http_alone(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.2)
        target = f"{scheme}://127.0.0.1:{other.getsockname()[1]}/B04.tif" if scheme != "file" else f"file://{__file__}"

        class Elsewhere(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(302)
                self.send_header("Location", target)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                with pytest.raises(ReadError, match="cannot be opened"):
                    read_once(f"http://127.0.0.1:{server.server_port}/B04.tif")
            finally:
                server.shutdown()
        with pytest.raises(TimeoutError):
            other.accept()


def read_once(href: str) -> None:
    """Read a file without waiting for a better answer."""
    with reading.opened(scene_of(href), "B04", scene_of(href).assets["B04"]):
        pass


@pytest.mark.parametrize(("after_s", "level"), [(0.0, "WARNING"), (10.0, "DEBUG")])
def test_what_is_waited_for_is_said_once_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, after_s: float, level: str
) -> None:
    for name, value in (("_SAID_AFTER_S", after_s), ("_FIRST_PAUSE_S", 0.001), ("_ATTEMPTS", 3)):
        monkeypatch.setattr(reading, name, value)

    def busy(_: bool) -> None:
        raise reading.PassingReadError("HTTP response code: 503")

    with caplog.at_level("DEBUG", "difffusr"), pytest.raises(reading.PassingReadError):
        reading.patiently("https://data.example:8000/B04.tif?sig=secret", busy)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [one[0] for one in said] == [level] * 2
    assert "waiting for data.example:8000 since 0 s, try 1: HTTP response code: 503" in said[0][1]
    assert "secret" not in caplog.text
