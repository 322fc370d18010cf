"""What a clean cube keeps to, and the figures of a band that are judged by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

#: Seam ratio of every band.
SEAM_RANGE: Final = (0.9, 1.1)

#: Greatest mean absolute residual in reflectance, by native metres of the band.
RESIDUAL_LIMIT: Final = {10: 0.003, 20: 0.005, 60: 0.005}


@dataclass(frozen=True)
class BandReport:
    """One band's figures.

    Attributes:
        seam_ratio: mean absolute step across chip borders over that inside chips; NaN without borders.
        seam_error: its standard error, by the jackknife over chip borders: the part that the ground's variety explains.
        residual: mean absolute difference in reflectance between the scenes and the cube as the sensor would see it.
        ok: whether the residual is within its limit, and the seam ratio within its range or two standard errors of it.
    """

    band: str
    seam_ratio: float
    seam_error: float
    residual: float
    ok: bool


def is_seamless(seam_ratio: float, seam_error: float) -> bool:
    """Whether a seam ratio is within its range or two standard errors of it; True if the ratio is not known (NaN)."""
    low, high = seam_ratio - 2 * seam_error, seam_ratio + 2 * seam_error
    return bool(np.isnan(seam_ratio) or (low <= SEAM_RANGE[1] and high >= SEAM_RANGE[0]))
