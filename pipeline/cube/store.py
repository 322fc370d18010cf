"""The stores that can hold a cube, behind one protocol: what readers see of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, StorePath

from difffusr.pipeline.config import ICECHUNK
from difffusr.pipeline.cube.described import ADVICE
from difffusr.pipeline.cube.protocol import CubeStore, Documents
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.storage import Storage, as_kind, parse_document, store_failures

#: The document that readers open.
_ROOT = "zarr.json"


@dataclass(frozen=True)
class _Consolidated:
    """What a root holds of the groups and arrays below it."""

    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Root:
    """A root's document, as far as it is of interest here."""

    consolidated_metadata: _Consolidated | None = None


@dataclass(frozen=True)
class PlainStore:
    """A plain Zarr store, see `CubeStore`. Readers see what its root's consolidated metadata describes."""

    storage: Storage

    @cached_property
    def _document(self) -> dict[str, Any] | None:
        """The root's: up to a megabyte, read once."""
        data = self.objects()(_ROOT)
        return None if data is None else parse_document(data, dict[str, Any], f"{self.storage.url}/{_ROOT}", ADVICE)

    def open(self, read_only: bool = True) -> Store:
        """Paths and ``file://`` through LocalStore, whose files appear whole or not at all."""
        _, path = self.storage.filesystem()
        if self.storage.is_local:
            return LocalStore(path, read_only=read_only)
        try:
            options = dict(self.storage.options)
            return FsspecStore.from_url(self.storage.url, storage_options=options, read_only=read_only)
        except store_failures() as error:
            raise StoreError(f"{self.storage.url}: cannot be opened ({first_line(error)}); check store.url") from None

    def objects(self) -> Callable[[str], bytes | None]:
        """See `CubeStore`."""
        return lambda path: self.storage.read(path) if self.storage.exists(path) else None

    def root(self) -> zarr.Group | None:
        """See `CubeStore`. Never what lies in the groups themselves: that changes piece by piece."""
        if self._document is None:
            return None
        if not self.consolidated():
            raise StoreError(f"{self.storage.url}/{_ROOT}: lacks the metadata of groups and arrays; {ADVICE}")
        return zarr.Group(zarr.AsyncGroup.from_dict(StorePath(self.open()), self._document))

    def group(self, path: str) -> dict[str, Any] | None:
        """See `CubeStore`."""
        return self.consolidated().get(path) if path else self._document

    def consolidated(self) -> Documents:
        """See `CubeStore`."""
        held = as_kind(self._document or {}, _Root, f"{self.storage.url}/{_ROOT}", ADVICE).consolidated_metadata
        return {} if held is None else held.metadata

    def check_writable(self) -> None:
        """See `CubeStore`."""
        self.storage.check_writable()

    def stored_bytes(self) -> int | None:
        """See `CubeStore`."""
        fs, path = self.storage.filesystem()
        try:
            return int(fs.du(path))
        except store_failures(NotImplementedError):
            return None


def store_of(storage: Storage) -> CubeStore:
    """The store at a URL, chosen by its scheme.

    Raises:
        ConfigError: the store's package is not installed.
    """
    if not storage.url.startswith(ICECHUNK):
        return PlainStore(storage)
    try:
        from difffusr.pipeline.cube.icechunk import IcechunkStore
    except ModuleNotFoundError as error:
        if error.name != "icechunk":
            raise
        raise ConfigError(f"{storage.url}: needs the package icechunk: pip install 'difffusr[icechunk]'") from None
    return IcechunkStore(storage)


def open_store(storage: Storage, read_only: bool = True) -> Store:
    """The Zarr store at a URL, as `CubeStore.open`."""
    return store_of(storage).open(read_only)


def root_of(store: CubeStore) -> zarr.Group:
    """The root group of a cube and all below it, as `CubeStore.root`. Raises StoreError if there is none."""
    root = store.root()
    if root is None:
        raise StoreError(f"{store.storage.url}: holds no cube; check store.url")
    return root
