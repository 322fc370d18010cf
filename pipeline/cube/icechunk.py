"""An Icechunk repository as the store of a cube: opened from a store's URL and options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import icechunk
import zarr
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store

from difffusr.pipeline.config import ICECHUNK
from difffusr.pipeline.cube.described import ADVICE
from difffusr.pipeline.cube.protocol import Documents, object_in
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.ground.urls import first_line, is_url
from difffusr.pipeline.storage import Storage, parse_document

#: The branch that readers open.
MAIN = "main"


@dataclass(frozen=True)
class IcechunkStore:
    """An Icechunk repository, see `CubeStore`. Readers see what its branch ``main`` holds."""

    storage: Storage

    def open(self, read_only: bool = True) -> Store:
        """What readers see. To write, `IcechunkTarget` opens a session of a branch."""
        if not read_only:
            raise ValueError(f"{self.storage.url}: a repository is written through its sessions")
        repository = open_repository(self.storage)
        if repository is None:
            raise StoreError(f"{self.storage.url}: there is no Icechunk repository; check store.url")
        with failures_of(self.storage):
            if self.storage.snapshot:
                return repository.readonly_session(snapshot_id=self.storage.snapshot).store
            return repository.readonly_session(MAIN).store

    def objects(self) -> Callable[[str], bytes | None]:
        """See `CubeStore`."""
        if open_repository(self.storage) is None:
            return lambda _: None
        store = self.open()

        def found(path: str) -> bytes | None:
            with failures_of(self.storage):
                return object_in(store, path)

        return found

    @cached_property
    def _seen(self) -> Store | None:
        """One snapshot, from which all is read that is to be of one state."""
        return None if open_repository(self.storage) is None else self.open()

    def root(self) -> zarr.Group | None:
        """See `CubeStore`."""
        if self.group("") is None:
            return None
        with failures_of(self.storage):
            return zarr.open_group(self._seen, mode="r", zarr_format=3)

    def group(self, path: str) -> dict[str, Any] | None:
        """See `CubeStore`."""
        name = f"{path}/zarr.json" if path else "zarr.json"
        with failures_of(self.storage):
            data = None if self._seen is None else object_in(self._seen, name)
        return None if data is None else parse_document(data, dict[str, Any], f"{self.storage.url}/{name}", ADVICE)

    def consolidated(self) -> Documents:
        """Empty: a snapshot needs no consolidated metadata."""
        return {}

    def check_writable(self) -> None:
        """Does nothing: a test object has no place in a repository."""

    def stored_bytes(self) -> int | None:
        """None: the objects are those of all snapshots."""
        return None


def open_repository(storage: Storage, *, create: bool = False) -> icechunk.Repository | None:
    """The repository at a URL such as ``icechunk+s3://bucket/prefix`` or ``icechunk+/path``, or None.

    Args:
        create: create an empty one if there is none.

    Raises:
        ConfigError: Icechunk does not support the URL or the options.
        StoreError: it cannot be opened.
    """
    plain = Storage(storage.url.removeprefix(ICECHUNK), storage.options)
    here = not is_url(plain.url) or plain.url.startswith("file:")
    if not create and here and not Path(plain.filesystem()[1]).is_dir():
        return None  # Icechunk would create the folder by checking for it
    place = _place(plain)
    with failures_of(storage):
        if icechunk.Repository.exists(place):
            return icechunk.Repository.open(place)
        if not create:
            return None
        repository = icechunk.Repository.create(place, _settings())
        repository.save_config()
        return repository


@contextmanager
def failures_of(storage: Storage) -> Iterator[None]:
    """Turns a repository's errors into a StoreError of one line."""
    try:
        yield
    except (icechunk.IcechunkError, icechunk.ConflictError, OSError) as error:
        # It may be an answer that was lost or cut, which Icechunk gives up at: then all is well the next time.
        raise StoreError(
            f"{storage.url}: {first_line(error)}; run again, or check the store's URL, rights and space"
        ) from None


def _settings() -> icechunk.RepositoryConfig:
    """One manifest a step of time: a commit then rewrites the manifest of its own period only."""
    array, time = icechunk.ManifestSplitCondition.AnyArray(), icechunk.ManifestSplitDimCondition.DimensionName("time")
    settings = icechunk.RepositoryConfig.default()
    settings.manifest = icechunk.ManifestConfig(
        splitting=icechunk.ManifestSplittingConfig.from_dict({array: {time: 1}})
    )
    return settings


def _place(plain: Storage) -> icechunk.Storage:
    icechunk.set_logs_filter("error")  # else it warns on the terminal about missing features of file systems
    protocol, _, path = plain.url.rpartition("://")
    if protocol in ("s3", "s3a"):
        bucket, _, prefix = path.partition("/")
        return _on_s3(bucket, prefix, plain.options)
    fs, path = plain.filesystem()
    if isinstance(fs, LocalFileSystem):
        return icechunk.local_filesystem_storage(path)
    raise ConfigError(
        f"store.url: found {ICECHUNK}{plain.url}, expected {ICECHUNK}s3://bucket/prefix or {ICECHUNK}/path: "
        "Icechunk repositories are kept on S3 and on file systems"
    )


def _on_s3(bucket: str, prefix: str, options: Mapping[str, Any]) -> icechunk.Storage:
    """A place on S3, from the options that s3fs takes."""
    client = options.get("client_kwargs") or {}
    endpoint = options.get("endpoint_url") or client.get("endpoint_url")
    key, secret, anonymous = options.get("key"), options.get("secret"), bool(options.get("anon"))
    if (key is None) != (secret is None):
        raise ConfigError(
            "store.storage_options: found one of key and secret, expected both; leave both out to take them from the "
            "environment"
        )
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix or None,
        region=client.get("region_name") or ("us-east-1" if endpoint else None),
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        force_path_style=endpoint is not None,
        access_key_id=key,
        secret_access_key=secret,
        session_token=options.get("token"),
        anonymous=True if anonymous else None,
        from_env=True if not (key or anonymous) else None,
    )
