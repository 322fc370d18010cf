"""A real STAC API on this machine, with pages and all."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("rustac")


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def stac_server(file: str, *options: str, folder: Path | None = None) -> Iterator[str]:
    """Serve a file on loopback until the block is left; its address. Skips where rustac is not installed."""
    if not PROGRAM.is_file():
        pytest.skip("rustac is not installed")
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [PROGRAM, "serve", "--addr", address, *options, file],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{address}/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(10)
