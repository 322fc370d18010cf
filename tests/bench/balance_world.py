"""A continent of scenes that are only numbers: what a survey would sample of them is made up on the way.

Tiles of 110 km lie 100 km apart in nine zones, twelve dates each. A scene shows the ground, which every point knows by
its number, through a gain of its own and an offset that differs from corner to corner; half of it is under cloud, and
on some of the ground something changed.
"""

from __future__ import annotations

import datetime as dt
import json
import resource
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.plan.balance import survey as surveying
from difffusr.pipeline.plan.balance.fit import corners, fit
from difffusr.pipeline.plan.balance.points import points_within
from difffusr.pipeline.plan.balance.samples import Sampled, Samples
from difffusr.pipeline.plan.balance.solution import guarded
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.nadir import Nadir
from difffusr.pipeline.scenes.rules import ChipRules

#: Side of a tile, and from one to the next, in metres; acquisitions of each, and days from one to the next.
SIDE_M, STEP_M, DATES, DAYS = 109_800, 100_000, 12, 5

#: Zones, and northings of the tiles: Europe.
ZONES, NORTHINGS = range(29, 38), range(7_700_000, 3_900_000, -STEP_M)

#: Clouds: cells along a tile, and the share of them that is clear.
CELLS, CLEAR = 10, 0.5

#: Standard deviations of what scenes do to the ground: gains; offsets and their change towards the corners, DN; noise
#: of a point, DN; the share of the ground that has changed, and by how many DN.
GAIN, OFFSET, SLOPE, NOISE, CHANGED, CHANGE = 0.01, 80.0, 15.0, 40.0, 0.1, 600

_NOWHERE = Nadir(0.0, 0.0, 1.0, np.ones((len(BANDS), 1, 1), np.float32), "nothing", "")


@dataclass(frozen=True)
class Tile:
    """A square in a zone."""

    epsg: int
    left: int
    top: int

    @property
    def name(self) -> str:
        return f"{self.epsg % 100}T{self.left // STEP_M}x{self.top // STEP_M}"

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        return (self.left, self.top - SIDE_M, self.left + SIDE_M, self.top)


def tiles() -> Iterator[Tile]:
    """All tiles from north to south."""
    for top in NORTHINGS:
        for zone in ZONES:
            epsg = 32600 + zone
            central = zone * 6.0 - 183
            to_zone = Transformer.from_crs(4326, epsg, always_xy=True)
            latitude = Transformer.from_crs(epsg, 4326, always_xy=True).transform(500_000, top)[1]
            west, east = (to_zone.transform(central + side, latitude)[0] for side in (-3, 3))
            for left in range(int(west // STEP_M) * STEP_M, int(east), STEP_M):
                yield Tile(epsg, left, top)


def scenes_of(count: int) -> list[Scene]:
    """So many scenes: the northernmost tiles on all dates."""
    out = []
    for tile in tiles():
        to_degrees = Transformer.from_crs(tile.epsg, 4326, always_xy=True)
        footprint = shapely.box(*to_degrees.transform_bounds(*tile.bounds))
        for date in range(DATES):
            when = dt.datetime(2023, 6, 1, 10, tzinfo=dt.UTC) + dt.timedelta(DAYS * date + 2 * (tile.epsg % 2))
            name = f"{tile.name}-{date:02}"
            out.append(
                Scene(
                    name, "sentinel-2-l2a", when, tile.name, tile.epsg, "05.09", 0.0, "made up", footprint, {}, None,
                    None, None, None, None, None,
                )
            )  # fmt: skip
            if len(out) == count:
                return out
    raise ValueError(f"there are only {len(out)} scenes")


@dataclass(frozen=True, eq=False)
class Truth:
    """What a scene does to the ground: (bands,) gain, (bands, 4) offset at the corners in DN."""

    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    dice: np.random.Generator

    @classmethod
    def of(cls, scene: Scene) -> Truth:
        dice = np.random.default_rng(list(scene.id.encode()))
        gain = 1 + GAIN * dice.standard_normal(len(BANDS))
        offset = OFFSET * dice.standard_normal((len(BANDS), 1)) + SLOPE * dice.standard_normal((len(BANDS), 4))
        return cls(gain.astype(np.float32), offset.astype(np.float32), dice)


@dataclass(frozen=True, eq=False)
class Ground:
    """Of a tile's points: numbers, (n, 2) places, (bands, n) DN, (n,) cells of cloud, (n, 4) corners."""

    number: NDArray[np.int64]
    place: NDArray[np.float32]
    dn: NDArray[np.float32]
    cell: NDArray[np.intp]
    corners: NDArray[np.float32]


@lru_cache(maxsize=128)
def ground_of(tile: Tile, spacing_m: float) -> Ground:
    points = points_within(tile.bounds, tile.epsg, spacing_m)
    place = np.stack([points.x - tile.left, tile.top - points.y], axis=1) / SIDE_M
    # Mixed as by splitmix64: the same point is as bright in every tile.
    mixed = points.number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bright = ((mixed >> np.uint64(40)) / 2.0**24).astype(np.float32)
    levels = np.linspace(400, 2400, len(BANDS), dtype=np.float32)[:, None]
    cell = np.minimum((place * CELLS).astype(np.intp), CELLS - 1) @ np.array([1, CELLS])
    place = place.astype(np.float32)
    return Ground(points.number, place, levels * (0.5 + bright), cell, corners(place).astype(np.float32))


class Sampler:
    """In the place of `samples.sample`; remembers the mean of the ground that each scene showed, and the core seconds
    that making all this up took."""

    def __init__(self, scenes: list[Scene]) -> None:
        by_name = {tile.name: tile for tile in tiles()}
        self.tile = {scene.id: by_name[scene.tile] for scene in scenes}
        self.ground: dict[str, NDArray[np.float64]] = {}
        self.seconds, self._lock = 0.0, threading.Lock()
        self._noise = (NOISE * np.random.default_rng(0).standard_normal(1 << 22)).astype(np.float32)

    def __call__(self, scene: Scene, spacing_m: float, sun: str, rules: ChipRules) -> Sampled:
        begun = time.thread_time()
        tile, truth = self.tile[scene.id], Truth.of(scene)
        ground = ground_of(tile, spacing_m)
        clear = (truth.dice.random(CELLS**2) < CLEAR)[ground.cell]
        dn = truth.gain[:, None] * ground.dn[:, clear] + truth.offset @ ground.corners[clear].T
        start = int(truth.dice.integers(len(self._noise) - dn.size))
        dn += self._noise[start : start + dn.size].reshape(dn.shape)
        dn[:, truth.dice.random(dn.shape[1]) < CHANGED] += CHANGE
        day = (scene.datetime - dt.datetime(2015, 1, 1, tzinfo=dt.UTC)).total_seconds() / 86_400
        samples = Samples(ground.number[clear], ground.place[clear], np.clip(dn, 1, 65534).astype(np.uint16), day)
        with self._lock:
            self.ground[scene.id] = ground.dn[:, clear].mean(axis=1, dtype=np.float64)
            self.seconds += time.thread_time() - begun
        return Sampled(samples, _NOWHERE, (tile.left, tile.top, SIDE_M))


def measure(count: int) -> dict[str, Any]:
    """Survey and balance so many scenes."""
    scenes = scenes_of(count)
    sampler = Sampler(scenes)
    surveying.sample = sampler  # type: ignore[assignment]
    begun, cores = time.perf_counter(), time.process_time()
    found = surveying.survey(scenes, "scene", ChipRules())
    surveyed, surveyed_cores = time.perf_counter(), time.process_time()
    solved, _, hazy = guarded(fit(found.pairs, found.mean, found.centre), found, 400.0)
    solved_at, solved_cores = time.perf_counter(), time.process_time()
    ground = np.stack([sampler.ground[scene.id] for scene in scenes])
    balanced = solved.gain * found.mean + np.einsum("sc,sbc->sb", found.centre, solved.offset.reshape(count, -1, 4))
    links = np.unique(np.stack([found.pairs.one, found.pairs.other]), axis=1).shape[1]
    return {
        "scenes": count,
        "overlaps": int(links),
        "parts": len(found.pairs),
        "spacing_m": round(found.spacing_m),
        "groups": int(solved.group.max() + 1),
        "survey_s": round(surveyed - begun, 1),
        "survey_core_s": round(surveyed_cores - cores - sampler.seconds, 1),
        "sampling_core_s": round(sampler.seconds, 1),
        "solve_s": round(solved_at - surveyed, 1),
        "solve_core_s": round(solved_cores - surveyed_cores, 1),
        "seconds": round(solved_at - begun, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "hazy": int(hazy.sum()),
        "off_before_dn": off(found.mean - ground, solved.group),
        "off_after_dn": off(balanced - ground, solved.group),
    }


def off(error: NDArray[np.float64], group: NDArray[np.int32]) -> float:
    """Root mean square of what scenes are off by, against the mean of those they are linked with: by how much all of
    them are off no overlap says."""
    size = np.bincount(group)[:, None]
    mean = np.stack([np.bincount(group, band) for band in error.T], axis=1) / size
    return round(float(np.sqrt(np.mean((error - mean[group]) ** 2))), 2)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
