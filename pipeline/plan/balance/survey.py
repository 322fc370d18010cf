"""Differences between all scenes of a plan, in one sweep from north to south."""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.engine import in_order
from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.plan.balance.fit import corners
from difffusr.pipeline.plan.balance.pairs import Pairs, compare
from difffusr.pipeline.plan.balance.samples import Sampled, sample
from difffusr.pipeline.scenes import ChipRules, Nadir, Scene

log = logging.getLogger("difffusr.planner")

#: Bands by which change on the ground is told.
STEADY = tuple(BANDS.index(band) for band in ("B8A", "B11", "B12"))

#: Bytes of a point, those of the work on it included; bytes of the points that are held at a time; points are no
#: closer than this.
_POINT_BYTES, _HELD_BYTES, _CLOSEST_M = 60, 1.0e9, 120.0

#: With so few scenes all that overlap are compared; with more, so many of one tile and of its neighbours, the nearest
#: in time.
_ALL, _OF_TILE, _OF_OTHERS = 40, 4, 6

_DEGREE_M = 111_320.0


@dataclass(frozen=True, eq=False)
class Surveyed:
    """What a survey found.

    Attributes:
        pairs: of scenes by their numbers.
        nadir, square: by number, of the scenes that could be read (`Sampled`).
        mean: (scenes, bands) mean DN of each scene's points, 0 without any.
        centre: (scenes, 4) mean of the corners' weights over them.
        unread: why other scenes could not be read, by number.
        spacing_m: between points.
    """

    pairs: Pairs
    nadir: Mapping[int, Nadir]
    square: Mapping[int, tuple[float, float, float]]
    mean: NDArray[np.float64]
    centre: NDArray[np.float64]
    unread: Mapping[int, ReadError]
    spacing_m: float


@dataclass(frozen=True, eq=False)
class _Reach:
    """Where a scene lies, in degrees; `east` may exceed 180."""

    west: float
    south: float
    east: float
    north: float

    @classmethod
    def of(cls, scene: Scene) -> _Reach:
        west, south, east, north = scene.footprint.bounds
        if east - west > 180:  # cut at 180°: as one box
            parts = [part.bounds for part in scene.footprint.geoms]
            west = min(part[0] for part in parts if part[0] > 0)
            east = max(part[2] for part in parts if part[2] <= 0) + 360
        return cls(west, south, east, north)

    def meets(self, other: _Reach) -> bool:
        if self.south > other.north or other.south > self.north:
            return False
        return any(self.west <= other.east + turn and other.west + turn <= self.east for turn in (-360, 0, 360))

    @property
    def area_m2(self) -> float:
        width = (self.east - self.west) * math.cos(math.radians((self.south + self.north) / 2))
        return width * (self.north - self.south) * _DEGREE_M**2


def survey(scenes: Sequence[Scene], sun: str, rules: ChipRules) -> Surveyed:
    """Sample the scenes, on Ray in a cluster, and compare those that overlap.

    Only the samples of scenes that the sweep has not passed are in memory; the points are as far apart as that needs.
    """
    reach = [_Reach.of(scene) for scene in scenes]
    order = sorted(range(len(scenes)), key=lambda number: (-reach[number].north, scenes[number].id))
    spacing = spacing_of([reach[number] for number in order])
    held: dict[int, Sampled] = {}
    rows: list[Pairs] = []
    nadir, square, unread = {}, {}, {}
    mean, centre = np.zeros((len(scenes), len(BANDS))), np.full((len(scenes), 4), 0.25)
    read = in_order(partial(_try_sample, spacing_m=spacing, sun=sun, rules=rules), [scenes[number] for number in order])
    for number, found in zip(order, read, strict=True):
        if isinstance(found, ReadError):
            unread[number] = found
            continue
        nadir[number], square[number] = found.nadir, found.square
        if len(found.samples.number):
            mean[number] = found.samples.dn.mean(axis=1)
            centre[number] = corners(found.samples.place).mean(axis=0)
        held = {one: kept for one, kept in held.items() if reach[one].south <= reach[number].north}
        partners = [one for one in held if reach[one].meets(reach[number])]
        for one in _chosen(scenes, number, partners):
            pair = compare(one, held[one].samples, number, found.samples, STEADY, spacing)
            if pair is not None:
                rows.append(pair)
        held[number] = found
    return Surveyed(Pairs.of(rows, len(BANDS)), nadir, square, mean, centre, unread, spacing)


def _try_sample(scene: Scene, spacing_m: float, sun: str, rules: ChipRules) -> Sampled | ReadError:
    try:
        return sample(scene, spacing_m, sun, rules)
    except ReadError as error:
        return error


def spacing_between(scenes: Sequence[Scene]) -> float:
    """Metres between the points at which these scenes are compared."""
    reach = sorted((_Reach.of(scene) for scene in scenes), key=lambda one: -one.north)
    return spacing_of(reach)


def most_overlaps(scenes: int) -> int:
    """How many pairs of so many scenes are compared, at most."""
    return scenes * (scenes - 1) // 2 if scenes <= _ALL else scenes * (_OF_TILE + _OF_OTHERS)


def spacing_of(reach: Sequence[_Reach]) -> float:
    """Metres between points, such that those of the scenes that a sweep holds at a time fit in memory; steps of √2, so
    that a further scene seldom changes it.

    Args:
        reach: from north to south.
    """
    most = area = 0.0
    held: list[tuple[float, float]] = []  # a heap, the northernmost end first
    for one in reach:
        while held and -held[0][0] > one.north:
            area -= heapq.heappop(held)[1]
        heapq.heappush(held, (-one.south, one.area_m2))
        area += one.area_m2
        most = max(most, area)
    wanted = math.sqrt(max(most, 1.0) * _POINT_BYTES / _HELD_BYTES)
    return float(_CLOSEST_M * math.sqrt(2) ** max(0, math.ceil(2 * math.log2(wanted / _CLOSEST_M))))


def _chosen(scenes: Sequence[Scene], number: int, partners: Sequence[int]) -> list[int]:
    """The scenes that one is compared with, of those that overlap it: all, or the nearest in time."""
    if len(scenes) <= _ALL:
        return sorted(partners)
    scene = scenes[number]

    def apart(one: int) -> tuple[float, str]:
        return abs((scenes[one].datetime - scene.datetime).total_seconds()), scenes[one].id

    same = sorted((one for one in partners if scenes[one].tile == scene.tile), key=apart)[:_OF_TILE]
    others = sorted((one for one in partners if scenes[one].tile != scene.tile), key=apart)[:_OF_OTHERS]
    return sorted(same + others)
