"""The processing level of an item, judged by all that states it: L1C is never taken for L2A."""

from __future__ import annotations

import re
from collections.abc import Iterable

from difffusr.pipeline.scenes.fields import Item, name_of, properties_of
from difffusr.pipeline.scenes.left_out import ItemError, shown_name

#: Properties whose whole value is a level or a type of product: S2MSI2A, L2A, Level-2A.
_TYPES = (
    "s2:product_type", "product:type", "sentinel:product_type", "productType",
    "processing:level", "s2:processing_level", "processingLevel",
)  # fmt: skip
_TYPE = re.compile(r"(?:S2_?MSI_?)?(?:level)?[-_ ]?L?[-_ ]?([0-9][A-C]?)p?", re.IGNORECASE)

#: Properties with the name of a product, granule or datastrip, which has the level in it.
_NAMES = (
    "s2:product_uri", "sentinel:product_id", "s2:product_title", "title", "s2:granule_id", "s2:tile_id",
    "s2:datastrip_id",
)  # fmt: skip
_NAME = re.compile(r"(?:MSI_?|(?<![A-Za-z0-9]))L(1C|2A)(?![A-Za-z0-9])", re.IGNORECASE)

#: In the address of a file: the name of its product, or the bucket of products of level 1C.
_IN_HREF = re.compile(r"MSI_?L(1C|2A)_|sentinel-s2-l(1c)(?![a-z0-9])", re.IGNORECASE)


def other_level(item: Item) -> str | None:
    """The level of an item that is not of level 2A, as a reason not to want it; None for level 2A.

    Raises ItemError where what is stated contradicts itself, or nothing says which level it is.
    """
    stated = dict(_statements(item))
    collection = _NAME.search(str(item.get("collection") or ""))
    if collection:
        stated["collection"] = collection[1].upper()
    if not stated and not any(str(key).lower().startswith("scl") for key in item.get("assets") or {}):
        raise ItemError(
            f"item {name_of(item)}: nothing says that it is of level 2A: no product type, processing level, name of a "
            "product, or SCL asset; add one",
            "of unknown level",
        )
    levels = {"2A" if level == "2" else level for level in stated.values()}
    if len(levels) > 1:
        told = ", ".join(f"{place} says {level}" for place, level in stated.items())
        raise ItemError(
            f"item {name_of(item)}: its levels contradict each other: {told}; correct it, or leave it out",
            "with contradicting levels",
        )
    return f"of level {levels.pop()}" if levels - {"2A"} else None


def _statements(item: Item) -> Iterable[tuple[str, str]]:
    """Where an item states a level, and which: 2A, 1C, or the whole text where it is none of ESA's."""
    properties = properties_of(item)
    for key in _TYPES:
        if (value := properties.get(key)) is not None:
            found = _TYPE.fullmatch(value.strip()) if isinstance(value, str) else None
            yield key, found[1].upper() if found else shown_name(value)
    for key, value in (*((key, properties.get(key)) for key in _NAMES), ("id", item.get("id"))):
        if isinstance(value, str) and (found := _NAME.search(value)):
            yield key, found[1].upper()


def check_level_of_file(what: str, href: str) -> None:
    """Raise ItemError where a file's address says that it is of level 1C; `what` begins the message."""
    found = list(_IN_HREF.finditer(href))
    if found and (found[-1][1] or found[-1][2]).upper() == "1C":
        raise ItemError(f"{what}: its address is that of a product of level 1C; leave it out", "of level 1C")
