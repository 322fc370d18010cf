"""Versions of an object: files written whole, and writes that replace one version only.

A file that was written outlives a loss of power: its bytes are on the disk before it gets its name, and its name is
before the call returns. Where that costs too much for what can be made again, a writer says so (`durable`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

Placed = TypeVar("Placed")

#: Seconds that a write waits for another one in the same folder. It takes a moment, unless its process is stopped.
_PATIENCE_S = 10.0

#: What S3 calls an object that is not the one that was meant.
_CHANGED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


def tag_of(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """What tells this version of an object from every other; empty if there is no such object."""
    if isinstance(fs, LocalFileSystem):
        return _file_tag(Path(path))
    fs.invalidate_cache()
    try:
        return listed_tag(fs, path, fs.info(path))
    except FileNotFoundError:
        return ""


def listed_tag(fs: fsspec.AbstractFileSystem, path: str, facts: Mapping[str, Any]) -> str:
    """As `tag_of`, of an object that was listed just now.

    Args:
        facts: what the listing says of it.
    """
    if isinstance(fs, LocalFileSystem):
        return _file_tag(Path(path))
    known = facts.get("ETag") or facts.get("generation") or facts.get("etag")
    return str(known or fs.checksum(path))


def exchanged(fs: fsspec.AbstractFileSystem, path: str, data: bytes, tag: str) -> bool:
    """Write an object if it is still the version with this tag; returns whether it was written."""
    if isinstance(fs, LocalFileSystem):
        return _exchange_file(Path(path), data, tag)
    if not tag:
        return _created(fs, path, data)
    if not _has_conditions(fs):
        if tag_of(fs, path) != tag:
            return False
        fs.pipe_file(path, data)
        return True
    try:
        fs.pipe_file(path, data, IfMatch=tag)
    except FileNotFoundError:
        return False
    except OSError as error:
        if _code(error) not in _CHANGED:
            raise
        return False
    return True


def is_of(data: bytes, tag: str) -> bool:
    """Whether a tag is known to be that of an object with just these bytes; False where a tag says nothing of them."""
    return tag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()


def _created(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    try:
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


def _has_conditions(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether its client takes S3's conditions."""
    return "s3" in fs.protocol


def _code(error: BaseException) -> str:
    """What S3 calls an error; empty for others."""
    answer: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def _file_tag(path: Path) -> str:
    try:
        now = path.stat()
    except FileNotFoundError:
        return ""
    return f"{now.st_ino}-{now.st_mtime_ns}-{now.st_size}"


def _exchange_file(path: Path, data: bytes, tag: str) -> bool:
    def place(partial: Path) -> bool:
        with _alone_in(path.parent):
            if _file_tag(path) != tag:
                return False
            os.replace(partial, path)
            return True

    return _placed(path, data, place)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, where the file system has locks. It ends with the process that holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return None  # a network's file system without locks for folders
            if time.monotonic() > deadline:
                raise BlockingIOError(
                    error.errno, f"a process is stopped in the middle of writing into {folder}: continue or end it"
                ) from None
        time.sleep(0.01)


def sync_file(path: Path) -> None:
    """Have a file's bytes and its name on the disk before this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk before this returns."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot do that for folders
            os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes | Path, *, durable: bool = True) -> None:
    """Write a file atomically: readers see all of it or what was there before."""
    _placed(path, data, lambda partial: os.replace(partial, path), durable=durable)


def create_file(path: Path, data: bytes) -> bool:
    """Write a file if there is none of this name; returns whether it was written."""

    def place(partial: Path) -> bool:
        try:
            os.link(partial, path)  # unlike a rename it fails where the name is taken
        except FileExistsError:
            return False
        return True

    return _placed(path, data, place)


def _placed(
    path: Path, data: bytes | Path, place: Callable[[Path], Placed], *, again: bool = True, durable: bool = True
) -> Placed:
    """Write data beside a path, and have that put in its place. Another driver, which has just begun, may sweep it
    away in between: then once more."""
    partial = _written_beside(path, data, durable=durable)
    try:
        placed = place(partial)
        if durable:
            sync_folder(path.parent)
        return placed
    except FileNotFoundError:
        if not again:
            raise
    finally:
        partial.unlink(missing_ok=True)
    return _placed(path, data, place, again=False, durable=durable)


def _written_beside(path: Path, data: bytes | Path, *, durable: bool = True) -> Path:
    """Data, or a copy of a file, under a temporary name in the same folder.

    With the permissions of any new file: those of `tempfile` let only the owner read, and a cube is there to be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".partial-{uuid4().hex}"
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(data, Path):
                with data.open("rb") as source:
                    shutil.copyfileobj(source, file, 16 << 20)
            else:
                file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial
