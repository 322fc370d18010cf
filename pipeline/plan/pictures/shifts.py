"""How far balance moves the scenes of a plan, as its picture and its page show it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.plan.pictures.colours import BARE, ramp
from difffusr.pipeline.plan.scene_balance import SceneBalance
from difffusr.pipeline.plan.tables import Plan, StoredPlan

#: Bands that can be chosen.
BANDS_SHOWN: Final = ("B02", "B03", "B04", "B08", "B11")

#: From a scene that is made darker, over one that stays as it is, to one that is made brighter; told apart by protan,
#: deutan and tritan eyes.
SHIFT_RAMP: Final = ("#123f7a", "#5b92c4", "#b9d7e8", "#fbf1c0", "#f3c492", "#d08238", "#86400b")


@dataclass(frozen=True, eq=False)
class Shifts:
    """Shifts of a plan's scenes by band.

    Attributes:
        kind: "shift", in reflectance; "factor", what the mean factor adds to 1, where nothing but factors is applied.
        by_scene: (s, 5) in the order of the plan's scenes and of `BANDS_SHOWN`; NaN for a scene that is not balanced.
        limits: (5,) both ends of each band's scale; only hazy scenes may lie beyond.
        before, after: (s,) mean difference to overlapping scenes, reflectance; NaN without any.
        hazy: (s,) bool.
    """

    kind: Literal["shift", "factor"]
    by_scene: NDArray[np.float64]
    limits: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    hazy: NDArray[np.bool_]

    @classmethod
    def of(cls, plan: Plan | StoredPlan) -> Shifts | None:
        """Of a plan; None if its scenes are not balanced."""
        done = SceneBalance.of(plan)
        if done is None:
            return None
        bands = [BANDS.index(band) for band in BANDS_SHOWN]
        values = done.shift[:, bands] if done.moved else done.factor[:, bands] - 1
        limits = _limits(values[~done.hazy] if not done.hazy.all() else values)
        return cls("shift" if done.moved else "factor", values, limits, *done.difference(), done.hazy)

    def colours(self, band: int) -> NDArray[np.uint8]:
        """(s, 3) uint8: each scene by its shift in a band, by position in `BANDS_SHOWN`."""
        values = self.by_scene[:, band]
        there = np.isfinite(values)
        place = np.clip(np.where(there, values, 0) / self.limits[band], -1, 1)
        return np.where(there[:, None], ramp(SHIFT_RAMP, place / 2 + 0.5), np.array(BARE, np.uint8)).astype(np.uint8)

    def ends(self, band: int) -> tuple[str, str, str]:
        """What beginning, middle and end of a band's scale mean."""
        limit = float(self.limits[band])
        if self.kind == "factor":
            return f"× {1 - limit:.3f}", "× 1", f"× {1 + limit:.3f}"
        return f"-{limit:.3f}", "0", f"+{limit:.3f}"

    def to_json(self) -> dict[str, Any]:
        """For the page: numbers in 1/100000, None where they are not known."""
        return {
            "kind": self.kind,
            "bands": list(BANDS_SHOWN),
            "ramp": list(SHIFT_RAMP),
            "limits": [_small(limit) for limit in self.limits],
            "by_scene": [[_small(value) for value in row] for row in self.by_scene],
            "apart": [[_small(one), _small(two)] for one, two in zip(self.before, self.after, strict=True)],
            "hazy": np.flatnonzero(self.hazy).tolist(),
        }


def _limits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(b,) round numbers that no value exceeds: 1, 2 or 5 times a power of ten, at least 0.001."""
    largest = np.where(np.isfinite(values), np.abs(values), 0).max(axis=0, initial=1e-3).tolist()
    return np.array([_round_up(value) for value in largest])


def _round_up(value: float) -> float:
    ten = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return min(factor * ten for factor in (1, 2, 5, 10) if factor * ten >= value * (1 - 1e-4))


def _small(value: float) -> int | None:
    return round(value * 1e5) if np.isfinite(value) else None
