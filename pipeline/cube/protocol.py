"""What every kind of store that keeps a cube can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from difffusr.pipeline.storage import Storage

#: Metadata of groups and arrays, by path.
Documents = Mapping[str, dict[str, Any]]


class CubeStore(Protocol):
    """A store that holds a cube. Its methods show what readers see, and raise StoreError if the store refuses.

    Attributes:
        storage: where it is.
    """

    @property
    def storage(self) -> Storage: ...

    def open(self, read_only: bool = True) -> Store:
        """As a Zarr store. Raises StoreError if there is none."""

    def objects(self) -> Callable[[str], bytes | None]:
        """Open the cube once; returns a function that reads its objects by path, None for one that does not exist."""

    def root(self) -> zarr.Group | None:
        """The root group and all below it in one state, as it was when it was first asked for; None if there is none.

        Raises:
            StoreError: the store refuses, or the root is damaged.
        """

    def group(self, path: str) -> dict[str, Any] | None:
        """Metadata of a group or array, of the root by an empty path; None if there is none. As it was when it was
        first asked for: a store is opened anew to see what is published later."""

    def consolidated(self) -> Documents:
        """Metadata of every group and array in the root's consolidated metadata, as `group`; empty if the store needs
        none."""

    def check_writable(self) -> None:
        """Raise StoreError if the store is seen to refuse writing."""

    def stored_bytes(self) -> int | None:
        """Bytes of all objects, by listing them; None if readers do not see all of them."""


def object_in(store: Store, path: str) -> bytes | None:
    """An object of a Zarr store, or None."""
    value = sync(store.get(path, default_buffer_prototype()))
    return None if value is None else bytes(value.to_bytes())
