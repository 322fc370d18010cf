"""What a clean cube keeps to, and the figures of a band that are judged by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np

#: Seam ratio of every band.
SEAM_RANGE: Final = (0.9, 1.1)

#: Greatest mean absolute residual in reflectance, by native metres of the band.
RESIDUAL_LIMIT: Final = {10: 0.003, 20: 0.005, 60: 0.005}

#: Greatest gridness of a band that is no grid, and the amplitude in reflectance below which nobody sees one.
GRID_LIMIT: Final = 0.005

GRID_AMPLITUDE: Final = 1e-4


@dataclass(frozen=True)
class BandReport:
    """One band's figures.

    Attributes:
        seam_ratio: mean absolute step across chip borders over that inside chips; NaN without borders.
        seam_error: its standard error, by the jackknife over chip borders: the part that the ground's variety explains.
        residual: mean absolute difference in reflectance between the scenes and the cube as the sensor would see it.
        ok: whether the residual is within its limit, the seam ratio within its range or two standard errors of it, and
            no grid shows.
        gridness: share of the power of fine texture that repeats every 4 pixels, 0 to 1; None if it is not known.
        grid_amplitude: of the sinusoid that has as much power, in reflectance; None if it is not known.
        grid: whether that is a grid, more than `GRID_LIMIT` and `GRID_AMPLITUDE`.
    """

    band: str
    seam_ratio: float
    seam_error: float
    residual: float
    ok: bool
    gridness: float | None = None
    grid_amplitude: float | None = None
    grid: bool = False


class BandShift(NamedTuple):
    """A band that is shifted against finer ones.

    Attributes:
        down_m, right_m: how far it lies below and to the right of them, metres.
        against: the finer band that it is most alike.
    """

    band: str
    down_m: float
    right_m: float
    against: str


@dataclass(frozen=True)
class SceneShift:
    """A scene whose bands are shifted against each other by half a pixel or more.

    Attributes:
        scene: its id.
        chips: how many were looked at.
        bands: those that are shifted.
    """

    scene: str
    chips: int
    bands: tuple[BandShift, ...]

    @property
    def words(self) -> str:
        """Which bands, how far, and what to do, in one line."""
        shifts = "; ".join(
            f"{band.band} by {np.hypot(band.down_m, band.right_m):.0f} m against {band.against}" for band in self.bands
        )
        return f"{self.scene}: bands are shifted ({shifts}); leave the scene out, or check how its files were made"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"scene": self.scene, "chips": self.chips, "bands": [band._asdict() for band in self.bands]}


@dataclass(frozen=True)
class SourceBand:
    """One band's steps across borders between scenes.

    Attributes:
        ratio: over steps inside one scene; NaN without borders.
        error: its standard error, by the jackknife over borders, widened where they are few.
        ok: whether the ratio exceeds the range of seam ratios by at most two standard errors.
    """

    band: str
    ratio: float
    error: float
    ok: bool


@dataclass(frozen=True)
class SourceSeams:
    """Borders between scenes of one kind.

    Attributes:
        kind: `dates` (of two acquisitions), `granules` (of one), or `all`.
        borders: how many were measured: one at a chip, between two scenes and in one direction.
        bands: their ratios.
    """

    kind: str
    borders: int
    bands: Sequence[SourceBand]

    @property
    def ok(self) -> bool:
        """Whether no band is off."""
        return all(band.ok for band in self.bands)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; null for what is not finite."""
        bands = [{**asdict(band), "ratio": finite(band.ratio), "error": finite(band.error)} for band in self.bands]
        return {"kind": self.kind, "borders": self.borders, "ok": self.ok, "bands": bands}


@dataclass(frozen=True)
class WorstBorder:
    """The border between two scenes that differs most from the ground beside it.

    Attributes:
        band: in which it does.
        step, usual: mean step along it, and along lines beside it, reflectance.
        scenes: ids of the two.
        epsg: its zone.
        lon, lat: of its middle, degrees.
    """

    band: str
    step: float
    usual: float
    scenes: tuple[str, str]
    epsg: int
    lon: float
    lat: float

    @property
    def words(self) -> str:
        """Where it is and how it shows, in one line."""
        where = f"{abs(self.lat):.4f}° {'NS'[self.lat < 0]}, {abs(self.lon):.4f}° {'EW'[self.lon < 0]}"
        usual = f"a step of {self.step:.4f} in {self.band} where {self.usual:.4f} is usual"
        return f"most visible: {usual}, at {where}, between {self.scenes[0]} and {self.scenes[1]}"


def shown_kinds(sources: Sequence[SourceSeams]) -> list[SourceSeams]:
    """The kinds of borders that there are; all together only where they are not of one kind."""
    there = [kind for kind in sources if kind.borders]
    return there[:1] if len({kind.borders for kind in there}) == 1 and len(there) == 2 else there


def finite(value: float) -> float | None:
    """A number for JSON, which has no NaN and no infinity."""
    return value if np.isfinite(value) else None


def is_seamless(seam_ratio: float, seam_error: float) -> bool:
    """Whether a seam ratio is within its range or two standard errors of it; True if the ratio is not known (NaN)."""
    low, high = seam_ratio - 2 * seam_error, seam_ratio + 2 * seam_error
    return bool(np.isnan(seam_ratio) or (low <= SEAM_RANGE[1] and high >= SEAM_RANGE[0]))


def shows_nothing(ratio: float, error: float) -> bool:
    """Whether borders between scenes do not stand out: their ratio is not above its range by more than two standard
    errors, or not known (NaN). Below it, borders differ less than the ground beside them, which is no seam."""
    return bool(np.isnan(ratio) or ratio - 2 * error <= SEAM_RANGE[1])


def shows_grid(gridness: float, amplitude: float) -> bool:
    """Whether a pattern of 4 pixels is a grid: by its share of the fine power, and by its amplitude in reflectance."""
    return bool(gridness > GRID_LIMIT and amplitude > GRID_AMPLITUDE)
