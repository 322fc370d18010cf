"""Paths and URLs: what they point at and how they may be shown; errors as one line without the secrets of URLs."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

# ---- recognised -----------------------------------------------------------------------------------------------------


def is_url(text: str) -> bool:
    """Whether a text is a URL; else it is a path."""
    return "://" in text


def is_remote(href: str) -> bool:
    """Whether an href points to another machine. A server on loopback is this machine."""
    if not is_url(href) or href.startswith("file://"):
        return False
    host = urlsplit(href).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


@lru_cache(maxsize=4096)  # asked several times for every file
def bucket_of(href: str) -> str | None:
    """The bucket or storage account that a URL points into, None where it has none: a path, another host."""
    parts = urlsplit(href)
    host = parts.hostname or ""
    if parts.scheme in ("s3", "gs", "gcs"):
        return host
    if match := re.fullmatch(r"(.+?)\.s3[.-].*amazonaws\.com|([^.]+)\.blob\.core\.windows\.net", host):
        return match[1] or match[2]
    return parts.path.split("/")[1] if re.fullmatch(r"s3[.-].*amazonaws\.com", host) else None


# ---- shown ----------------------------------------------------------------------------------------------------------


def bare_href(href: str) -> str:
    """A URL without user, password, query and fragment; a path as it is. For files and documents of any origin."""
    if not is_url(href):
        return href
    parts = urlsplit(href)
    return _without_query(parts, parts.netloc.rpartition("@")[2])


def shown_url(url: str) -> str:
    """A URL of the configuration as it may be shown and kept: as `bare_href`, but what stands before the @ stays where
    it is not a login, such as the container in abfs://container@account. A login has a password, or is of http(s)."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    login = parts.password or parts.scheme in ("http", "https")
    return _without_query(parts, parts.netloc.rpartition("@")[2] if login else parts.netloc)


def without_secrets(value: Any) -> Any:
    """A value of the configuration with `shown_url` applied to every URL in it, in nested mappings, too."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    return shown_url(value) if isinstance(value, str) else value


def _without_query(parts: SplitResult, place: str) -> str:
    return urlunsplit((parts.scheme, place, parts.path, "", ""))


# ---- errors ---------------------------------------------------------------------------------------------------------


def first_line(error: BaseException) -> str:
    """The first line of an error's text, of any length, or the error's type where it has no text. Logins and query
    strings of URLs are dropped: they hold passwords and signatures."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _LOGIN.sub("", re.sub(r"\?[^\s'\")]*[=&][^\s'\")]*", "", " ".join(text.split())))


def one_line(error: object, longest: int | None = 200) -> str:
    """The whole text of an error, or any text, in one line of at most `longest` characters, "" where there is none.
    Logins of URLs are dropped, and what follows a ? up to a space, quote or bracket: it may be a URL's query."""
    text = _LOGIN.sub("", re.sub(r"\?[^\s'\")]+", "", " ".join(str(error).split())))
    return text if longest is None or len(text) <= longest else text[: longest - 3] + "..."


#: What `shown_url` calls a login, wherever a URL stands in a text.
_LOGIN = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]*@|(?<=http://)[^\s/@]+@|(?<=https://)[^\s/@]+@")
