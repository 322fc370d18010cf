"""Serve the map of a cube until SIGINT or SIGTERM."""

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

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.readers.view.basemap import Basemap
from difffusr.pipeline.readers.view.inputs import Inputs
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.maplibre import maplibre_files
from difffusr.pipeline.readers.view.memory import bound_memory
from difffusr.pipeline.readers.view.server import map_app
from difffusr.pipeline.storage import Storage

#: Seconds that answers in progress may take after a signal to stop.
_GRACE_S = 2


def serve_map(
    storage: Storage,
    *,
    host: str,
    port: int,
    maplibre: Path | None,
    cache: Path,
    on_ready: Callable[[str], None],
    browse: Callable[[str], object] | None,
    staging: Storage | None = None,
    config: RunConfig | None = None,
    basemap: str | None = None,
    basemap_credit: str | None = None,
) -> None:
    """Serve the map of a cube until SIGINT or SIGTERM.

    Args:
        storage: the cube.
        host: name or address to listen on.
        port: to listen on, 0 for any free one.
        maplibre, cache: see `maplibre_files`.
        on_ready: called with the map's URL once it can be opened.
        browse: called with the same URL, in a thread; None opens nothing.
        staging, config: see `Inputs`.
        basemap, basemap_credit: see `Basemap.of`; None for no map below the cube.

    Raises:
        ConfigError: cannot listen on host and port; `maplibre` has no MapLibre GL JS; `basemap` is no template.
        StoreError: the cube cannot be read.
        DifffusrError: MapLibre GL JS cannot be fetched.
    """
    bound_memory()
    # Rasterio warns about arrays in memory, whose georeference is passed separately.
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    below = None if basemap is None else Basemap.of(basemap, basemap_credit)
    if below is None and basemap_credit is not None:
        raise ConfigError("--basemap-credit: names whose basemap it is; give --basemap as well, or neither")
    with _listening(host, port) as listener:
        cube = Cube(storage)
        mapped, inputs = map_cube(cube), Inputs(cube, staging, config)
        app = map_app(mapped, maplibre_files(maplibre, cache), _names_of(host), inputs=inputs, basemap=below)
        how = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=_GRACE_S)
        url = f"http://{_in_url(host)}:{listener.getsockname()[1]}/"
        server = _Server(how, lambda: _announce(url, on_ready, browse))
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Reports when it is ready; a signal stops the server but not the program."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        self._when_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which however raises the signal again after the server has ended."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def _announce(url: str, on_ready: Callable[[str], None], browse: Callable[[str], object] | None) -> None:
    on_ready(url)
    if browse is not None:
        # A browser may start slowly; the server does not wait for it.
        threading.Thread(target=browse, args=(url,), daemon=True).start()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        # Python adds the address to the system's message. Errors of name lookup have numbers below 0.
        code = getattr(error, "errno", None) or 0
        said = os.strerror(code) if code > 0 else first_line(error)
        raise ConfigError(
            f"{host}, port {port}: cannot be listened on ({said}); choose another --port, or 0 for any free one"
        ) from None
    with listener:
        yield listener


def _names_of(host: str) -> list[str]:
    """Host names that a browser may use for a server that listens there."""
    local = ["localhost", "127.0.0.1", "[::1]"]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [host, *local] if host != "localhost" else local
    # Whoever listens on an address that others can reach accepts any name.
    return local if address.is_loopback else ["*"]


def _in_url(host: str) -> str:
    """A host as in a URL; this machine if it listens everywhere."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
