"""A cube's Zarr store, at any URL."""

from __future__ import annotations

from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.storage.icechunk import MAIN, failures_of, is_repository, open_repository
from difffusr.pipeline.storage.objects import Storage, store_failures


def open_store(storage: Storage, read_only: bool = True) -> Store:
    """A Zarr store at a URL: paths and ``file://`` through LocalStore, whose files appear whole or not at all; of an
    Icechunk repository what readers see."""
    if is_repository(storage):
        repository = open_repository(storage)
        if repository is None:
            raise StoreError(f"{storage.url}: there is no Icechunk repository; check store.url")
        with failures_of(storage):
            return repository.readonly_session(MAIN).store
    _, path = storage.filesystem()
    if storage.is_local:
        return LocalStore(path, read_only=read_only)
    try:
        return FsspecStore.from_url(storage.url, storage_options=dict(storage.options), read_only=read_only)
    except store_failures() as error:
        raise StoreError(f"{storage.url}: cannot be opened ({first_line(error)}); check store.url") from None
