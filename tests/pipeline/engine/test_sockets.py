"""Ray starts wherever temporary files are kept: if its sockets' paths would be too long, they have a short folder."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from difffusr.pipeline.engine import sockets
from difffusr.pipeline.engine.session import cluster
from difffusr.pipeline.engine.sockets import LONGEST, room_for_sockets, temporary_folder
from difffusr.pipeline.ground.errors import DifffusrError


def folder_of(parent: Path, length: int) -> Path:
    """A folder whose path has so many bytes."""
    missing = length - len(os.fsencode(parent)) - 1
    assert missing > 0, "pytest's own folder is too long for this test"
    parts = []
    while missing > 200:
        parts.append("x" * 100)
        missing -= 101
    folder = parent.joinpath(*parts, "t" * missing)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def temporary(monkeypatch, tmp_path_factory):
    """Set TMPDIR, or another variable, to a folder of so many bytes."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)

    def set_to(length: int, name: str = "TMPDIR") -> Path:
        folder = folder_of(tmp_path_factory.mktemp("t"), length)
        monkeypatch.setenv(name, str(folder))
        return folder

    return set_to


def test_a_folder_may_be_as_long_as_the_longest_socket_leaves_it():
    longest = f"/{'t' * (LONGEST - 1)}/ray/session_2026-11-28_07-59-31_123456_4194304/sockets/plasma_store"
    assert len(longest) == 107
    assert len(f"{longest}.1") > 107
    # what the system itself says of such a path
    with socket.socket(socket.AF_UNIX) as one, pytest.raises(FileNotFoundError):
        one.connect(longest)
    with socket.socket(socket.AF_UNIX) as one, pytest.raises(OSError, match="too long"):
        one.connect(f"{longest}/")


def test_a_short_folder_is_left_to_ray(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    for short in (None, "/tmp", f"/{'t' * (LONGEST - 1)}"):
        monkeypatch.delenv("TMPDIR", raising=False)
        if short:
            monkeypatch.setenv("TMPDIR", short)
        with room_for_sockets() as options:
            assert options == {}


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("length", [72, 110, 250])
def test_a_long_folder_is_gone_round_by_one_that_is_private_and_passing(temporary, caplog, length, name):
    usual = temporary(length, name)
    with caplog.at_level("INFO", "difffusr"), room_for_sockets() as options:
        short = Path(options["_temp_dir"])
        assert len(str(short)) <= LONGEST
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
        assert options["object_spilling_directory"] == str(usual)
        (short / "session").mkdir()
    assert not short.exists()
    (said,) = caplog.messages
    assert said.startswith(f"{name} is too long for Ray's sockets ({length} bytes, at most {LONGEST}): they are in /")


def test_umlauts_count_as_the_bytes_that_they_are(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", f"/tmp/{'ü' * ((LONGEST - 5) // 2 + 1)}")
    assert len(temporary_folder()) < LONGEST
    with room_for_sockets() as options:
        assert "_temp_dir" in options


def test_where_no_short_folder_can_be_written_one_line_says_what_to_do(temporary, monkeypatch):
    usual = temporary(90)
    monkeypatch.setattr(sockets, "_SHORT", ("/proc/none", "/nowhere"))
    with pytest.raises(DifffusrError) as caught, room_for_sockets():
        pass
    assert str(caught.value) == (
        f"TMPDIR = {usual} has 90 bytes, more than the {LONGEST} that Ray's sockets leave it, and none of /proc/none, "
        "/nowhere can be written; set RAY_TMPDIR to a shorter folder"
    )


STARTED = """
import json, os, sys
from types import SimpleNamespace
from difffusr.pipeline.engine.session import cluster

with cluster(SimpleNamespace(compute=SimpleNamespace(address=None))):
    import ray
    session = ray._private.worker._global_node.get_session_dir_path()
    print(json.dumps({"session": session, "answer": ray.get(ray.remote(num_cpus=0)(lambda: 5).remote())}), flush=True)
"""


@pytest.mark.slow  # where the sockets go is tested above; every run of the suite starts Ray
def test_ray_starts_below_a_long_folder(temporary):
    temporary(110)
    ended = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["answer"] == 5
    assert not Path(told["session"]).exists()


@pytest.mark.parametrize(
    "trouble", [OSError(28, "No space left on device"), ValueError("no such GPU"), RuntimeError("x")]
)
def test_what_keeps_ray_from_starting_is_one_line_about_this_machine(monkeypatch, trouble):
    import ray

    def refuse(**_: object) -> None:
        raise trouble

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    config = SimpleNamespace(compute=SimpleNamespace(address=None))
    says = r"^Ray cannot be started on this machine \(.+\); check that /.+ can be written"
    with pytest.raises(DifffusrError, match=says), cluster(config):
        pass
