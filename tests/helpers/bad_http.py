"""A web server on this machine that serves a folder, and misbehaves where and how it is told to."""

from __future__ import annotations

import fnmatch
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit


@dataclass
class Fault:
    """How requests for some paths are answered.

    Attributes:
        kind: "status" (an error), "stall" (accepts and never answers), "stall halfway", "truncated" (promises all,
            sends half, hangs up), "reset" (hangs up at once), "garbled" (other bytes, as many as asked for), "slow".
        status: of "status".
        times: so many requests, then all is well; None: always.
        first_byte: only requests for bytes from here on; the file's beginning is well.
        method: only requests of this kind; "": all.
        retry_after: seconds, as the header says.
        pause_s: of "slow", before every kilobyte.
    """

    kind: Literal["status", "stall", "stall halfway", "truncated", "reset", "garbled", "slow"]
    status: int = 503
    times: int | None = None
    first_byte: int = 0
    method: str = ""
    retry_after: int | None = None
    pause_s: float = 0.05


@dataclass
class BadServer:
    """The server's address, what it was asked for, and what it does wrong.

    Attributes:
        secret: when set, files that end in .tif are given only to whoever asks with `?sig=` and this.
        asked: method, path and status of every request, in order.
    """

    folder: Path
    url: str = ""
    secret: str = ""
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    _faults: list[tuple[str, Fault]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def misbehave(self, pattern: str, fault: Fault) -> None:
        """Answer requests for paths that match a pattern with a fault; of several the first."""
        self._faults.append((pattern, fault))

    def behave(self) -> None:
        """No more faults."""
        self._faults.clear()

    def times_asked(self, pattern: str, status: int | None = None) -> int:
        """How often paths that match were asked for, and answered with a status."""
        return sum(fnmatch.fnmatch(path, pattern) and status in (None, code) for _, path, code in self.asked)

    def note(self, method: str, path: str, status: int) -> None:
        """Remember a request."""
        with self._lock:
            self.asked.append((method, path, status))

    def fault_of(self, path: str, first_byte: int, method: str) -> Fault | None:
        """What to do wrong now."""
        with self._lock:
            for pattern, fault in self._faults:
                meant = fnmatch.fnmatch(path, pattern) and fault.method in ("", method)
                if meant and first_byte >= fault.first_byte and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None


@contextmanager
def bad_server(folder: Path) -> Iterator[BadServer]:
    """Serve a folder on loopback until the block is left."""
    told = BadServer(folder)
    handler = type("Handler", (_Handler,), {"told": told})
    server = QuietServer(("127.0.0.1", 0), handler)
    told.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield told
    finally:
        told.over.set()  # whoever is kept waiting goes home
        server.shutdown()
        server.server_close()


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that hang up, and waits for none."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 120
    told: BadServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        file = (self.told.folder / parts.path.lstrip("/")).resolve()
        data = file.read_bytes() if file.is_file() and file.is_relative_to(self.told.folder.resolve()) else None
        first, last = self._range(len(data or b""))
        fault = self.told.fault_of(parts.path, first, self.command)
        if fault is not None and fault.kind in ("stall", "reset"):
            self.told.note(self.command, parts.path, 0)
            if fault.kind == "stall":
                self.told.over.wait()
            self.close_connection = True
        elif fault is not None and fault.kind == "status":
            self._answer(fault.status, b"the server is as it is\n", retry_after=fault.retry_after)
        elif self.told.secret and parts.path.endswith(".tif") and parts.query != f"sig={self.told.secret}":
            self._answer(403, b"a signature is needed\n")
        elif data is None:
            self._answer(404, b"no such file\n")
        else:
            whole = len(data)
            partial = "Range" in self.headers
            content = data[first : last + 1]
            where = f"bytes {first}-{last}/{whole}" if partial else None
            self._answer(206 if partial else 200, content, fault, content_range=where)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _range(self, size: int) -> tuple[int, int]:
        """First and last byte asked for."""
        given = self.headers.get("Range", "").removeprefix("bytes=").split(",")[0]
        first, dash, last = given.partition("-")
        if not dash:
            return 0, size - 1
        if not first:
            return max(size - int(last), 0), size - 1
        return int(first), min(int(last or size), size - 1)

    def _answer(
        self,
        status: int,
        body: bytes,
        fault: Fault | None = None,
        content_range: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.told.note(self.command, urlsplit(self.path).path, status)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        if content_range is not None:
            self.send_header("Content-Range", content_range)
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self._send(body, fault)
        except OSError:  # who asked has given up
            self.close_connection = True

    def _send(self, body: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault is not None else ""
        if kind in ("truncated", "stall halfway"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if kind == "stall halfway":
                self.told.over.wait()
            self.close_connection = True
        elif kind == "garbled":
            self.wfile.write(random.Random(0).randbytes(len(body)))
        elif kind == "slow":
            assert fault is not None
            for start in range(0, len(body), 1024):
                self.told.over.wait(fault.pause_s)
                self.wfile.write(body[start : start + 1024])
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The test looks at `asked`."""
