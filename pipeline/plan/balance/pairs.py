"""What two scenes say of the same ground: differences by band and part of the overlap, robust against change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.plan.balance.samples import Samples

#: Parts of a scene along each side: differences are told apart by these, so that what varies over a scene is seen.
_PARTS = 4

#: Fewest points of a part that are compared.
_FEWEST = 10

#: Ground has changed, and is not compared, where a band that haze hardly reaches differs by more than this share and
#: DN: fields that grew or were cut, snow, floods. Differences of view that are left are smaller. Within days little
#: grows, and most of a large difference is relief on grids that do not match: the share is larger for scenes of a few
#: days, up to `_LOOSE` for those of one.
_STEADY, _STEADY_DN, _LOOSE, _DAYS = 0.12, 50.0, 0.6, 10.0

#: How far ground of one kind reaches in metres: points closer than this do not err independently.
_ALIKE_M = 500.0

#: Standard deviation in DN of a part's difference however many points it has, and what a day between scenes adds.
_FLOOR, _A_DAY = 10.0, 1.0

#: Interquartile range of a normal distribution over its standard deviation.
_IQR = 1.349

#: More than any DN; tells the parts apart in a sort.
_APART = 1 << 18


@dataclass(frozen=True, eq=False)
class Pairs:
    """Differences between scenes, one row for a part of an overlap.

    Attributes:
        one, other: (r,) int32 numbers of the scenes.
        place_one, place_other: (r, 2) float32 where the part lies in each, 0 – 1 eastwards and southwards.
        difference: (r, bands) float32 median of the other's DN less the one's.
        middle: (r, bands) float32 mean of both.
        error: (r, bands) float32 standard deviation of the difference, DN.
    """

    one: NDArray[np.int32]
    other: NDArray[np.int32]
    place_one: NDArray[np.float32]
    place_other: NDArray[np.float32]
    difference: NDArray[np.float32]
    middle: NDArray[np.float32]
    error: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.one)

    def without(self, scenes: NDArray[np.bool_]) -> Pairs:
        """The rows between scenes of which none is among these: (scenes,) bool."""
        kept = ~scenes[self.one] & ~scenes[self.other]
        return Pairs(*(getattr(self, field.name)[kept] for field in fields(self)))

    @classmethod
    def of(cls, several: list[Pairs], bands: int) -> Pairs:
        """All rows of several."""
        if not several:
            none = np.zeros((0, bands), np.float32)
            places = np.zeros((0, 2), np.float32)
            return cls(np.zeros(0, np.int32), np.zeros(0, np.int32), places, places, none, none, none)
        return cls(*(np.concatenate([getattr(part, field.name) for part in several]) for field in fields(cls)))


def compare(one: int, a: Samples, other: int, b: Samples, steady: Sequence[int], spacing_m: float) -> Pairs | None:
    """Compare two scenes on the points that both show clear and unchanged; None if these are too few.

    Args:
        one, other: the scenes' numbers.
        steady: rows of the bands by which change on the ground is told: near and short-wave infrared.
        spacing_m: between points.
    """
    here, there = _common(a.number, b.number)
    days = abs(a.day - b.day)
    share = _STEADY + (_LOOSE - _STEADY) * max(0.0, 1 - days / _DAYS)
    for band in steady:
        first, second = a.dn[band, here].astype(np.float32), b.dn[band, there].astype(np.float32)
        same = np.abs(second - first) <= _STEADY_DN + share / 2 * (first + second)
        here, there = here[same], there[same]
    if len(here) < _FEWEST:
        return None
    where = a.place[here]
    part = np.minimum((where * _PARTS).astype(np.int32), _PARTS - 1) @ np.array([1, _PARTS], np.int32)
    count = np.bincount(part, minlength=_PARTS**2)
    enough = count[part] >= _FEWEST
    if not enough.any():
        return None
    order = np.flatnonzero(enough)[np.argsort(part[enough], kind="stable")]
    here, there, part = here[order], there[order], part[order]
    begins = np.flatnonzero(np.diff(part, prepend=-1))
    count = np.diff(np.append(begins, len(part)))
    first, second = a.dn[:, here].astype(np.int32), b.dn[:, there].astype(np.int32)
    label = (np.repeat(np.arange(len(begins)), count) * _APART).astype(np.int32)
    ranked = np.sort(second - first + label, axis=1)
    shift = (np.arange(len(begins)) * _APART).astype(np.int32)
    low, middle, high = (ranked[:, begins + (count * share).astype(np.intp)] - shift for share in (0.25, 0.5, 0.75))
    spread = np.maximum((high - low) / _IQR, 1.0)
    alone = min(1.0, (spacing_m / _ALIKE_M) ** 2)
    error = np.sqrt(_FLOOR**2 + (_A_DAY * days) ** 2 + np.pi / 2 * spread**2 / (count * alone))
    mean = np.add.reduceat(first + second, begins, axis=1) / (2.0 * count)
    places = [np.add.reduceat(at, begins, axis=0) / count[:, None] for at in (a.place[here], b.place[there])]
    rows = len(begins)
    return Pairs(
        np.full(rows, one, np.int32),
        np.full(rows, other, np.int32),
        places[0].astype(np.float32),
        places[1].astype(np.float32),
        middle.T.astype(np.float32),
        mean.T.astype(np.float32),
        error.T.astype(np.float32),
    )


def _common(one: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of what two ascending arrays have in common."""
    place = np.searchsorted(other, one)
    place[place == len(other)] = 0
    both = other[place] == one if len(other) else np.zeros(len(one), bool)
    return np.flatnonzero(both), place[both]
