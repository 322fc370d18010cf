"""The command serves until it is told to stop, and says why it cannot."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import closing

import pytest

from difffusr.pipeline import readers
from difffusr.pipeline.readers.view import maplibre

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine


def test_what_is_no_cube_is_said(view, tmp_path):
    code, _, error = view(tmp_path / "nothing.zarr")
    assert (code, error.count("\n")) == (1, 1)
    assert "nothing.zarr: holds no cube" in error


def test_port_that_is_taken_is_said(view, storage):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        code, _, error = view(storage.url, "--port", other.getsockname()[1])
    assert (code, error.count("\n")) == (2, 1)
    assert "cannot be listened on (Address already in use); choose another --port" in error


def test_address_that_is_not_this_machine_s_is_said(view, storage):
    code, _, error = view(storage.url, "--host", "no-such-host.invalid")
    assert (code, error.count("\n")) == (2, 1)
    assert "no-such-host.invalid, port 0: cannot be listened on" in error


def test_missing_packages_are_named(view, storage, monkeypatch):
    monkeypatch.delattr(readers.view, "serve_map", raising=False)
    monkeypatch.delitem(sys.modules, "difffusr.pipeline.readers.view.serve", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, error = view(storage.url)
    assert (code, error.count("\n")) == (2, 1)
    assert "view needs the package uvicorn: pip install 'difffusr[view]'" in error


@pytest.mark.parametrize("order", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_command_says_where_and_ends_when_told_to(storage, tmp_path, order):
    for name in maplibre.FILES:
        (tmp_path / name).write_text("")
    start = "from difffusr.pipeline.commands.cli import main; main()"
    words = [sys.executable, "-c", start, "view", storage.url, "--no-browser", "--maplibre", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        line = command.stdout.readline()
        assert line.startswith("http://127.0.0.1:")
        with socket.create_connection(("127.0.0.1", int(line.split("/")[2].split(":")[1]))):
            pass
        command.send_signal(order)
        out, err = command.communicate(timeout=30)
    assert (command.returncode, out, err) == (0, "", "")
