"""Products of one acquisition: the best is kept, and those that show ground which it may not show."""

from __future__ import annotations

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from difffusr.pipeline.scenes.item import Scene, describe
from difffusr.pipeline.scenes.providers import requester_pays

log = logging.getLogger("difffusr.catalog")


#: Per cent of a tile without data up to which a product shows all of it, and by which two figures for the same ground
#: may differ.
_WHOLE, _SAME = 0.1, 1.0


def without_duplicates(scenes: Iterable[Scene]) -> list[Scene]:
    """The scenes without products that add no ground to a better one of the same acquisition of a tile; what is left
    out is logged with the reason.

    Footprints do not tell: of two datastrips of one tile, or of a reprocessed part of it, each may have the whole tile
    as its outline. A product that may add ground stays, and the planner compares what both show.
    """
    kept: defaultdict[tuple[str, int], list[Scene]] = defaultdict(list)
    for scene in sorted(scenes, key=_rank, reverse=True):
        day = scene.datetime.toordinal()
        # Providers' times differ by minutes, so look beyond midnight as well.
        near = (other for d in (day - 1, day, day + 1) for other in kept.get((scene.tile, d), ()))
        better = next((other for other in near if _same_ground(other, scene)), None)
        if better is None:
            kept[scene.tile, day].append(scene)
        else:
            log.info(
                "left out: %s: same acquisition as %s, which %s", describe(scene), better.id, _advantage(better, scene)
            )
    return [scene for some in kept.values() for scene in some]


def order_in_acquisition(scenes: Sequence[Scene]) -> list[int]:
    """For each scene how many better products of the same acquisition and tile there are: 0 for the best."""
    better: defaultdict[tuple[str, str], int] = defaultdict(int)
    out = [0] * len(scenes)
    for number in sorted(range(len(scenes)), key=lambda number: _rank(scenes[number]), reverse=True):
        scene = scenes[number]
        acquisition = scene.tile, scene.datatake or f"{scene.datetime:%Y%m%d}"
        out[number] = better[acquisition]
        better[acquisition] += 1
    return out


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


def _same_ground(better: Scene, worse: Scene) -> bool:
    """Whether a product certainly shows nothing that a better one of the same acquisition does not show."""
    if better.id == worse.id:
        return True
    if not _same_acquisition(better, worse) or not _overlap(better, worse):
        return False
    if better.nodata is not None and better.nodata <= _WHOLE:
        return True
    if better.datastrip is None or better.datastrip != worse.datastrip:
        return False
    return better.nodata is not None and worse.nodata is not None and better.nodata <= worse.nodata + _SAME


def _same_acquisition(one: Scene, other: Scene) -> bool:
    if one.datatake and other.datatake:
        return one.datatake == other.datatake
    return abs(one.datetime - other.datetime) <= dt.timedelta(minutes=1)


def _overlap(one: Scene, other: Scene) -> bool:
    """Whether most of the smaller outline lies in the other one."""
    smaller = min(one.footprint.area, other.footprint.area)
    return bool(one.footprint.intersection(other.footprint).area > 0.5 * smaller)
