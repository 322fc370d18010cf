"""A map of others below the cube: where its tiles are, and what the page's rules must allow for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import shown_url

_PLACES: Final = ("{z}", "{x}", "{y}")

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")

_EXPECTED: Final = "expected http(s)://host/…/{z}/{x}/{y}.png"


@dataclass(frozen=True)
class Basemap:
    """Tiles of 256 pixels in web Mercator.

    Attributes:
        url: with {z}, {x} and {y}.
        credit: whom to name for them.
        origin: scheme, host and port, as a browser writes them.
    """

    url: str
    credit: str
    origin: str

    @classmethod
    def of(cls, template: str, credit: str | None = None) -> Basemap:
        """From a template as it is given.

        Raises:
            ConfigError: it is not one.
        """
        try:
            parts = urlsplit(template)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except (ValueError, UnicodeError):
            raise _wrong(template, "is no URL") from None
        if parts.scheme.lower() not in ("http", "https"):
            raise _wrong(template, "is not of http or https")
        if not _HOST.fullmatch(host):
            raise _wrong(template, "has no host" if not host else f"has the host {host}, which no rule can allow")
        if parts.username is not None or parts.password is not None:
            raise _wrong(template, "has a login, which browsers refuse")
        behind = template.partition("://")[2].partition("/")[2]
        lacking = [place for place in _PLACES if behind.count(place) != 1]
        if lacking:
            raise _wrong(template, f"does not have {', '.join(lacking)} once behind its host")
        rest = re.sub("|".join(map(re.escape, _PLACES)), "", template)
        if re.search(r"[{}\\\s\x00-\x1f\x7f\"'<>]", rest):
            raise _wrong(template, "has something besides {z}, {x} and {y} that is no part of a URL")
        scheme = parts.scheme.lower()
        usual = port is None or port == {"http": 80, "https": 443}[scheme]
        origin = f"{scheme}://{host.lower()}{'' if usual else f':{port}'}"
        return cls(f"{origin}/{behind}", credit or f"Basemap: {host.lower()}", origin)


def _wrong(template: str, why: str) -> ConfigError:
    return ConfigError(f"--basemap: {shown_url(template)!r} {why}; {_EXPECTED}")
