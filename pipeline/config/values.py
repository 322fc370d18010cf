"""The kinds of values in a configuration, and what is allowed in each."""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from difffusr.kernels.sampling import SAMPLERS
from difffusr.pipeline.config import patterns
from difffusr.pipeline.config.section import reason_error
from difffusr.pipeline.ground.urls import OBJECT_STORES, is_url, located, shown_url

#: What the URL of a store begins with if an Icechunk repository holds the cube.
ICECHUNK = "icechunk+"

#: The samplers, as a message lists them.
SAMPLER_NAMES = " or ".join(", ".join(f"'{name}'" for name in SAMPLERS).rsplit(", ", 1))

#: Letters of the columns of MGRS squares, by zone modulo 3.
TILE_COLUMNS = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")

_TILE = re.compile(r"T?(0?[1-9]|[1-5]\d|60)([C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])")


def tile_id(text: str) -> str:
    """An MGRS tile id in the form 05ABC: two digits of zone, no leading T. Raises ValueError for anything else."""
    match = _TILE.fullmatch(text.strip().upper())
    if match is None or match[2][1] not in TILE_COLUMNS[int(match[1]) % 3]:
        raise ValueError(text)
    return f"{int(match[1]):02d}{match[2]}"


def number_of(value: object) -> object:
    """A numeric string as a number, so that overrides from a command line work; other values unchanged.

    Raises ValueError for a boolean.
    """
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value.strip()):
        return float(value)
    return value


def share_of(value: object) -> object:
    """`1%` as 0.01; a number unchanged."""
    if isinstance(value, str) and value.strip().endswith("%"):
        share = number_of(value.strip()[:-1])
        return share / 100 if isinstance(share, int | float) else value
    return number_of(value)


def _boolean(value: object) -> object:
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _resolve(text: str, info: ValidationInfo) -> str:
    """A path, or a file:// URL, made absolute against the config file's folder; another URL in its usual form."""
    folder = (info.context or {}).get("folder", Path.cwd())
    try:
        found = located(os.path.expanduser(text), f"{folder}/")
    except ValueError as error:
        shown = f"'{shown_url(text)}'" if text.isprintable() else ascii(text)
        raise reason_error(f"{shown} {error}") from None
    return found if is_url(found) else str(Path(found).resolve())


def _storage_url(text: str, info: ValidationInfo) -> str:
    """A path or a URL that fsspec knows, without credentials and without a slash at its end."""
    if text.startswith(ICECHUNK):
        return ICECHUNK + _storage_url(text.removeprefix(ICECHUNK), info)
    text = _resolve(text, info)
    if not is_url(text):
        return text
    parts = urlsplit(text)
    if parts.password or "=" in parts.query or (parts.query and parts.scheme not in OBJECT_STORES):
        raise PydanticCustomError("secret", "no credentials in a URL: use the environment or store.storage_options")
    from fsspec import available_protocols  # takes longer to import than all the rest of the configuration

    known = available_protocols()
    if any(protocol not in known for protocol in parts.scheme.split("::")):
        raise ValueError(text)
    return text.rstrip("/")


def date_of(value: object) -> object:
    """A day written as year, month and day, such as 2023-06-01 or 2023-6-1, as a date; other texts unchanged.

    Raises ValueError for a number, which is no date however many digits it has, and PydanticCustomError for a day that
    no calendar has.
    """
    if isinstance(value, int | float):
        raise ValueError(value)
    match = re.fullmatch(r"(\d{4})-(\d\d?)-(\d\d?)", value.strip(), re.ASCII) if isinstance(value, str) else None
    if match is None:
        return value
    try:
        return dt.date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        raise PydanticCustomError("no_such_day", "there is no such day") from None


def _http(text: str, info: ValidationInfo) -> str:
    if not re.match("https?:", text, re.IGNORECASE):
        raise ValueError(text)
    return _resolve(text, info)


def _sampler(text: str) -> str:
    """One of the samplers' names."""
    if text not in SAMPLERS:
        raise ValueError(text)
    return text


def _policy(text: str) -> str:
    """A policy's name, or `closest_to(2023-07-15)`."""
    name = "".join(text.split())
    if match := re.fullmatch(r"closest_to\((\d{4}-\d\d-\d\d)\)", name):
        dt.date.fromisoformat(match[1])
    elif name not in patterns.POLICIES:
        raise ValueError(text)
    return name


Text = Annotated[str, Field(min_length=1)]

PathOrUrl = Annotated[Text, AfterValidator(_resolve), WithJsonSchema(patterns.PATH_OR_URL)]

StorageUrl = Annotated[Text, AfterValidator(_storage_url), WithJsonSchema(patterns.STORAGE_URL)]

HttpUrl = Annotated[Text, AfterValidator(_http), WithJsonSchema(patterns.HTTP_URL)]

Tile = Annotated[
    Text,
    AfterValidator(tile_id),
    Field(description="an MGRS tile id such as 48QUE"),
    WithJsonSchema({**patterns.tile(TILE_COLUMNS), "description": "an MGRS tile id such as 48QUE"}),
]

Bucket = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", description="the name of a bucket such as sentinel-cogs")
]

Integer = Annotated[int, BeforeValidator(number_of)]

Number = Annotated[float, BeforeValidator(number_of)]

Boolean = Annotated[bool, BeforeValidator(_boolean)]

Share = Annotated[float, BeforeValidator(share_of), WithJsonSchema(patterns.SHARE)]

Policy = Annotated[str, AfterValidator(_policy), WithJsonSchema(patterns.POLICY)]

SamplerName = Annotated[str, AfterValidator(_sampler), WithJsonSchema({"enum": list(SAMPLERS)})]

Date = Annotated[dt.date, Field(strict=False), BeforeValidator(date_of), WithJsonSchema(patterns.DATE)]
