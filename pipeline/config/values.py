"""The values of a configuration: what is allowed in each kind of field."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import fsspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from difffusr.pipeline.ground.urls import is_url

#: Sections of which exactly one key must be given.
CHOICES = {
    "area": ("geojson", "file", "bbox", "tiles"),
    "source": ("stac_api", "static_catalog", "items"),
}


_TILE = re.compile(r"T?(0?[1-9]|[1-5]\d|60)([C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])")


#: Letters of the columns of MGRS squares, by zone modulo 3.
TILE_COLUMNS = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")


def rule_error(key: str, found: object, expected: str) -> PydanticCustomError:
    """An error on `key` of the section being validated."""
    return PydanticCustomError("rule", "{expected}", {"key": key, "found": found, "expected": expected})


def _resolve(text: str, info: ValidationInfo) -> str:
    """A plain path made absolute against the config file's folder; a URL as it is."""
    if is_url(text):
        return text
    folder = (info.context or {}).get("folder", Path.cwd())
    return str((folder / Path(text).expanduser()).resolve())


def tile_id(text: str) -> str:
    """An MGRS tile id in the form 05ABC: two digits of zone, no leading T."""
    match = _TILE.fullmatch(text.strip().upper())
    if match is None or match[2][1] not in TILE_COLUMNS[int(match[1]) % 3]:
        raise ValueError(text)
    return f"{int(match[1]):02d}{match[2]}"


def _http(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).netloc:
        raise ValueError(text)
    return text


#: What a store's URL begins with where an Icechunk repository keeps it.
ICECHUNK = "icechunk+"


def _storage_url(text: str, info: ValidationInfo) -> str:
    """A path or a URL that fsspec knows, without a password in it, without a slash at its end."""
    if text.startswith(ICECHUNK):
        return ICECHUNK + _storage_url(text.removeprefix(ICECHUNK), info)
    if is_url(text):
        parts = urlsplit(text)
        if parts.password or parts.query:
            raise PydanticCustomError("secret", "no credentials in a URL: use the environment or store.storage_options")
        known = fsspec.available_protocols()
        if any(protocol not in known for protocol in parts.scheme.split("::")):
            raise ValueError(text)
        return text.rstrip("/")
    return _resolve(text, info)


def number_of(value: object) -> object:
    """Lets a numeric string through to a number field, so that overrides from a command line work; not a boolean."""
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value.strip()):
        return float(value)
    return value


def share_of(value: object) -> object:
    """`1%` as 0.01; a number as it is."""
    if isinstance(value, str) and value.strip().endswith("%"):
        share = number_of(value.strip()[:-1])
        return share / 100 if isinstance(share, int | float) else value
    return number_of(value)


def _boolean(value: object) -> object:
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _policy(text: str) -> str:
    """A policy's name, or `closest_to(2023-07-15)`."""
    name = "".join(text.split())
    if match := re.fullmatch(r"closest_to\((\d{4}-\d\d-\d\d)\)", name):
        dt.date.fromisoformat(match[1])
    elif name not in ("neighbours", "clearest", "newest"):
        raise ValueError(text)
    return name


Text = Annotated[str, Field(min_length=1)]


PathOrUrl = Annotated[Text, AfterValidator(_resolve)]


StorageUrl = Annotated[Text, AfterValidator(_storage_url)]


HttpUrl = Annotated[Text, AfterValidator(_http)]


Tile = Annotated[Text, AfterValidator(tile_id)]


Integer = Annotated[int, BeforeValidator(number_of)]


Number = Annotated[float, BeforeValidator(number_of)]


Boolean = Annotated[bool, BeforeValidator(_boolean)]


Share = Annotated[float, BeforeValidator(share_of)]


Policy = Annotated[str, AfterValidator(_policy)]


Date = Annotated[dt.date, Field(strict=False)]


class Section(BaseModel):
    """Every field's description says what is allowed: errors quote it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


def exactly_one(section: BaseModel, name: str) -> None:
    """Raises unless exactly one of the section's choices is given."""
    keys = CHOICES[name]
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        raise PydanticCustomError(
            "choice",
            "found {found}, expected exactly one of {keys}",
            {"found": " and ".join(given) or "none", "keys": ", ".join(keys)},
        )
