"""One scene per acquisition: the best of several products."""

from __future__ import annotations

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from difffusr.pipeline.scenes.item import Scene, describe
from difffusr.pipeline.scenes.providers import requester_pays

log = logging.getLogger("difffusr.catalog")


def one_per_acquisition(scenes: Iterable[Scene]) -> list[Scene]:
    """The best product of each acquisition of a tile; the others are logged with the reason.

    Two halves of a tile received at different stations are not duplicates: they hardly overlap.
    """
    kept: defaultdict[tuple[str, int], list[Scene]] = defaultdict(list)
    for scene in sorted(scenes, key=_rank, reverse=True):
        day = scene.datetime.toordinal()
        # Providers' times differ by minutes, so look beyond midnight as well.
        near = (other for d in (day - 1, day, day + 1) for other in kept.get((scene.tile, d), ()))
        better = next((other for other in near if _same_acquisition(scene, other)), None)
        if better is None:
            kept[scene.tile, day].append(scene)
        else:
            log.info(
                "left out: %s: same acquisition as %s, which %s", describe(scene), better.id, _advantage(better, scene)
            )
    return [scene for some in kept.values() for scene in some]


class _Rank(NamedTuple):
    """What makes a product better than another of the same acquisition, most important first."""

    files: int
    baseline: str
    cogs: int
    free: bool
    updated: str
    name: tuple[str, str]  # so that the order of the catalogue does not matter


def _rank(scene: Scene) -> _Rank:
    assets = scene.assets.values()
    return _Rank(
        files=len(assets) + (scene.scl is not None),
        baseline=scene.baseline,
        cogs=sum(asset.driver == "GTiff" for asset in assets),
        free=not any(requester_pays(asset.href) for asset in assets),
        updated=scene.updated or "",
        name=(scene.collection, scene.id),
    )


def _advantage(better: Scene, worse: Scene) -> str:
    """Why one product is preferred, worded to follow "which"."""
    reasons = (
        "has more bands",
        f"has the newer baseline {better.baseline}",
        "is cheaper to read (COG)",
        "is cheaper to read (not requester pays)",
        f"was updated later ({better.updated})",
        f"is as good and comes from {better.collection or 'no collection'}",
    )
    differs = [one != other for one, other in zip(_rank(better), _rank(worse), strict=True)]
    return reasons[differs.index(True) if True in differs else -1]


def _same_acquisition(one: Scene, other: Scene) -> bool:
    if one.id == other.id:
        return True
    if one.datatake and other.datatake:
        same = one.datatake == other.datatake
    else:
        same = abs(one.datetime - other.datetime) <= dt.timedelta(minutes=1)
    if not same:
        return False
    smaller = min(one.footprint.area, other.footprint.area)
    return bool(one.footprint.intersection(other.footprint).area > 0.5 * smaller)
