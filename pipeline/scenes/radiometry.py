"""What must be added to a file's DN to get reflectance: by provider, collection and baseline, never guessed."""

from __future__ import annotations

import re
from typing import NamedTuple

from difffusr.pipeline.ground.urls import bare_href, bucket_of, path_in
from difffusr.pipeline.scenes.left_out import ItemError
from difffusr.pipeline.scenes.providers import DnRule, Provider, provider_of


class Stored(NamedTuple):
    """What an item says about a file that matters for its DN.

    `name` says which file it is, for errors. `baseline` has the form 05.09. `flag` is the item's boa_offset_applied,
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
    """What to add to a file's DN to get reflectance × 10 000: 0 or −1000.

    ESA adds 1000 to the DN of products from processing baseline 04.00 (25 January 2022) on, and of older acquisitions
    reprocessed since. Other baselines (06.00 and later, 99.99 of reprocessing campaigns) say nothing: there a declared
    offset of −0.1 counts, where the provider's declarations are to be believed. Raises ItemError where the offset is
    not certain.
    """
    rule = _rule(stored, provider_of(stored.href))
    believed = rule is not None and rule.pixels == "as produced" and rule.declared != "ignored"
    declared = stored.declared is not None and abs(stored.declared + 0.1) <= 1e-6
    major = int(stored.baseline[:2])
    if 1 <= major < 4:
        if believed and declared:
            raise _unknown(stored, "; products of that baseline have no offset")
        return 0
    if major not in (4, 5):
        if believed and declared:
            return -1000
        raise _unknown(stored)
    if rule is None:
        raise _unknown(stored)
    if rule.pixels == "by flag":
        if stored.flag is None:
            raise _unknown(stored)
        return 0 if stored.flag else -1000
    if (stored.declared is not None or rule.declared == "needed") and believed and not declared:
        raise _unknown(stored, ", expected a raster offset of -0.1")
    return -1000


def by_flag(collection: str, driver: str, href: str) -> bool:
    """Whether an item's flag alone says if a file's offset is removed."""
    rule = _rule(Stored("", href, driver, collection, "", None, None), provider_of(href))
    return rule is not None and rule.pixels == "by flag"


def _unknown(stored: Stored, why: str = "") -> ItemError:
    todo = "take the scene from a collection whose DN are known, or leave it out"
    return ItemError(f"{_looked_at(stored)}{why}; {todo}", "radiometry unknown")


def _looked_at(stored: Stored) -> str:
    flag = "absent" if stored.flag is None else str(stored.flag).lower()
    bucket = bucket_of(stored.href) or ", ".join(provider_of(stored.href).buckets) or "none known"
    return (
        f"{stored.name} ({bare_href(stored.href)}): radiometry unknown: bucket {bucket}, "
        f"collection {stored.collection or 'none'}, baseline {stored.baseline}, boa_offset_applied {flag}, "
        f"raster offset {'absent' if stored.declared is None else stored.declared}"
    )


def _rule(stored: Stored, provider: Provider) -> DnRule | None:
    """The first of a provider's rules that fits a file, None where none does."""
    fits = (
        rule
        for rule in provider.radiometry
        if rule.driver == stored.driver
        and re.fullmatch(rule.collection, stored.collection)
        and (rule.path is None or re.fullmatch(rule.path, path_in(stored.href)))
    )
    return next(fits, None)
