"""What every kind of store that keeps a cube can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from zarr.abc.store import Store

from difffusr.pipeline.storage.objects import Storage

#: Metadata of groups and arrays, by path.
Documents = Mapping[str, dict[str, Any]]


class CubeStore(Protocol):
    """What keeps a cube. Every method but `check_writable` tells what readers see, and raises StoreError where the
    store refuses.

    Attributes:
        storage: where it is.
    """

    @property
    def storage(self) -> Storage: ...

    def open(self, read_only: bool = True) -> Store:
        """As a Zarr store. StoreError where there is none."""

    def objects(self) -> Callable[[str], bytes | None]:
        """Opens the cube once and gives its objects by path; None for one that is not there."""

    def group(self, path: str) -> dict[str, Any] | None:
        """Metadata of a group; None where there is none."""

    def consolidated(self) -> Documents:
        """Metadata of every group and array that the root's document repeats, and has to repeat to show them."""

    def check_writable(self) -> None:
        """Raise StoreError where the store can be seen to refuse writing."""

    def stored_bytes(self) -> int | None:
        """Bytes of all objects, by listing them; None where that does not tell what readers see."""
