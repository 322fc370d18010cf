"""Paths and addresses: whose they are, and how they may be shown."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit


def bare_href(href: str) -> str:
    """An href without user, query string and fragment: what may be logged."""
    if not is_url(href):
        return href
    parts = urlsplit(href)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def shown_url(url: str) -> str:
    """A URL of the configuration as it may be shown and kept: as `bare_href`, but what stands before the @ stays where
    it is no login, such as the container in abfs://container@account. Login: with a password, or of http(s)."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2] if parts.password or parts.scheme in ("http", "https") else parts.netloc
    return urlunsplit((parts.scheme, place, parts.path, "", ""))


def without_secrets(value: Any) -> Any:
    """A value of the configuration with `shown_url` applied to every URL in it, in nested mappings, too."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    return shown_url(value) if isinstance(value, str) else value


def is_url(href: str) -> bool:
    """Whether it is a URL; anything else is a path."""
    return "://" in href


def is_remote(href: str) -> bool:
    """Whether a document comes from another machine. A server on loopback is this machine."""
    if not is_url(href) or href.startswith("file://"):
        return False
    host = urlsplit(href).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


@lru_cache(maxsize=4096)  # asked several times of every file
def bucket_of(href: str) -> str | None:
    """The bucket or storage account that a URL points into."""
    parts = urlsplit(href)
    host = parts.hostname or ""
    if parts.scheme in ("s3", "gs", "gcs"):
        return host
    if match := re.fullmatch(r"(.+?)\.s3[.-].*amazonaws\.com|([^.]+)\.blob\.core\.windows\.net", host):
        return match[1] or match[2]
    if re.fullmatch(r"s3[.-].*amazonaws\.com|eodata\..+", host):
        return "eodata" if host.startswith("eodata.") else parts.path.split("/")[1]
    return None


def one_line(error: object, longest: int = 200) -> str:
    """An error's text in one line of bearable length, without the query strings of URLs in it."""
    text = re.sub(r"\?[^\s'\")]+", "", " ".join(str(error).split()))
    return text if len(text) <= longest else text[: longest - 3] + "..."


def first_line(error: BaseException) -> str:
    """An error's first line without any URL query: signatures in it are secrets."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"\?[^\s'\")]*[=&][^\s'\")]*", "", " ".join(text.split()))
