"""Where a page finds its cube: beside it, below the same root, or at an address of the web."""

from __future__ import annotations

import posixpath
from typing import Final
from urllib.parse import quote, urlsplit

from difffusr.pipeline.config import ICECHUNK
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import bare_href, is_url
from difffusr.pipeline.storage import Storage

_ADVICE: Final = "give the cube's address of the web with --cube-url https://…"


def cube_address(cube: Storage, folder: Storage, given: str | None = None) -> str:
    """The cube's address for a page in a folder: relative where both are on this machine or in one bucket, else its URL
    on the web.

    Args:
        given: the user's own, relative to the folder or of the web; checked only.

    Raises:
        ConfigError: it is not one, there is none, the folder lies in the cube, or the cube is an Icechunk repository.
    """
    if cube.url.startswith(ICECHUNK):
        raise ConfigError(
            f"{bare_href(cube.url)}: a page cannot read an Icechunk repository without a server; `difffusr view` "
            "without --static shows it"
        )
    (kind, root, path), (other_kind, other_root, other) = _parts(cube), _parts(folder)
    if (kind, root) == (other_kind, other_root) and (other + "/").startswith(path + "/"):
        raise ConfigError(f"--static: {bare_href(folder.url)} lies in the cube; choose a folder beside it")
    if given is not None:
        return _checked(given)
    if kind in ("http", "https"):
        return _checked(cube.url, "CUBE")
    if (kind, root) == (other_kind, other_root):
        relative = quote(posixpath.relpath(path, other))
        return relative if "/" in relative else f"./{relative}"
    return _on_the_web(cube, kind, root, path)


def origin_of(address: str) -> str | None:
    """Scheme, host and port of an address of the web; None of a relative one."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme else None


def _parts(storage: Storage) -> tuple[str, str, str]:
    """Kind of a store, its bucket or host, and the path there."""
    if storage.is_local:
        return "file", "", posixpath.normpath(storage.filesystem()[1])
    kind, _, rest = storage.url.partition("://")
    root, _, path = rest.partition("/")
    alike = {"s3a": "s3", "gcs": "gs"}
    return alike.get(kind, kind), root, posixpath.normpath("/" + path)


def _on_the_web(cube: Storage, kind: str, bucket: str, path: str) -> str:
    """The address of a bucket's object over HTTP."""
    if kind not in ("s3", "gs"):
        raise ConfigError(f"{bare_href(cube.url)}: no page elsewhere can reach it; {_ADVICE}, or write beside the cube")
    options = dict(cube.options)
    endpoint = options.get("endpoint_url") or dict(options.get("client_kwargs") or {}).get("endpoint_url")
    if kind == "gs":
        endpoint = endpoint or "https://storage.googleapis.com"
    elif not endpoint and "." not in bucket:
        return f"https://{bucket}.s3.amazonaws.com{quote(path)}"
    return f"{str(endpoint or 'https://s3.amazonaws.com').rstrip('/')}/{bucket}{quote(path)}"


def _checked(given: str, what: str = "--cube-url") -> str:
    """An address as the page can have it."""
    try:
        parts = urlsplit(given)
        usable = (parts.scheme in ("http", "https") and bool(parts.hostname)) if is_url(given) else not parts.scheme
    except ValueError:
        usable = False
    if not usable or not given.strip() or any(letter.isspace() or ord(letter) < 32 for letter in given):
        raise ConfigError(f"{what}: found {bare_href(given)!r}, expected https://…, or a path relative to the page")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ConfigError(
            f"{what}: {bare_href(given)} has a login, a query or a fragment, which everybody who opens the page would "
            "see; give an address without"
        )
    return given.rstrip("/")
