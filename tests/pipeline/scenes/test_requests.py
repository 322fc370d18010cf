"""A busy server is asked again when it says so, and not much later; what will not pass is not asked for again."""

from __future__ import annotations

import gzip
import logging
import random
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from bad_http import BadServer, Fault, bad_server
from pystac_client.exceptions import APIError
from stac_server import free_port

from difffusr.pipeline.scenes import requests
from difffusr.pipeline.scenes.requests import PatientIO, RequestFailedError, Waiting, pause_asked_for


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[BadServer]:
    (tmp_path / "a.json").write_text("{}")
    with bad_server(tmp_path) as server:
        yield server


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def https_server(folder: Path) -> Iterator[tuple[str, list[object]]]:
    """A server with a certificate of its own making; its host, and whoever said hello."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    options = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", *options, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    greeted: list[object] = []

    class Greeter(BaseHTTPRequestHandler):
        def setup(self) -> None:
            greeted.append(self.client_address)
            super().setup()

    with serving(Greeter, tls) as host:
        yield host, greeted


@contextmanager
def packing_server(body: bytes, coding: str) -> Iterator[str]:
    """A server whose answer is compressed, in chunks, or both."""

    class Packer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            sent = gzip.compress(body) if "gzip" in coding else body
            self.send_response(200)
            if "gzip" in coding:
                self.send_header("Content-Encoding", "gzip")
            if "chunked" in coding:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for k in range(0, len(sent), 10_000):
                    part = sent[k : k + 10_000]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Packer) as host:
        yield f"http://{host}/"


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7, 7),
        ("2.5", 2.5, 2.5),
        ("0", 0, 0),
        ("3600", 30, 30),
        ("9" * 400, 0, 30),
        ("inf", 0, 0),
        ("nan", 0, 0),
        ("-5", 0, 0),
        (20, 10, 20),
        (7200, 30, 30),
        (-60, 0, 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 30, 30),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0, 0),
        ("Sun, 06 Nov 1994 08:49:37", 0, 0),
        ("soon", 0, 0),
        ("7, 9", 0, 0),
        ("", 0, 0),
        (None, 0, 0),
    ],
)
def test_a_busy_server_is_given_the_time_it_asks_for_within_reason(
    asked: str | int | None, least: float, most: float
) -> None:
    if isinstance(asked, int):  # a date so many seconds from now
        asked = format_datetime(datetime.now(UTC) + timedelta(seconds=asked), usegmt=True)
    assert least <= pause_asked_for({} if asked is None else {"Retry-After": asked}) <= most


@pytest.mark.parametrize(("status", "waits"), [(413, True), (429, True), (503, True), (500, False), (502, False)])
def test_only_busy_servers_are_waited_upon(served: BadServer, status: int, waits: bool) -> None:
    served.misbehave("/a.json", Fault("status", status, retry_after=3))
    with pytest.raises(RequestFailedError) as caught:
        PatientIO(1.0)._once("GET", f"{served.url}/a.json", {}, {}, Waiting())
    assert caught.value.pause_s == (3 if waits else 0)


def test_a_pause_is_made_before_the_next_try(served: BadServer) -> None:
    served.misbehave("/a.json", Fault("status", 503, times=1, retry_after=1))
    began = time.monotonic()
    assert PatientIO(1.0).fetch(f"{served.url}/a.json") == b"{}"
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_four_times(served: BadServer, status: int) -> None:
    served.misbehave("/a.json", Fault("status", status))
    with pytest.raises(APIError) as caught:
        PatientIO(1.0).fetch(f"{served.url}/a.json")
    assert caught.value.status_code == status
    assert served.times_asked("/a.json") == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_what_will_not_pass_is_tried_once(served: BadServer, status: int) -> None:
    served.misbehave("/a.json", Fault("status", status))
    with pytest.raises(APIError):
        PatientIO(1.0).fetch(f"{served.url}/a.json")
    assert served.times_asked("/a.json") == 1


@pytest.mark.parametrize("kind", ["truncated", "stall halfway", "reset", "stall"])
@pytest.mark.parametrize("method", ["fetch", "request"])
def test_an_answer_that_breaks_off_is_asked_for_again(served: BadServer, kind: str, method: str) -> None:
    served.misbehave("/a.json", Fault(kind, times=2))  # type: ignore[arg-type]
    assert getattr(PatientIO(0.3), method)(f"{served.url}/a.json") in ("{}", b"{}")
    assert served.times_asked("/a.json") == 3


def test_no_try_begins_once_patience_is_over(served: BadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(requests, "_ATTEMPTS", 100)
    served.misbehave("/a.json", Fault("status", 503))
    began = time.monotonic()
    with pytest.raises(APIError):
        PatientIO(1.0).fetch(f"{served.url}/a.json")
    assert time.monotonic() - began < 3
    assert 1 < served.times_asked("/a.json") < 100


# ---- what is said ----------------------------------------------------------------------------------------------------


def refusal(reader: PatientIO, url: str) -> str:
    with pytest.raises(APIError) as caught:
        reader.fetch(url)
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("stall", "Read timed out, no byte for 0.1 s"),
        ("stall halfway", "Read timed out, no byte for 0.1 s"),
        ("truncated", "the answer breaks off"),
        ("reset", "Connection aborted"),
        ("status", "answers with HTTP 503"),
    ],
)
def test_a_server_that_fails_is_named_with_what_it_does(served: BadServer, kind: str, says: str) -> None:
    served.misbehave("/a.json", Fault(kind))  # type: ignore[arg-type]
    host = served.url.removeprefix("http://")
    said = refusal(PatientIO(0.1), f"http://user:SECRET@{host}/a.json?sig=SECRET")
    assert host in said
    assert says in said


@pytest.mark.parametrize("host", ["nowhere.invalid", "nowhere.invalid:8443", "ein-ü.invalid", "a..b.invalid"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_without_an_address_is_named(served: BadServer, host: str, scheme: str) -> None:
    assert host in refusal(PatientIO(0.1), f"{scheme}://{host}/a.json?sig=SECRET")


def test_a_port_without_a_server_is_named() -> None:
    host = f"127.0.0.1:{free_port()}"
    assert refusal(PatientIO(0.1), f"http://{host}/?sig=SECRET") == f"{host}: Connection refused"


def test_a_server_that_speaks_no_tls_is_named(served: BadServer) -> None:
    host = served.url.removeprefix("http://")
    said = refusal(PatientIO(0.5), f"https://{host}/a.json")
    assert said.startswith(f"{host}: no secure connection: ")


def test_a_certificate_that_nobody_vouches_for_is_named_and_asked_for_once(tmp_path: Path) -> None:
    with https_server(tmp_path) as (host, greeted):
        said = refusal(PatientIO(0.5), f"https://{host}/a.json")
    assert said.startswith(f"{host}: no secure connection: certificate verify failed")
    assert len(greeted) == 1


def test_what_takes_long_is_said_once_with_host_and_reason(
    served: BadServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(requests, "_SAY_AFTER_S", 0.1)
    served.misbehave("/a.json", Fault("stall", times=2))
    with caplog.at_level(logging.WARNING, "difffusr.catalog"):
        PatientIO(0.2).fetch(f"{served.url}/a.json")
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(f"waiting for {served.url.removeprefix('http://')} for ")
    caplog.clear()
    served.misbehave("/a.json", Fault("status", 503, times=1, retry_after=1))
    with caplog.at_level(logging.WARNING, "difffusr.catalog"):
        PatientIO(0.2).fetch(f"{served.url}/a.json")
    (said,) = (record.getMessage() for record in caplog.records)
    assert "HTTP 503; asked again after 1.0 s" in said


def test_what_comes_soon_is_not_talked_about(served: BadServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "difffusr.catalog"):
        PatientIO(1.0).fetch(f"{served.url}/a.json")
    assert not caplog.records


def test_documents_of_one_server_share_a_connection(tmp_path: Path) -> None:
    met = set()

    class Counting(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            met.add(self.client_address)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Counting) as host:
        reader = PatientIO(1.0)
        assert {reader.fetch(f"http://{host}/{k}.json") for k in range(5)} == {b"{}"}
    assert len(met) == 1


def test_an_answer_that_trickles_is_given_up(served: BadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    (served.folder / "a.json").write_bytes(b" " * 20_000)
    monkeypatch.setattr(requests, "_SLOW_S", 0.1)
    monkeypatch.setattr(requests, "_SLOW_BYTES", 1e6)
    monkeypatch.setattr(requests, "_ATTEMPTS", 1)
    served.misbehave("/a.json", Fault("slow", pause_s=0.05))
    assert "answers too slowly" in refusal(PatientIO(1.0), f"{served.url}/a.json")


@pytest.mark.parametrize("coding", ["identity", "gzip", "chunked", "gzip chunked"])
@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_an_answer_is_whole_however_it_is_packed(coding: str, size: int) -> None:
    body = random.Random(0).randbytes(size)
    with packing_server(body, coding) as url:
        assert PatientIO(1.0).fetch(url) == body
