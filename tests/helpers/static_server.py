"""A plain web server over a folder: parts of files, a delay for each answer, and what object stores allow other
origins (CORS)."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

#: Everybody shares it.
_LINE = threading.Lock()


@dataclass
class StaticServer:
    """A running server.

    Attributes:
        root: the folder.
        url: without a slash at its end.
        asked: method, path and Range of every request, in turn.
        sent: bytes of answers' bodies, by path.
        delay_s: before each answer.
        bytes_per_s: of all answers together.
        parts: whether it answers Range.
        cors: rules as S3 has them (`AllowedOrigins`, `AllowedMethods`, …); none allows no other origin.
        broken: status by path, for what it refuses.
        instead: bytes by path, for what it sends instead of a file.
    """

    root: Path
    url: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    delay_s: float = 0.0
    bytes_per_s: float = float("inf")
    parts: bool = True
    cors: Sequence[Mapping[str, Any]] = ()
    broken: dict[str, int] = field(default_factory=dict)
    instead: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def serving(root: Path, **how: Any) -> Iterator[StaticServer]:
    """Serve a folder meanwhile."""
    server = StaticServer(root, **how)
    handler = type("Handler", (_Handler,), {"server_": server})
    with _Server(("127.0.0.1", 0), handler) as running:
        server.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        running.shutdown()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A browser that is closed takes its connections with it."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_: StaticServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_OPTIONS(self) -> None:
        """What browsers ask before they ask another origin for something out of the usual."""
        self._begin()
        method = self.headers.get("Access-Control-Request-Method", "")
        wanted = re.split(r"\s*,\s*", self.headers.get("Access-Control-Request-Headers", "").lower())
        rule = self._rule(method)
        allowed = rule and all(any(fnmatchcase(one, may.lower()) for may in rule["AllowedHeaders"]) for one in wanted)
        headers = {"Access-Control-Allow-Methods": method, "Access-Control-Allow-Headers": ", ".join(wanted)}
        self._send(200 if allowed else 403, b"", headers if allowed else {})

    def _begin(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server_.asked.append((self.command, path, self.headers.get("Range", "")))
        time.sleep(self.server_.delay_s)

    def _answer(self) -> None:
        self._begin()
        path = unquote(urlsplit(self.path).path)
        file = self.server_.root / path.lstrip("/")
        if file.is_dir():
            file /= "index.html"
        if status := self.server_.broken.get(path):
            return self._send(status, b"")
        if not file.is_file():
            return self._send(404, b"not here")
        data, status = self.server_.instead.get(path) or file.read_bytes(), 200
        headers = {"Content-Type": _TYPES.get(file.suffix, "application/octet-stream"), "ETag": f'"{len(data)}"'}
        given = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if given and self.server_.parts:
            first = int(given[1]) if given[1] else max(len(data) - int(given[2]), 0)
            last = min(int(given[2]), len(data) - 1) if given[1] and given[2] else len(data) - 1
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        self._send(status, data, headers)

    def _rule(self, method: str) -> Mapping[str, Any] | None:
        origin = self.headers.get("Origin", "")
        for rule in self.server_.cors:
            if method in rule["AllowedMethods"] and any(fnmatchcase(origin, may) for may in rule["AllowedOrigins"]):
                return rule
        return None

    def _send(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        method = self.headers.get("Access-Control-Request-Method", self.command)
        if (origin := self.headers.get("Origin")) and (rule := self._rule(method)):
            self.send_header("Access-Control-Allow-Origin", "*" if "*" in rule["AllowedOrigins"] else origin)
            self.send_header("Access-Control-Expose-Headers", ", ".join(rule["ExposeHeaders"]))
            self.send_header("Vary", "Origin")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.server_.sent[unquote(urlsplit(self.path).path)] += len(data)
            with _LINE:
                time.sleep(len(data) / self.server_.bytes_per_s)
            self.wfile.write(data)
