"""STAC search → scenes: the products that cover the area in the period, without duplicates."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.scenes.documents import items_of
from difffusr.pipeline.scenes.duplicates import without_duplicates
from difffusr.pipeline.scenes.item import MissingBandError, Scene, scene_from_item
from difffusr.pipeline.scenes.question import Search

log = logging.getLogger("difffusr.catalog")


def find_scenes(config: RunConfig, bands: Sequence[str] = BANDS) -> list[Scene]:
    """The scenes of the configured source within area, period, collection and limits, without duplicates, ordered by
    (datetime, tile, id).

    A scene without one of `bands` is left out with a warning. Raises CatalogError when the source cannot be read, when
    nothing is found (saying what was searched and why items were dropped), when no scene has the bands, and when an
    item is not understood: radiometry is looked up, never guessed.
    """
    search = Search.of(config)
    scenes: list[Scene] = []
    lacking: list[MissingBandError] = []
    for item, base in search.unique(items_of(search)):
        try:
            if reason := search.why_not(item):
                search.dropped[reason] += 1
                continue
            scenes.append(scene_from_item(item, base, remote=search.remote, bands=bands))
        except MissingBandError as error:
            lacking.append(error)
        except _MALFORMED as error:
            raise CatalogError(
                f"item {item['id']}: one of its fields is not what STAC says it is: {one_line(error)}; correct the "
                "item or leave it out"
            ) from None
    if lacking and not scenes:
        more = f" (and {len(lacking) - 1} more like it)" if len(lacking) > 1 else ""
        raise CatalogError(f"no scene has all bands: {lacking[0]}{more}")
    for missing in lacking:
        log.warning("left out: %s", missing)
    if not scenes:
        raise CatalogError(search.nothing_found())
    kept = without_duplicates(scenes)
    log.info("%d scenes of %d items from %s", len(kept), search.seen, search.name)
    return sorted(kept, key=_order)


#: What the code that reads an item raises for fields of the wrong type.
_MALFORMED = (AttributeError, LookupError, TypeError, ValueError)


def _order(scene: Scene) -> tuple[dt.datetime, str, str]:
    return scene.datetime, scene.tile, scene.id
