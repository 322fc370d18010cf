"""Objects in a store at any fsspec URL, written atomically."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line, is_url, located
from difffusr.pipeline.storage.versions import create_file, exchanged, listed_tag, replace_file, sync_file, tag_of

#: Errors of the object stores' clients that are neither OSErrors nor ValueErrors: module and class.
_OF_CLIENTS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("aiohttp", "ClientError"),
    ("icechunk", "IcechunkError"),
    ("icechunk", "ConflictError"),
)

#: By protocol, the package that reads and writes it, and the extra of this project that installs the package.
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "s3")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gcs")),
}

#: By protocol, what its file system calls the type of an object's content.
_TYPE_WORDS = {
    **dict.fromkeys(("s3", "s3a"), "ContentType"),
    **dict.fromkeys(("gs", "gcs"), "content_type"),
}


def store_failures(*more: type[BaseException]) -> tuple[type[BaseException], ...]:
    """What a store raises when it refuses, for an `except` clause: the file systems' errors and the clients' own.

    No client is imported for it: an error can only be of a class whose module is loaded already.

    Args:
        more: further errors to catch.
    """
    found = [getattr(sys.modules.get(module), name, None) for module, name in _OF_CLIENTS]
    return (OSError, ValueError, ImportError, *(error for error in found if error is not None), *more)


def place_of(url: str, options: Mapping[str, Any] | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and the path on it. A path means this machine's file, whatever is in its name.

    Raises:
        ValueError, ImportError: it points nowhere (see `located`), its protocol is unknown, or its package is missing.
    """
    found = located(url, f"{os.getcwd()}/")
    if is_url(found):
        fs, path = fsspec.url_to_fs(found, **(options or {}))
        return fs, path
    return fsspec.filesystem("file", **(options or {})), found


@dataclass(frozen=True)
class Storage:
    """A folder of a store.

    Attributes:
        url: fsspec URL or path.
        options: fsspec storage options; never shown.
        snapshot: of an Icechunk repository, what to read of it; empty for what its readers see.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    snapshot: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def child(self, name: str) -> Storage:
        """A folder below this one."""
        return Storage(f"{self.url}/{name}", self.options)

    def filesystem(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The file system and this folder's path on it.

        Raises:
            StoreError: the protocol is unknown or its package is missing.
        """
        try:
            return place_of(self.url, self.options)
        except store_failures() as error:
            if missing := _missing_extra(self.url):
                raise StoreError(f"{self.url}: {missing}") from None
            raise StoreError(
                f"{self.url}: cannot be opened as a store ({first_line(error)}); check store.url"
            ) from None

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's file system."""
        return isinstance(self.filesystem()[0], LocalFileSystem)

    def write(self, name: str, data: bytes, *, durable: bool = True, content_type: str | None = None) -> None:
        """Write one object atomically.

        Local files are written to a temporary name and renamed; object stores write whole objects anyway.

        Args:
            durable: whether a local file has to outlive a loss of power once this returns.
            content_type: what S3 and GCS say of the object to browsers; by default nothing of use to them.

        Raises:
            StoreError: the store refuses.
        """
        self._place(name, data, durable=durable, content_type=content_type)

    def sync(self, name: str) -> None:
        """Let a local file that others have written outlive a loss of power once this returns.

        Raises:
            StoreError: the store refuses.
        """
        fs, root = self.filesystem()
        if not isinstance(fs, LocalFileSystem):
            return
        try:
            sync_file(Path(root, name))
        except OSError as error:
            raise StoreError(f"{self.url}/{name}: cannot be written ({first_line(error)})") from None

    def put(self, name: str, file: Path) -> None:
        """Write one object atomically, from a file on this machine.

        Raises:
            StoreError: the store refuses.
        """
        self._place(name, file)

    def _place(
        self, name: str, content: bytes | Path, *, durable: bool = True, content_type: str | None = None
    ) -> None:
        fs, root = self.filesystem()
        word = _TYPE_WORDS.get(self.url.partition("://")[0]) if content_type else None
        path = f"{root}/{name}"
        try:
            if isinstance(fs, LocalFileSystem):
                replace_file(Path(path), content, durable=durable)
            elif isinstance(content, Path):
                fs.put_file(str(content), path)
            else:
                fs.pipe_file(path, content, **({word: content_type} if word else {}))
        except store_failures() as error:
            raise StoreError(
                f"{self.url}/{name}: cannot be written ({first_line(error)}); check the store's URL, rights and space"
            ) from None

    def create(self, name: str, data: bytes) -> bool:
        """Write one object if none has this name; returns whether it was written. Of several callers, one succeeds.

        Raises:
            StoreError: the store refuses.
        """
        fs, root = self.filesystem()
        path = f"{root}/{name}"
        try:
            if isinstance(fs, LocalFileSystem):
                return create_file(Path(path), data)
            fs.pipe_file(path, data, mode="create")
            return True
        except FileExistsError:
            return False
        except store_failures() as error:
            raise StoreError(
                f"{self.url}/{name}: cannot be written ({first_line(error)}); check the store's URL, rights and space"
            ) from None

    def tag(self, name: str) -> str:
        """What tells this version of an object from every other, for `exchange`; empty if there is no such object.

        Raises:
            StoreError: the store refuses.
        """
        fs, root = self.filesystem()
        try:
            return tag_of(fs, f"{root}/{name}")
        except store_failures() as error:
            raise StoreError(f"{self.url}/{name}: cannot be looked up ({first_line(error)})") from None

    def exchange(self, name: str, data: bytes, tag: str) -> bool:
        """Write one object atomically if it is still the version with this tag; returns whether it is there.

        However late the write comes, it never replaces what somebody else has written in the meantime: by a condition
        of the store on S3, under a lock of the folder on a file system. Of other stores the tag is asked right before.

        Args:
            tag: as `tag` returned it; empty where there was no object.

        Raises:
            StoreError: the store refuses.
        """
        fs, root = self.filesystem()
        try:
            if exchanged(fs, f"{root}/{name}", data, tag):
                return True
        except store_failures() as error:
            raise StoreError(
                f"{self.url}/{name}: cannot be written ({first_line(error)}); check the store's URL, rights and space"
            ) from None
        # The store may have written it, and its answer was lost: then the client's second attempt has failed.
        return self.exists(name) and self.read(name) == data

    def modified(self, name: str) -> float | None:
        """When an object was last written by the store's clock, in seconds since 1970; None if it does not say so.

        Raises:
            StoreError: there is no such object, or the store refuses.
        """
        fs, root = self.filesystem()
        try:
            fs.invalidate_cache()
            return float(fs.modified(f"{root}/{name}").timestamp())
        except (NotImplementedError, KeyError):
            return None
        except store_failures() as error:
            raise StoreError(f"{self.url}/{name}: cannot be looked up ({first_line(error)})") from None

    def read(self, name: str) -> bytes:
        """Read one object.

        Raises:
            StoreError: there is no such object, or the store refuses.
        """
        fs, root = self.filesystem()
        try:
            return bytes(fs.cat_file(f"{root}/{name}"))
        except store_failures() as error:
            raise StoreError(f"{self.url}/{name}: cannot be read ({first_line(error)})") from None

    def exists(self, name: str) -> bool:
        """Whether an object has this name."""
        fs, root = self.filesystem()
        try:
            return bool(fs.exists(f"{root}/{name}"))
        except store_failures() as error:
            raise StoreError(f"{self.url}/{name}: cannot be looked up ({first_line(error)})") from None

    def names(self, folder: str) -> set[str]:
        """Names of all objects below a folder, relative to it; empty if there is no such folder."""
        return set(self._listed(folder, detail=False))

    def sizes(self, folder: str) -> dict[str, int]:
        """As `names`, with the size of each object in bytes: object stores list both."""
        return {name: int(facts["size"]) for name, facts in self._listed(folder, detail=True).items()}

    def tags(self, folder: str) -> dict[str, str]:
        """As `names`, with the tag of each object: see `tag`. Object stores list both.

        Raises:
            StoreError: the store refuses.
        """
        fs, root = self.filesystem()
        listed = self._listed(folder, detail=True)
        try:
            return {name: listed_tag(fs, f"{root}/{folder}/{name}", facts) for name, facts in listed.items()}
        except store_failures() as error:
            raise StoreError(f"{self.url}/{folder}: cannot be listed ({first_line(error)})") from None

    def _listed(self, folder: str, *, detail: bool) -> dict[str, Mapping[str, Any]]:
        """What is known of all objects below a folder, by name; nothing of them without `detail`."""
        fs, root = self.filesystem()
        base = f"{root}/{folder}"
        try:
            fs.invalidate_cache()
            found = fs.find(base, detail=detail)
        except FileNotFoundError:
            return {}
        except store_failures() as error:
            raise StoreError(f"{self.url}/{folder}: cannot be listed ({first_line(error)})") from None
        facts: dict[str, Mapping[str, Any]] = found if detail else {file: {} for file in found}
        prefix = fs._strip_protocol(base).rstrip("/") + "/"
        return {
            str(file)[len(prefix) :]: known
            for file, known in facts.items()
            if str(file).startswith(prefix) and not _is_partial(str(file))
        }

    def delete(self, name: str) -> None:
        """Delete one object, if it exists."""
        fs, root = self.filesystem()
        try:
            fs.rm_file(f"{root}/{name}")
        except FileNotFoundError:
            return
        except store_failures() as error:
            raise StoreError(f"{self.url}/{name}: cannot be deleted ({first_line(error)})") from None

    def sweep(self) -> int:
        """Delete what writers that were killed have left below this folder of this machine; returns how much it was.
        Only for who alone may write here: what somebody is writing now is deleted, too."""
        if not self.is_local:
            return 0  # object stores show whole objects alone
        swept = 0
        for folder, folders, files in os.walk(self.filesystem()[1]):
            for name in filter(_is_partial, [*folders, *files]):
                place = Path(folder, name)
                with suppress(OSError):  # somebody else's, or gone
                    shutil.rmtree(place) if name in folders else place.unlink()
                    swept += 1
            folders[:] = [name for name in folders if not _is_partial(name)]
        return swept

    def check_writable(self) -> None:
        """Write and delete a small object, to find out before computing that a store refuses.

        Raises:
            StoreError: the store refuses.
        """
        name = f".difffusr-write-check-{os.getpid()}"
        self.write(name, b"")
        self.delete(name)


def _missing_extra(url: str) -> str:
    """The missing package that a URL needs, and how to install it; empty if nothing is missing."""
    package, extra = _PACKAGES.get(url.partition("://")[0].rpartition("::")[2], ("", ""))
    if not package or importlib.util.find_spec(package) is not None:
        return ""
    return f"needs the package {package}: pip install 'difffusr[{extra}]'"


def _is_partial(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(".partial-")
