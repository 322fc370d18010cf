"""What the extensions of STAC say of their fields, as far as this project writes them: facts, not their schemas.

Each field has the place where it may stand ("item": properties of items, "asset": assets, "band": bands of assets,
"collection") and what its value must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Check = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _numbers(*counts: int) -> Check:
    return lambda value: isinstance(value, list) and len(value) in counts and all(map(_number, value))


def _class(value: Any) -> bool:
    return (
        _whole(value["value"])
        and re.fullmatch(r"[0-9A-Za-z_-]+", value["name"]) is not None
        and re.fullmatch(r"[0-9A-F]{6}", value.get("color_hint", "000000")) is not None
        and isinstance(value.get("nodata", False), bool)
        and set(value) <= {"value", "name", "title", "description", "color_hint", "nodata", "percentage", "count"}
    )


def _render(value: Any) -> bool:
    return (
        all(_text(asset) for asset in value["assets"])
        and all(_numbers(2)(pair) for pair in value.get("rescale", []))
        and all(_whole(index) and index > 0 for index in value.get("bidx", []))
        and ("bands" not in value or len(value["bands"]) == len(value["assets"]))
        and isinstance(value.get("colormap", {}), dict)
        and _text(value.get("resampling", "nearest"))
    )


def _dimension(value: Any) -> bool:
    if value["type"] == "spatial":
        return value["axis"] in ("x", "y", "z") and _numbers(2)(value["extent"])
    return "values" in value or "extent" in value


def _all(check: Check) -> Check:
    return lambda value: bool(value) and all(map(check, value.values() if isinstance(value, dict) else value))


_MULTIHASH = re.compile(r"1220[0-9a-f]{64}")

#: By prefix: where its schema lies, and the fields: places and check.
FIELDS: dict[str, tuple[str, dict[str, tuple[tuple[str, ...], Check]]]] = {
    "proj": ("projection/v2.0.0", {
        "proj:code": (("item", "asset"), lambda value: value is None or re.fullmatch(r"[A-Z]+:\d+", value) is not None),
        "proj:wkt2": (("item", "asset"), _text),
        "proj:bbox": (("item", "asset"), _numbers(4, 6)),
        "proj:shape": (("item", "asset"), lambda value: len(value) == 2 and all(map(_whole, value))),
        "proj:transform": (("item", "asset"), _numbers(6, 9)),
    }),
    "raster": ("raster/v2.0.0", {
        "raster:scale": (("asset", "band"), _number),
        "raster:offset": (("asset", "band"), _number),
        "raster:spatial_resolution": (("asset", "band"), _number),
    }),
    "processing": ("processing/v1.2.0", {
        "processing:level": (("item",), lambda value: re.fullmatch("RAW|L[0-4][A-C]?", value) is not None),
        "processing:lineage": (("item",), _text),
        "processing:software": (("item",), lambda value: all(map(_text, value.values()))),
    }),
    "cube": ("datacube/v2.2.0", {
        "cube:dimensions": (("item",), _all(_dimension)),
        "cube:variables": (("item",), _all(lambda one: one["type"] in ("data", "auxiliary") and one["dimensions"])),
    }),
    "classification": ("classification/v2.0.0", {
        "classification:classes": (("asset", "band"), _all(_class)),
    }),
    "renders": ("render/v2.0.0", {"renders": (("item", "collection"), _all(_render))}),
    "zarr": ("zarr/v1.1.0", {
        "zarr:zarr_format": (("asset",), lambda value: value in (2, 3)),
        "zarr:node_type": (("asset",), lambda value: value in ("group", "array")),
        "zarr:consolidated": (("asset",), lambda value: isinstance(value, bool)),
    }),
    "xarray": ("xarray-assets/v1.0.0", {
        "xarray:open_kwargs": (("asset",), lambda value: isinstance(value, dict)),
        "xarray:storage_options": (("asset",), lambda value: isinstance(value, dict)),
    }),
    "file": ("file/v2.1.0", {
        "file:size": (("asset",), lambda value: _whole(value) and value > 0),
        "file:checksum": (("asset",), lambda value: _MULTIHASH.fullmatch(value) is not None),
    }),
}  # fmt: skip

_BAND_NAMES = {
    "coastal", "blue", "green", "red", "rededge", "nir", "nir08", "nir09", "swir16", "swir22",
    "rededge071", "rededge075", "rededge078",
}  # fmt: skip

#: The EO extension, whose two versions describe bands in two ways.
EO: dict[str, dict[str, tuple[tuple[str, ...], Check]]] = {
    "eo/v2.0.0": {
        "eo:common_name": (("band",), lambda value: value in _BAND_NAMES),
        "eo:center_wavelength": (("band",), _number),
    },
    "eo/v1.1.0": {
        "eo:common_name": (("band",), lambda value: value in _BAND_NAMES),
        "eo:center_wavelength": (("band",), _number),
        "eo:bands": (("asset",), _all(
            lambda band: set(band) <= {"name", "common_name", "center_wavelength", "full_width_half_max"}
            and band["common_name"] in _BAND_NAMES - {"rededge071", "rededge075", "rededge078"}
        )),
    },
}  # fmt: skip


def faults(document: Mapping[str, Any]) -> list[str]:
    """What of a document's fields is not as its extensions say; fields of extensions that it does not name, and
    extensions none of whose fields it has."""
    declared = {
        match[1]
        for uri in document["stac_extensions"]
        if (match := re.fullmatch(r"https://stac-extensions\.github\.io/([\w-]+/v[\d.]+)/schema\.json", uri))
    }
    known: dict[str, tuple[tuple[str, ...], Check]] = {}
    owner: dict[str, str] = {}
    for extension, fields in [*FIELDS.values(), *EO.items()]:
        if extension in declared:
            known |= fields
            owner |= dict.fromkeys(fields, extension)
    found, used = [], set()
    for place, name, value in _fields(document):
        if name not in known:
            found.append(f"{place}: {name} is of no extension that the document names")
            continue
        used.add(owner[name])
        places, check = known[name]
        if place not in places:
            found.append(f"{place}: {name} belongs to {' and '.join(places)}")
        try:
            good = check(value)
        except (AttributeError, KeyError, TypeError):
            good = False
        if not good:
            found.append(f"{place}: {name}: {value!r}")
    return [*found, *(f"{extension}: declared, not used" for extension in sorted(declared - used))]


def _fields(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every field with a prefix, and `renders`, with where it stands."""
    places: list[tuple[str, Mapping[str, Any]]] = [("item", document.get("properties", {}))]
    for asset in document.get("assets", {}).values():
        places.append(("asset", asset))
        places += [("band", band) for band in asset.get("bands", [])]
    for place, mapping in places:
        for name, value in mapping.items():
            if name == "renders" or (":" in name and not name.startswith("difffusr:")):
                yield place, name, value
