"""An Icechunk repository as the place of a cube: opened from a store's URL and options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import icechunk
from fsspec.implementations.local import LocalFileSystem

from difffusr.pipeline.config.values import ICECHUNK
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.ground.urls import first_line, is_url
from difffusr.pipeline.storage.objects import Storage

#: The branch that readers open.
MAIN = "main"


def is_repository(storage: Storage) -> bool:
    """Whether a URL names an Icechunk repository."""
    return storage.url.startswith(ICECHUNK)


def open_repository(storage: Storage, *, create: bool = False) -> icechunk.Repository | None:
    """The repository at a URL such as ``icechunk+s3://bucket/prefix`` or ``icechunk+/path``; None where there is none.

    Args:
        create: begin an empty one where there is none.

    Raises:
        ConfigError: the URL or the options are of a kind that Icechunk does not know.
        StoreError: it cannot be opened.
    """
    plain = Storage(storage.url.removeprefix(ICECHUNK), storage.options)
    if not create and not is_url(plain.url.removeprefix("file://")) and not Path(plain.filesystem()[1]).is_dir():
        return None  # Icechunk would make the folder by looking for it
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
    """What a repository answers when it cannot do what is asked, as a StoreError of one line."""
    try:
        yield
    except (icechunk.IcechunkError, icechunk.ConflictError, OSError) as error:
        raise StoreError(f"{storage.url}: {_said(error)}; check the store's URL, rights and space") from None


def _said(error: BaseException) -> str:
    # The first line of Icechunk's own errors begins with a mark, the rest says where in its code it was.
    return first_line(error).removeprefix("x ").removeprefix("× ")


def _settings() -> icechunk.RepositoryConfig:
    """One manifest a step of time: a commit then writes that of its own period anew, not those of all periods."""
    array, time = icechunk.ManifestSplitCondition.AnyArray(), icechunk.ManifestSplitDimCondition.DimensionName("time")
    settings = icechunk.RepositoryConfig.default()
    settings.manifest = icechunk.ManifestConfig(
        splitting=icechunk.ManifestSplittingConfig.from_dict({array: {time: 1}})
    )
    return settings


def _place(plain: Storage) -> icechunk.Storage:
    icechunk.set_logs_filter("error")  # else it tells the terminal of what a file system cannot do
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
