"""Serve the map of a cube until told to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from rasterio.errors import NotGeoreferencedWarning

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.maplibre import maplibre_files
from difffusr.pipeline.readers.view.server import map_app
from difffusr.pipeline.storage.objects import Storage

#: Seconds that answers on their way may take after the order to stop.
_GRACE_S = 2


def serve_map(
    storage: Storage,
    *,
    host: str,
    port: int,
    maplibre: Path | None,
    cache: Path,
    told: Callable[[str], None],
    browse: Callable[[str], object] | None,
) -> None:
    """Serve the map of a cube until SIGINT or SIGTERM.

    Args:
        storage: the cube.
        host: name or address to listen at.
        port: to listen at, 0 for any that is free.
        maplibre, cache: see `maplibre_files`.
        told: called with the map's URL once it can be opened.
        browse: called with the same URL; None opens nothing.

    Raises:
        ConfigError: host and port cannot be listened at; `maplibre` holds no MapLibre GL JS.
        StoreError: the cube cannot be read.
        DifffusrError: MapLibre GL JS cannot be had.
    """
    # Rasterio says it of arrays in memory whose place it is told beside them.
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    with _listening(host, port) as listener:
        cube = map_cube(Cube(storage))
        app = map_app(cube, maplibre_files(maplibre, cache), _names_of(host))
        config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=_GRACE_S)
        url = f"http://{_in_url(host)}:{listener.getsockname()[1]}/"
        server = _Server(config, lambda: _announce(url, told, browse))
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says when it answers; a signal ends it and nothing more."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        self._when_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own raises the signal anew when the server has ended."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def _announce(url: str, told: Callable[[str], None], browse: Callable[[str], object] | None) -> None:
    told(url)
    if browse is not None:
        # A browser may take its time to start: the server does not wait for it.
        threading.Thread(target=browse, args=(url,), daemon=True).start()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        # Python adds the address to the system's own words; what names mean has numbers of its own, below 0.
        code = getattr(error, "errno", None) or 0
        said = os.strerror(code) if code > 0 else first_line(error)
        raise ConfigError(
            f"{host}, port {port}: cannot be listened at ({said}); choose another --port, or 0 for any that is free"
        ) from None
    with listener:
        yield listener


def _names_of(host: str) -> list[str]:
    """Names by which a browser may call a server that listens there."""
    local = ["localhost", "127.0.0.1", "[::1]"]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [host, *local] if host != "localhost" else local
    # Who listens at an address that others reach has chosen to be called by whatever name.
    return local if address.is_loopback else ["*"]


def _in_url(host: str) -> str:
    """A host as a URL has it, on this machine where it listens everywhere."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
