"""Compiled GPU kernels, shared by the actors of a cube's runs: one compiles them, the others load them.

Triton compiles each kernel at its first call (all in bfloat16 for an H100, without one: 14 core seconds) and
keeps what it made in a folder. That folder, packed, lies in the cube's staging folder, once for every kind of GPU and
version of what compiles: `kernels/<kind>.zip`. Whoever can write to a cube's staging folder runs code on its workers
anyway.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.metadata
import io
import json
import logging
import os
import platform
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.storage import Storage, cube_staging_of

log = logging.getLogger("difffusr.kernels")

#: What names Triton its folder.
_FOLDER = "TRITON_CACHE_DIR"

#: Files of Triton's folder: a kernel's key, then a name. Anything else in a package is not unpacked.
_FILE = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-][A-Za-z0-9_.-]*")

#: Bytes that a package may hold unpacked: some tens of megabytes are usual.
_MOST_BYTES = 512 << 20


def kernels_of(config: RunConfig) -> AbstractContextManager[None]:
    """`shared_kernels` for an actor's process; nothing where it has no GPU or compiles nothing."""
    import torch

    compute = config.compute
    if compute.execution == "eager" or compute.gpus_per_actor == 0 or not torch.cuda.is_available():
        return nullcontext()
    return shared_kernels(cube_staging_of(config), torch.cuda.get_device_name())


@contextmanager
def shared_kernels(staging: Storage, gpu: str) -> Iterator[None]:
    """Compile nothing meanwhile that an actor has compiled before, and leave to others what is compiled.

    What fails here costs time and nothing else: it is logged, and kernels are compiled. A folder that the environment
    names is used as it is, and nothing is shared.

    Args:
        staging: the cube's staging folder.
        gpu: its name.
    """
    if os.environ.get(_FOLDER):
        yield
        return
    folder = Path(
        tempfile.mkdtemp(prefix="difffusr-kernels-")
    )  # only this process may write here: it runs what it finds
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[_FOLDER] = str(folder)
    name = f"kernels/{_kind(gpu)}.zip"
    before = _fetched(staging, name, folder)
    yield
    if _files(folder) - before:
        _share(staging, name, folder)


def _kind(gpu: str) -> str:
    """What compiled kernels are good for: a kind of GPU, versions of Triton and torch, a platform."""
    versions = [f"{package}-{_version(package)}" for package in ("triton", "torch", "difffusr")]
    words = [gpu, *versions, platform.machine(), platform.python_version()]
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', gpu)}_{digest}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _fetched(staging: Storage, name: str, folder: Path) -> set[str]:
    """Unpack what the staging folder has; returns the files."""
    try:
        if staging.exists(name):
            _unpack(staging.read(name), folder)
    except Exception as error:  # whatever is wrong with the package
        log.warning("%s/%s: is not used (%s); kernels are compiled anew", staging.url, name, first_line(error))
        for part in folder.iterdir():
            shutil.rmtree(part, ignore_errors=True)
    return _files(folder)


def _share(staging: Storage, name: str, folder: Path) -> None:
    """Pack the folder. Of several actors the last one's package stays: each holds what its actor needed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as package:
        for file in sorted(_files(folder)):
            package.write(folder / file, file)
    try:
        staging.write(name, packed.getvalue())
    except StoreError as error:
        log.warning("%s; other actors compile their kernels themselves", first_line(error))


def _files(folder: Path) -> set[str]:
    """Complete files below the folder, by their names in a package."""
    names = (path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file())
    return {name for name in names if _FILE.fullmatch(name) and not name.endswith("/lock")}


def _unpack(data: bytes, folder: Path) -> None:
    """Unpack a package. Raises ValueError where it is larger than any of ours, and what zipfile and zlib raise."""
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        entries = [entry for entry in package.infolist() if _FILE.fullmatch(entry.filename)]
        if sum(entry.file_size for entry in entries) > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MB unpacked")
        if (broken := package.testzip()) is not None:
            raise zipfile.BadZipFile(f"{broken} is damaged")
        for entry in entries:
            path = folder / entry.filename
            path.parent.mkdir(exist_ok=True)
            content = package.read(entry)
            if path.name.startswith("__grp__"):
                content = _moved(content, path.parent)
            path.write_bytes(content)


def _moved(group: bytes, folder: Path) -> bytes:
    """A group's list of its files, which names them by their full paths, as it is in another folder."""
    listed = json.loads(group)
    paths = {name: str(folder / Path(path).name) for name, path in listed["child_paths"].items()}
    return json.dumps({**listed, "child_paths": paths}).encode()
