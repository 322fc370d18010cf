"""Are the bands of a scene shifted against each other: phase correlation of bands of different resolution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, GROUPS, GSD_M
from difffusr.kernels.measures import phase_shifts
from difffusr.pipeline.geo import ChipIndex
from difffusr.pipeline.ground.pixels import WATER_CLASSES, Quality
from difffusr.pipeline.plan import ChipPlan
from difffusr.pipeline.readers.verdicts import BandShift, SceneShift
from difffusr.pipeline.scenes import Chip

#: From this on bands are shifted, in their own pixels: half a pixel, less what a measurement may be wrong by.
#: Sentinel-2 itself keeps to 0.3.
LIMIT_PX: Final = 0.4

#: Most chips of a scene that are looked at.
_CHIPS: Final = 6

#: Least share of a chip that is clear and of one scene, and greatest that is water: waves move between the bands.
_CLEAR: Final = 0.95

_WATER: Final = 0.5

#: Greatest median deviation of chips from their median, in pixels: clouds that no mask knows are shifted by their
#: height.
_AGREEMENT_PX: Final = 0.2


class _Measured(NamedTuple):
    """Of one band at one chip: down and right in metres, and the finer band that it is most alike."""

    down_m: float
    right_m: float
    against: str


class ShiftCheck:
    """Gathers the shifts of bands chip by chip, from several threads.

    Args:
        chips: those that will be looked at; a few clear ones are chosen for each scene, evenly spread.
    """

    def __init__(self, chips: Sequence[ChipPlan]) -> None:
        of_scene: dict[str, list[ChipPlan]] = defaultdict(list)
        for chip in chips:
            if chip.scenes and chip.clear >= _CLEAR:
                of_scene[chip.scenes[0]].append(chip)
        self._chosen = {
            (of[i].epsg, of[i].index)
            for of in of_scene.values()
            for i in np.linspace(0, len(of) - 1, min(len(of), _CHIPS)).astype(int)
        }
        self._found: dict[str, dict[tuple[int, ChipIndex], dict[str, _Measured]]] = defaultdict(dict)

    def look(self, chip: ChipPlan, measured: Chip) -> None:
        """Add what was read of a chip's scenes, if it is clear and of the best of them."""
        place = (chip.epsg, chip.index)
        if place in self._chosen and _shows_one_scene(measured):
            self._found[chip.scenes[0]].setdefault(place, _shifts_of(measured.dn))

    def shifted(self) -> list[SceneShift]:
        """The scenes with bands that are shifted by half a pixel or more, by id."""
        scenes = ((scene, [of[place] for place in sorted(of)]) for scene, of in sorted(self._found.items()))
        found = (SceneShift(scene, len(chips), _off(chips)) for scene, chips in scenes)
        return [scene for scene in found if scene.bands]


def _shows_one_scene(chip: Chip) -> bool:
    whole = chip.looks is None and all(bool(valid.all()) for valid in chip.valid.values())
    clear = (chip.source == 1) & (chip.quality == Quality.CLEAR)
    return bool(whole and clear.mean() >= _CLEAR and np.isin(chip.scl, WATER_CLASSES).mean() <= _WATER)


def _shifts_of(dn: Mapping[int, NDArray[np.uint16]]) -> dict[str, _Measured]:
    """By band of 20 and 60 m, its shift against the finer band that it is most alike; those that are known.

    Finer bands are averaged to the band's pixels.
    """
    bands = {gsd: torch.from_numpy(values.astype(np.float64)) for gsd, values in dn.items()}
    found = {}
    for gsd in (20, 60):
        finer = [g for g in GROUPS if g < gsd]
        names = [name for g in finer for name in GROUPS[g]]
        others = torch.cat([F.avg_pool2d(bands[g][None], gsd // g)[0] for g in finer])
        shifts = phase_shifts(bands[gsd], others)
        best = torch.where(shifts.down.isnan(), -1.0, shifts.coherence).argmax(1)
        for i, name in enumerate(GROUPS[gsd]):
            down, right = (float(of[i, best[i]]) * gsd for of in (shifts.down, shifts.right))
            if np.isfinite(down) and np.isfinite(right):
                found[name] = _Measured(down, right, names[int(best[i])])
    return found


def _off(chips: Sequence[Mapping[str, _Measured]]) -> tuple[BandShift, ...]:
    """The bands whose median shift over chips is too large, where at least half of the chips know it and agree."""
    off = []
    for band in BANDS:
        known = [chip[band] for chip in chips if band in chip]
        if not known or 2 * len(known) < len(chips):
            continue
        places = np.array([(one.down_m, one.right_m) for one in known])
        down, right = np.median(places, axis=0)
        apart = np.median(np.hypot(*(places - (down, right)).T))
        if np.hypot(down, right) > LIMIT_PX * GSD_M[band] and apart <= _AGREEMENT_PX * GSD_M[band]:
            against = [one.against for one in known]
            off.append(
                BandShift(band, round(float(down), 1), round(float(right), 1), max(sorted(against), key=against.count))
            )
    return tuple(off)
