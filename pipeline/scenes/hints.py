"""What an item says about its files: which is which band, and where its pixels lie.

The file is right, not the item: `proj:transform`, `proj:shape` and `gsd` are hints, used where they are plausible.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import GSD_M
from difffusr.pipeline.geo import to_zone
from difffusr.pipeline.ground.urls import path_in
from difffusr.pipeline.scenes.fields import number_in
from difffusr.pipeline.scenes.left_out import ItemError
from difffusr.pipeline.scenes.providers import asset_names

#: Metres of a pixel of each band's native file; "CLD" is the product's own cloud probability.
NATIVE_M = {**GSD_M, "SCL": 20, "CLD": 20}

#: Metres of a pixel that files of cloud probability have; the first are taken where there is a choice.
CLOUD_M = (20.0, 60.0)

#: Side of a tile's square, and the largest pixels of an overview of one.
_TILE_M, _COARSEST_M = 109_800.0, 1000.0

Transform = tuple[float, float, float, float, float, float]

# ---- which file is which band ---------------------------------------------------------------------------------------

#: Asset keys: `B02`, `blue`, `scl`, with an optional resolution (`B02_10m`) and Earth Search's mark of originals.
_KEY = re.compile(r"(?P<name>(?:msk_)?[a-z0-9]+)(?:_(?P<gsd>[0-9]{2})m)?(?P<original>-jp2)?", re.IGNORECASE)

#: The resolution in the name of a product's file.
_IN_FILE_NAME = re.compile(r"(?:_(?:B[0-9][0-9A]|SCL)|CLD|CLDPRB)_([0-9]{2})m\.[a-z0-9]+$", re.IGNORECASE)

#: What products call their cloud probability, beside `CLD`; catalogues' own names are in `PROVIDERS`.
_CLOUD_NAMES = dict.fromkeys(("cldprb", "msk_cldprb"), "CLD")


def native_files(assets: Mapping[str, Any]) -> dict[str, str]:
    """By band, SCL and CLD, the key of its asset at native resolution, a COG rather than a JP2. CLD may have 60 m where
    there is none of 20 m.

    A resolution in the key or the file's name decides. One in another field may be wrong: an asset that seems to have
    another is taken where there is no better one, and its file decides.
    """
    names = {**asset_names(), **_CLOUD_NAMES}
    found: dict[str, list[tuple[bool, bool, str]]] = {}
    for key, asset in assets.items():
        name = _parts(key)[0]
        band = names.get(key.lower()) or names.get(name.lower(), name.upper())
        kind = driver_of(asset) if band in NATIVE_M else None
        if kind is None:
            continue
        named = _named_m(key, asset["href"])
        if named in (None, NATIVE_M[band]) or (band == "CLD" and named in CLOUD_M):
            said = list(_resolutions(asset)) if named is None else []
            doubtful = (bool(said) and NATIVE_M[band] not in said) or named not in (None, NATIVE_M[band])
            found.setdefault(band, []).append((doubtful, kind != "GTiff", key))
    return {band: min(keys)[2] for band, keys in found.items()}


def driver_of(asset: object) -> Literal["GTiff", "JP2OpenJPEG"] | None:
    """GDAL's driver by media type, else by suffix; None for other files, and for an asset without href."""
    if not isinstance(asset, dict) or not isinstance(asset.get("href"), str) or not asset["href"].strip():
        return None
    media = str(asset.get("type") or "").lower()
    if media.startswith("image/jp2"):
        return "JP2OpenJPEG"
    if media.startswith(("image/tiff", "image/vnd.stac.geotiff")):
        return "GTiff"
    end = "" if media else _path(asset["href"]).lower().rpartition(".")[2]
    return "JP2OpenJPEG" if end == "jp2" else "GTiff" if end in ("tif", "tiff") else None


def _named_m(key: str, href: str) -> int | None:
    """Metres of a pixel by an asset's key or the name of its file."""
    if (gsd := _parts(key)[1]) is not None:
        return gsd
    found = _IN_FILE_NAME.search(_path(href))
    return int(found[1]) if found else None


def _path(href: str) -> str:
    """The path of an address, "" where it is none."""
    try:
        return path_in(href)
    except ValueError:
        return ""


@lru_cache(maxsize=1024)  # catalogues of many thousand items use few keys
def _parts(key: str) -> tuple[str, int | None]:
    """The name in an asset's key, "" where it has none, and the metres in it."""
    match = _KEY.fullmatch(key)
    return (match["name"], int(match["gsd"]) if match["gsd"] else None) if match else ("", None)


def _resolutions(asset: Mapping[str, Any]) -> Iterator[float]:
    """Metres of a pixel wherever fields of an asset say so."""
    transform = _north_up(asset)
    for value in (asset.get("gsd"), *raster_values(asset, "spatial_resolution"), transform and transform[0]):
        if (metres := number_in(value)) is not None:
            yield metres


# ---- what its values mean -------------------------------------------------------------------------------------------


def raster_values(asset: Mapping[str, Any], name: str) -> list[Any]:
    """The different values of a field of the raster extension: on the asset or its first band, or in raster:bands."""
    key, found = f"raster:{name}", [asset.get(f"raster:{name}"), asset.get(name) if name == "nodata" else None]
    for place, keys in (("bands", (key, name)), ("raster:bands", (name,))):
        bands = asset.get(place)
        first = bands[0] if isinstance(bands, list) and bands else None
        if isinstance(first, dict):
            found += [first.get(key) for key in keys]
    return [value for number, value in enumerate(found) if value is not None and value not in found[:number]]


def raster_number(what: str, asset: Mapping[str, Any], name: str) -> float | None:
    """A number of the raster extension, None where it is absent. `what` begins errors.

    Raises ItemError where it is not a number, or is stated twice and differs.
    """
    values = raster_values(asset, name)
    number = number_in(values[0]) if len(values) == 1 else None
    if values and number is None:
        told = " and ".join(str(value)[:60] for value in values)
        raise ItemError(f"{what}: its raster {name} is {told}, expected one number; correct it", f"with a bad {name}")
    return number


# ---- where its pixels lie -------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where an item says that a file's pixels lie, as far as it is to be believed. See `Asset`."""

    gsd_m: float
    shape: tuple[int, int] | None
    transform: Transform | None
    implausible: bool


def place_of(asset: Mapping[str, Any], native_m: float, ground: tuple[float, float, float, float]) -> Place:
    """Where an asset's pixels lie.

    Believed are north-up pixels of the native size, or of any size where the file is a whole tile, in a file that is
    not larger than a tile and covers the scene's ground.

    Args:
        ground: bounds of the item's footprint in metres of the zone: left, bottom, right, top.
    """
    transform, size = _north_up(asset), _shape(asset)
    bad = (transform is None and asset.get("proj:transform") is not None) or (
        size is None and asset.get("proj:shape") is not None
    )
    if transform is None:
        return Place(native_m, None, None, bad)
    gsd = transform[0]
    sides = [side * gsd for side in size or ()]
    whole = bool(sides) and gsd <= _COARSEST_M and all(abs(side - _TILE_M) <= 2 * gsd for side in sides)
    plausible = (gsd == native_m or whole) and all(side <= _TILE_M + 2 * gsd for side in sides)
    if not plausible or not _near(transform, ground):
        return Place(native_m, None, None, True)
    if size is None or not _covers(transform, size, ground):
        return Place(gsd, None, None, bad)
    return Place(gsd, size, transform, bad)


def bounds_in_zone(footprint: BaseGeometry, epsg: int) -> tuple[float, float, float, float]:
    """A footprint's bounds in metres of a zone: left, bottom, right, top."""
    left, bottom, right, top = to_zone(footprint, epsg).bounds
    return left, bottom, right, top


def _north_up(asset: Mapping[str, Any]) -> Transform | None:
    """`proj:transform` if it is of north-up square pixels."""
    values = asset.get("proj:transform")
    numbers = [number_in(value) for value in values[:6]] if isinstance(values, list | tuple) else []
    if len(numbers) < 6 or None in numbers:
        return None
    a, b, c, d, e, f = (number or 0.0 for number in numbers)
    return (a, b, c, d, e, f) if a > 0 and b == d == 0 and e == -a else None


def _shape(asset: Mapping[str, Any]) -> tuple[int, int] | None:
    """`proj:shape` if it is two numbers of pixels."""
    values = asset.get("proj:shape")
    sides = [number_in(value, 1, 1e6) for value in values] if isinstance(values, list | tuple) else []
    if len(sides) != 2 or not all(side is not None and side == int(side) for side in sides):
        return None
    rows, columns = (int(side or 0) for side in sides)
    return rows, columns


def _near(transform: Transform, ground: tuple[float, float, float, float]) -> bool:
    """Whether a file that begins there, of at most a tile, can show some of the ground."""
    left, bottom, right, top = ground
    x, y = transform[2], transform[5]
    return x <= right and y >= bottom and x >= left - 1.1 * _TILE_M and y <= top + 1.1 * _TILE_M


def _covers(transform: Transform, size: tuple[int, int], ground: tuple[float, float, float, float]) -> bool:
    """Whether a file covers the ground, but for what a footprint of few corners is off."""
    left, bottom, right, top = ground
    gsd, x, y = transform[0], transform[2], transform[5]
    off = 60 + 0.03 * gsd * max(size)
    rows, columns = size
    return x <= left + off and y >= top - off and x + columns * gsd >= right - off and y - rows * gsd <= bottom + off
