"""Paths and URLs: what they point at and how they may be shown; errors as one line without the secrets of URLs."""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit, urlunsplit

# ---- where a text points --------------------------------------------------------------------------------------------

#: Kinds of storage whose URLs have no query and no fragment: what follows the bucket is the key, letter by letter.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://(.*)", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*:")
_WINDOWS = re.compile(r"[A-Za-z]:|\\\\")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

#: Characters that stay as they are in a URL of the web: those it is made of, and the codes of others.
_OF_URLS = "!#$%&'()*+,/:;=?@[]~"
_NOT_OF_URLS = re.compile(rf"[^\w.{re.escape(_OF_URLS)}-]|%(?![0-9A-Fa-f]{{2}})", re.ASCII)


def located(text: str, base: str) -> str:
    """Where a text of a configuration or a catalogue points: an absolute path of this machine, or a URL with a host.

    A path is taken letter by letter: `#`, `?`, `%` and spaces belong to names, as they do in the key of an object in a
    bucket. A file:// URL becomes the path that it means; in a URL of the web, what URLs cannot hold is encoded. Schemes
    become small letters. A text from the root (`/a`), and a relative one, lie where their base lies.

    Args:
        base: an absolute path or URL that relative texts are relative to: of a document, or, with a slash at its end,
            of a folder.

    Raises:
        ValueError: it points nowhere; the message says why and what to write, to stand behind the text.
    """
    if not text or _CONTROL.search(text):
        raise ValueError("holds a control character; remove it" if text else "is empty; give a path or a URL")
    if _WINDOWS.match(text):
        raise ValueError("is a path of Windows; give it as this machine has it, in WSL /mnt/c/… for C:\\…")
    if text[:5].lower() == "file:":
        return _of_file_url(text[5:])
    if match := _URL.fullmatch(text):
        return _of_url(match[1].lower(), match[2])
    if _SCHEME.match(text.partition("/")[0]):
        raise ValueError("lacks // after its scheme; write scheme://host/…, or ./ before a name with a colon")
    if is_url(base):
        return _below(text, base)
    if "\\" in text and not text.startswith("/"):
        raise ValueError("has backslashes; write / between folders")
    return "/" + posixpath.normpath(posixpath.join(posixpath.dirname(base), text)).lstrip("/")


def _of_file_url(rest: str) -> str:
    """The path in what follows `file:`."""
    host, slash, path = rest[2:].partition("/") if rest.startswith("//") else ("", rest[:1], rest[1:])
    if re.match(r"/*[A-Za-z][:|]", path) or re.fullmatch(r"[A-Za-z][:|]", host):
        raise ValueError("is a path of Windows; give it as this machine has it, in WSL file:///mnt/c/… for C:\\…")
    if host.lower() not in ("", "localhost", "127.0.0.1"):
        raise ValueError("names another machine's file; write file:///… with three slashes for one of this machine")
    if slash != "/":
        raise ValueError("has no absolute path; write file:///… with three slashes")
    found = os.fsdecode(unquote_to_bytes(path))
    if _CONTROL.search(found):
        raise ValueError("holds a control character; remove it")
    return "/" + posixpath.normpath("/" + found).lstrip("/")


def _of_url(scheme: str, rest: str) -> str:
    """A URL in its usual form."""
    if scheme not in ("http", "https"):
        if not rest.strip("/") or (rest.startswith("/") and scheme in OBJECT_STORES):
            raise ValueError(f"has no {'bucket' if scheme in OBJECT_STORES else 'place'} after {scheme}://; add it")
        return f"{scheme}://{rest}"
    url = f"{scheme}://{rest}".replace("\\", "/")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and " " not in parts.netloc and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"has no valid host and port after {scheme}://; correct it")
    if _NOT_OF_URLS.search(url) is None:
        return url
    coded = quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", url[len(scheme) + 3 + len(parts.netloc) :]), safe=_OF_URLS)
    return f"{scheme}://{parts.netloc}{coded}"


def _below(text: str, base: str) -> str:
    """A relative text, or one from the root, where a URL lies."""
    text = text.replace("\\", "/")
    scheme, place = base.split("://", 1)
    if scheme in ("http", "https"):
        # A fragment would not say which file: a # belongs to the name.
        return _of_url(*urljoin(base, text.replace("#", "%23")).split("://", 1))
    bucket, _, key = place.partition("/")
    return f"{scheme}://{bucket}{posixpath.normpath(posixpath.join('/' + posixpath.dirname(key), text))}"


def is_url(text: str) -> bool:
    """Whether a text is a URL; else it is a path."""
    return _URL.match(text) is not None


def is_remote(href: str) -> bool:
    """Whether an href points to another machine. A server on loopback is this machine."""
    return is_url(href) and href[:5].lower() != "file:" and not is_loopback(href)


def is_loopback(url: str) -> bool:
    """Whether a URL's server is this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """The host, and port if given, of a URL; the whole text where it has none."""
    return _parts(url).netloc.rpartition("@")[2] or bare_href(url)


def path_in(href: str) -> str:
    """The path of a URL without query and fragment; a path, and a key in a bucket, as it is."""
    if not is_url(href):
        return href
    parts = _parts(href)
    whole = parts.scheme in OBJECT_STORES and "=" not in parts.query
    return urlunsplit(parts._replace(scheme="", netloc="")) if whole else parts.path


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
    """A URL without user, password, query and fragment; a path as it is. For files and documents of any origin.

    In a bucket, `#` and `?` belong to the key, unless it looks like a query.
    """
    if not is_url(href):
        return href
    parts = _parts(href)
    return _without_query(parts, parts.netloc.rpartition("@")[2])


def shown_url(url: str) -> str:
    """A URL of the configuration as it may be shown and kept: as `bare_href`, but what stands before the @ stays where
    it is not a login, such as the container in abfs://container@account. A login has a password, or is of http(s)."""
    if not is_url(url):
        return url
    parts = _parts(url)
    login = parts.password or parts.scheme in ("http", "https")
    return _without_query(parts, parts.netloc.rpartition("@")[2] if login else parts.netloc)


def without_secrets(value: Any) -> Any:
    """A value of the configuration with `shown_url` applied to every URL in it, in nested mappings, too."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    return shown_url(value) if isinstance(value, str) else value


def _parts(url: str) -> SplitResult:
    """The parts of a URL, or of what should be one."""
    try:
        return urlsplit(url)
    except ValueError:  # a bracket in the host, or a letter that hosts must not have
        scheme, _, rest = re.sub(r"[][]", "", url).partition("://")
        place = re.match(r"[^/?#]*", rest)
        host = place[0] if place else ""
        return urlsplit(f"{scheme}://{host.encode('ascii', 'replace').decode().replace('?', '_')}{rest[len(host) :]}")


def _without_query(parts: SplitResult, place: str) -> str:
    whole = parts.scheme in OBJECT_STORES and "=" not in parts.query
    path = urlunsplit(parts._replace(scheme="", netloc="")) if whole else parts.path
    return f"{parts.scheme}://{place}{path}"


# ---- errors ---------------------------------------------------------------------------------------------------------


def first_line(error: BaseException) -> str:
    """The first line of an error's text, of any length, or the error's type where it has no text. Logins and query
    strings of URLs are dropped: they hold passwords and signatures."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    text = text.removeprefix("x ").removeprefix("× ")  # the mark before Icechunk's errors
    return _LOGIN.sub("", re.sub(r"\?[^\s'\")]*[=&][^\s'\")]*", "", " ".join(text.split())))


def one_line(error: object, longest: int | None = 200) -> str:
    """The whole text of an error, or any text, in one line of at most `longest` characters, "" where there is none.
    Logins of URLs are dropped, and what follows a ? up to a space, quote or bracket: it may be a URL's query."""
    text = _LOGIN.sub("", re.sub(r"\?[^\s'\")]+", "", " ".join(str(error).split())))
    return text if longest is None or len(text) <= longest else text[: longest - 3] + "..."


#: What `shown_url` calls a login, wherever a URL stands in a text.
_LOGIN = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]*@|(?<=http://)[^\s/@]+@|(?<=https://)[^\s/@]+@")
