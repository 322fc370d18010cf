"""What balance may do to scenes: corrections of all kinds, and plans that have them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from drawn_plans import plan
from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.plan.balance.solution import Balanced
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.scenes.correction import Correction

#: The square of a tile, and metres from node to node of its angles.
LEFT, TOP, SIDE, STEP = 600_000.0, 5_300_040.0, 109_800.0, 5000.0


def correction(
    gain: float = 1.0,
    offset: float = 0.0,
    tilt: float = 0.0,
    factor: float = 1.0,
    slope: float = 0.0,
    hazy: bool = False,
) -> Correction:
    """The same for every band, but for a little.

    Args:
        tilt: DN by which the offset grows from west to east, half as much from north to south.
        slope: by which the factor grows from node to node.
    """
    number = np.arange(len(BANDS))
    gains = np.round(gain * (1 + 0.001 * number * (gain != 1)), 4)
    corners = np.array([[0, tilt], [tilt / 2, 1.5 * tilt]]) + offset
    grid = factor + slope * np.add.outer(np.arange(23), np.arange(23)) / 44
    grid = np.rint(grid / 2e-5) * 2e-5
    offsets = np.round(np.repeat(corners[None], len(BANDS), 0), 1)
    factors = np.repeat(grid[None], len(BANDS), 0).astype(np.float32)
    return Correction(LEFT, TOP, SIDE, gains, offsets, factors, LEFT, TOP, STEP, hazy)


def balanced(made: dict[str, Correction], shift: dict[str, float] | None = None, angles: str = "granule") -> Balanced:
    """These corrections; every band is shifted by so many DN, B02 by ten times as many."""
    by_band = np.ones(len(BANDS))
    by_band[BANDS.index("B02")] = 10
    moved = shift or {}
    return Balanced(
        "mark",
        {name: f"version of {name}" for name in made},
        made,
        dict.fromkeys(made, angles),
        dict.fromkeys(made, ""),
        {name: moved.get(name, 0.0) * by_band for name in made},
        {name: np.full(len(BANDS), 80.0) if moved else np.full(len(BANDS), np.nan) for name in made},
        {name: np.full(len(BANDS), 20.0) if moved else np.full(len(BANDS), np.nan) for name in made},
        dict.fromkeys(made, 0),
    )


def with_balance(made: Plan, done: Balanced) -> Plan:
    """A plan whose scenes are balanced so."""
    return replace(made, scenes=tuple(done.applied_to(made.scenes)), balance=done)


def balanced_plan(area: BaseGeometry, *, full: bool = True) -> Plan:
    """Of four scenes: S000 is hazy, S001 is moved down, S002 up, S003 could not be balanced."""
    kinds = {
        "S000": correction(0.98, -500, factor=0.95, hazy=True),
        "S001": correction(1.01, -40, 30, factor=1.02),
        "S002": correction(1.02, 20, factor=0.97, slope=0.01),
    }
    if not full:
        kinds = {name: correction(factor=float(one.factor[0, 0, 0])) for name, one in kinds.items()}
    shift = {"S000": -50.0, "S001": -4.0, "S002": 8.0} if full else None
    return with_balance(plan(area, dates=4), balanced(kinds, shift))
