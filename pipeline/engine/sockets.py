"""Where Ray keeps its sockets on this machine: their paths must be short, which the usual folder may not allow.

A cluster's or a container's TMPDIR easily has 60 characters. Ray puts its sockets far below it and fails to start.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from difffusr.pipeline.ground.errors import DifffusrError

log = logging.getLogger("difffusr.run")

#: Bytes of a socket's path that the system takes (`sun_path` less its end).
_PATH_BYTES = 103 if sys.platform == "darwin" else 107

#: The longest path of a socket below Ray's folder.
_BELOW = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"

#: Bytes that the folder for temporary files may have.
LONGEST = _PATH_BYTES - len(_BELOW) - len("/ray")

#: Folders that nearly every machine has, the first that can be written is taken.
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def temporary_folder() -> str:
    """Where Ray keeps its files unless it is told otherwise."""
    named = os.environ.get("RAY_TMPDIR") or (os.environ.get("TMPDIR") if sys.platform.startswith("linux") else None)
    return os.path.abspath(named or "/tmp")


@contextmanager
def room_for_sockets() -> Iterator[dict[str, Any]]:
    """Options for `ray.init` meanwhile: none where the folder for temporary files is short enough; else a short folder
    of this run's own, which only its owner may read and which is removed afterwards. What does not fit into memory is
    spilled to the long one all the same: it may be on the only large disk.

    Raises:
        DifffusrError: the folder is too long, and no short one can be written.
    """
    usual = temporary_folder()
    length = len(os.fsencode(usual))
    if length <= LONGEST:
        yield {}
        return
    name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    short = _own_folder()
    if short is None:
        raise DifffusrError(
            f"{name} = {usual} has {length} bytes, more than the {LONGEST} that Ray's sockets leave it, and none of "
            f"{', '.join(_SHORT)} can be written; set RAY_TMPDIR to a shorter folder"
        )
    said = f"{name} is too long for Ray's sockets ({length} bytes, at most {LONGEST}): they are in {short}"
    log.info("%s", said, extra={"event": "sockets"})
    spill = {"object_spilling_directory": usual} if os.access(usual, os.W_OK) else {}
    try:
        yield {"_temp_dir": short, **spill}
    finally:
        shutil.rmtree(short, ignore_errors=True)


def _own_folder() -> str | None:
    for parent in _SHORT:
        try:
            return tempfile.mkdtemp(prefix="difffusr-", dir=parent)
        except OSError:
            continue
    return None
