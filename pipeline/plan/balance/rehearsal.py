"""Comparing and solving with what is at hand: for those who time them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.plan.balance.fit import fit
from difffusr.pipeline.plan.balance.pairs import Pairs, compare
from difffusr.pipeline.plan.balance.samples import Sampled
from difffusr.pipeline.plan.balance.survey import STEADY

#: Scenes, overlaps and parts of an overlap that are solved for: enough that what a solution takes however small it is
#: hardly counts.
_SCENES, _OVERLAPS, _PARTS = 200, 1500, 10


def rehearse_comparing(found: Sequence[Sampled], spacing_m: float) -> int:
    """Compare each two of these scenes, a single one with itself; returns the number of comparisons."""
    pairs = list(combinations(found, 2)) or [(found[0], found[0])]
    for one, other in pairs:
        compare(0, one.samples, 1, other.samples, STEADY, spacing_m)
    return len(pairs)


def rehearse_solving() -> int:
    """Solve for scenes that differ at random; returns the number of their overlaps."""
    dice, rows = np.random.default_rng(0), _OVERLAPS * _PARTS
    one = dice.integers(_SCENES, size=_OVERLAPS).repeat(_PARTS)
    other = (one + dice.integers(1, 8, size=_OVERLAPS).repeat(_PARTS)) % _SCENES
    offset = 100 * dice.standard_normal((_SCENES, len(BANDS)))
    difference = offset[other] - offset[one] + 20 * dice.standard_normal((rows, len(BANDS)))
    places = dice.random((2, rows, 2), np.float32)
    middle = dice.uniform(300, 3000, (rows, len(BANDS)))
    error = np.full((rows, len(BANDS)), 20.0)
    fit(
        Pairs(
            one.astype(np.int32),
            other.astype(np.int32),
            *places,
            *(values.astype(np.float32) for values in (difference, middle, error)),
        ),
        np.full((_SCENES, len(BANDS)), 1500.0),
        np.full((_SCENES, 4), 0.25),
    )
    return _OVERLAPS
