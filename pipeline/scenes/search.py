"""STAC search → scenes: the products that cover the area in the period, without duplicates."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.scenes.documents import items_of
from difffusr.pipeline.scenes.duplicates import without_duplicates
from difffusr.pipeline.scenes.fields import MALFORMED, Item, check_form, name_of
from difffusr.pipeline.scenes.item import Scene, scene_from_item
from difffusr.pipeline.scenes.left_out import ItemError, LeftOut
from difffusr.pipeline.scenes.question import Search

log = logging.getLogger("difffusr.catalog")


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        scenes: ordered by (datetime, tile, id).
        seen: items that the source listed.
        filtered: of these outside area, period, collection or limits, by reason.
        left_out: of these with something wrong.
    """

    scenes: list[Scene]
    seen: int
    filtered: Mapping[str, int]
    left_out: LeftOut

    def to_json(self) -> dict[str, Any]:
        """The counts."""
        return {"seen": self.seen, "filtered": dict(self.filtered), "left_out": self.left_out.to_json()}


def find_scenes(config: RunConfig, bands: Sequence[str] = BANDS) -> list[Scene]:
    """The scenes that `search_scenes` finds."""
    return search_scenes(config, bands).scenes


def search_scenes(config: RunConfig, bands: Sequence[str] = BANDS) -> Found:
    """The scenes of the configured source within area, period, collection and limits, without duplicates.

    An item that lacks one of `bands`, is not understood or contradicts itself is left out and counted by reason, each
    of which is logged once: radiometry is looked up, never guessed. Raises CatalogError when the source cannot be read,
    when nothing is left (saying what was searched and why items were dropped), and when more is left out than
    `source.max_left_out` allows.
    """
    search = Search.of(config)
    scenes: list[Scene] = []
    doubted: list[str] = []
    for item, base in search.unique(items_of(search)):
        try:
            scene = _scene(search, item, base, bands, doubted)
        except ItemError as error:
            search.leave_out(item, error, base)
        else:
            scenes += [] if scene is None else [scene]
    search.left_out.warn()
    if doubted:
        log.warning(
            "proj:transform or proj:shape of %d files cannot be right (%s%s): ignored, the files decide",
            len(doubted), "; ".join(doubted[:2]), "; …" if len(doubted) > 2 else "",
        )  # fmt: skip
    if not scenes:
        raise CatalogError(search.nothing_found())
    search.left_out.check(len(scenes), config.source.max_left_out)
    kept = without_duplicates(scenes)
    log.info("%d scenes of %d items from %s", len(kept), search.seen, search.name)
    return Found(sorted(kept, key=_order), search.seen, search.dropped, search.left_out)


def _scene(search: Search, item: Item, base: str, bands: Sequence[str], doubted: list[str]) -> Scene | None:
    """An item as a scene, None where it is not wanted, which is counted. Raises ItemError where something is wrong."""
    if not isinstance(item, dict):
        raise ItemError(f"an item is a {type(item).__name__}, expected an object; leave it out", "not valid STAC")
    try:
        check_form(item)
        if reason := search.why_not(item):
            search.dropped[reason] += 1
            return None
        doubts: list[str] = []
        scene = scene_from_item(item, base, remote=search.remote, bands=bands, doubt=doubts.append)
    except ItemError:
        raise
    except CatalogError as error:
        raise ItemError(str(error), "not valid STAC") from None
    except MALFORMED as error:
        raise ItemError(
            f"item {name_of(item)}: one of its fields is not what STAC says it is: {one_line(error)}; correct the item "
            "or leave it out",
            "not valid STAC",
        ) from None
    doubted += doubts
    return scene


def _order(scene: Scene) -> tuple[dt.datetime, str, str]:
    return scene.datetime, scene.tile, scene.id
