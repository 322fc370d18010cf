"""What must be added to a file's DN to get reflectance: looked up by place, collection and baseline, never guessed."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import bare_href, bucket_of


class Stored(NamedTuple):
    """What an item says of a file that bears on its DN.

    `name` says whose file it is, for errors. `baseline` has the form 05.09. `flag` is the item's boa_offset_applied,
    `declared` the file's raster offset (reflectance), each None where absent.
    """

    name: str
    href: str
    driver: str
    collection: str
    baseline: str
    flag: bool | None
    declared: float | None


def offset_dn(stored: Stored) -> int:
    """What to add to a file's DN so that it is reflectance × 10 000: 0 or −1000.

    ESA adds 1000 to the DN of products from processing baseline 04.00 (25 January 2022) on, and to older acquisitions
    reprocessed since; baselines from 06.00 on are not known yet. Raises CatalogError where nothing says for sure.
    """
    major = int(stored.baseline[:2])
    if major < 4:
        return 0
    rule = _rule(stored)
    if major > 5 or rule is None:
        raise CatalogError(f"{_looked_at(stored)}; {_TODO}")
    if rule.pixels == "by flag":
        if stored.flag is None:
            raise CatalogError(f"{_looked_at(stored)}; {_TODO}")
        return 0 if stored.flag else -1000
    if rule.declared != "ignored" and (
        rule.declared == "needed" if stored.declared is None else abs(float(stored.declared) + 0.1) > 1e-6
    ):
        raise CatalogError(f"{_looked_at(stored)}, expected a raster offset of -0.1; {_TODO}")
    return -1000


_TODO = "take the scene from a collection whose DN are known, or leave it out"


def _looked_at(stored: Stored) -> str:
    flag = "absent" if stored.flag is None else str(stored.flag).lower()
    bucket = bucket_of(stored.href) or "none known"
    return (
        f"{stored.name} ({bare_href(stored.href)}): radiometry unknown: bucket {bucket}, "
        f"collection {stored.collection or 'none'}, baseline {stored.baseline}, boa_offset_applied {flag}, "
        f"raster offset {'absent' if stored.declared is None else stored.declared}"
    )


class _Rule(NamedTuple):
    """Where a file lies, and what that says of its DN from baseline 04.00 on.

    `pixels` is "as produced" (ESA's offset of +1000 is in the DN, so −1000 is to be added) or "by flag" (the item's
    boa_offset_applied tells whether the host has removed it). `declared` is what becomes of the item's raster offset:
    "ignored" (it is known to be wrong there), "checked" (an error if it is there and not −0.1), "needed" (it must be).
    """

    bucket: str | None  # None: any other place
    collection: str  # regular expression
    driver: str | None
    pixels: Literal["as produced", "by flag"]
    declared: Literal["ignored", "checked", "needed"]


#: The first rule that fits is taken; where none does, radiometry is unknown.
#: - Earth Search's converter to COGs removes the offset and says so in boa_offset_applied, but copies the product's
#:   raster offset (−0.1) to COGs and originals alike. Its Collection-1 collection does not remove it.
#: - Planetary Computer (COGs) and CDSE (JP2) keep the products' DN.
#: - Copies elsewhere: COGs in the manner of Earth Search by its flag, and JP2, which nobody encodes anew, as produced.
_RADIOMETRY = (
    _Rule("sentinel-cogs", r"sentinel-2-l2a|sentinel-s2-l2a-cogs", "GTiff", "by flag", "ignored"),
    _Rule("sentinel-s2-l2a", r".*", "JP2OpenJPEG", "as produced", "ignored"),
    _Rule("e84-earth-search-sentinel-data", r"sentinel-2-c1-l2a", "GTiff", "as produced", "checked"),
    _Rule("sentinel2l2a01", r"sentinel-2-l2a", "GTiff", "as produced", "checked"),
    _Rule("eodata", r"sentinel-2-.*l2a.*", "JP2OpenJPEG", "as produced", "checked"),
    _Rule(None, r"sentinel-2-l2a|sentinel-s2-l2a-cogs", "GTiff", "by flag", "ignored"),
    _Rule(None, r"sentinel-2-c1-l2a", "GTiff", "as produced", "needed"),
    _Rule(None, r"sentinel-(2|2-c1|s2)-l2a", "JP2OpenJPEG", "as produced", "ignored"),
)


#: A file in the folders of a SAFE product (stactools describes such): DN as produced.
_SAFE_FILE = re.compile(r".*/IMG_DATA/R\d0m/[^/]+_B\w\w_\d0m\.(tif|jp2)")


def _rule(stored: Stored) -> _Rule | None:
    """The rule that a file falls under, None where none does."""
    bucket = bucket_of(stored.href)
    place = bucket if bucket in {rule.bucket for rule in _RADIOMETRY} else None
    if place is None and _SAFE_FILE.fullmatch(urlsplit(stored.href).path):
        declared: Literal["checked", "needed"] = "checked" if stored.driver == "JP2OpenJPEG" else "needed"
        return _Rule(None, r".*", stored.driver, "as produced", declared)
    fits = (
        rule
        for rule in _RADIOMETRY
        if rule.bucket == place and rule.driver == stored.driver and re.fullmatch(rule.collection, stored.collection)
    )
    return next(fits, None)
