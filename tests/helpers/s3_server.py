"""A real S3 server on loopback: moto's, without what leads requests to its other services, which costs a fifth more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Silent(WSGIRequestHandler):
    """Logs nothing."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """See `WSGIRequestHandler`."""


@contextmanager
def s3_server() -> Iterator[str]:
    """Its address. It forgets everything at its end."""
    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
