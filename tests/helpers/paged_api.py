"""A STAC API on this machine that pages, fails and redirects as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from bad_http import QuietServer


@dataclass
class Asked:
    """A request: `query` is that of a GET, or the body of a POST."""

    method: str
    path: str
    query: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def limit(self) -> int:
        """How many items it asks for."""
        return int(self.query.get("limit", 10))


@dataclass
class Answer:
    """What is answered: JSON, or bytes as they are. `cut` bytes are promised and not sent."""

    content: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0


@dataclass
class PagedApi:
    """The API: `search` answers what is asked of /search, everything else is the root document."""

    url: str
    search: Callable[[Asked], Answer | None]
    method: str = "POST"
    asked: list[Asked] = field(default_factory=list)
    root: Callable[[Asked], Answer | None] = lambda _: None

    def limits(self) -> list[int]:
        """How many items each search asked for, in order."""
        return [one.limit for one in self.asked if one.path == "/search"]

    def root_document(self) -> dict[str, Any]:
        """A catalogue with a search."""
        link = {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json", "method": self.method}
        return {
            "type": "Catalog",
            "id": "api",
            "stac_version": "1.0.0",
            "description": "items in pages",
            "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
            "links": [link],
        }


def page_of(items: list[Any], next_link: dict[str, Any] | None = None, **more: Any) -> Answer:
    """A page of items."""
    links = [] if next_link is None else [{"rel": "next", **next_link}]
    return Answer({"type": "FeatureCollection", "features": items, "links": links, **more})


@contextmanager
def paged_api(search: Callable[[Asked], Answer | None], method: str = "POST") -> Iterator[PagedApi]:
    """Serve on loopback until the block is left. An answer None is a connection that is hung up."""
    api = PagedApi("", search, method)
    server = QuietServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    api.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    api: PagedApi

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = json.loads(body) if body else dict(parse_qsl(parts.query))
        asked = Asked(self.command, parts.path, query, dict(self.headers))
        self.api.asked.append(asked)
        if parts.path == "/search":
            answer = self.api.search(asked)
            if answer is None:
                self.close_connection = True
                return
        else:
            answer = self.api.root(asked) or Answer(self.api.root_document())
        content = answer.content if isinstance(answer.content, bytes) else json.dumps(answer.content).encode()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content) + answer.cut))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """The test looks at `asked`."""
