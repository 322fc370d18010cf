"""Colours of a plan's picture and page: dates, shares, ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.plan.tables import Plan, StoredPlan

Rgb = tuple[int, int, int]

#: For up to twelve dates: any two are at least 0.13 apart in OKLab for normal, protan, deutan and tritan eyes.
PALETTE: Final = (
    "#2b40be", "#f4c331", "#61e5be", "#7c4269", "#e78108", "#a4b4ff",
    "#214904", "#bf8f99", "#717fff", "#9e66a9", "#606d08", "#64006f",
)  # fmt: skip

#: For more dates, by time (viridis).
TIME_RAMP: Final = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")

#: For clear shares from 0 to 1.
CLEAR_RAMP: Final = ("#f3e3c3", "#bfdcae", "#5fb6a9", "#2f7fab", "#204a86")

PAPER: Final[Rgb] = (255, 255, 255)

INK: Final[Rgb] = (31, 35, 40)

SOFT_INK: Final[Rgb] = (96, 103, 112)

SEA: Final[Rgb] = (243, 245, 247)

BARE: Final[Rgb] = (222, 225, 229)

OUTLINE: Final[Rgb] = (40, 44, 52)

STRIPE: Final[Rgb] = (104, 108, 116)


@dataclass(frozen=True, eq=False)
class Dates:
    """The dates of the first scenes of a plan's chips.

    Attributes:
        days: (d,) datetime64[D], ascending.
        of_chip: (n,) int32 positions in `days`.
        chips: (d,) number of chips.
        colours: (d, 3) uint8, one per date.
    """

    days: NDArray[np.datetime64]
    of_chip: NDArray[np.int32]
    chips: NDArray[np.int64]
    colours: NDArray[np.uint8]

    @classmethod
    def of(cls, plan: Plan | StoredPlan) -> Dates:
        """The dates of a plan, each with its colour."""
        first = np.asarray(plan.chips.scenes[:, 0])
        used = np.zeros(len(plan.chips.scene_ids), bool)
        used[first] = True
        every = scene_days(plan)
        days = np.unique(every[used])
        number = np.searchsorted(days, every).astype(np.int32)
        of_chip = number[first]
        return cls(days, of_chip, np.bincount(of_chip, minlength=len(days)), date_colours(days))

    def __len__(self) -> int:
        return len(self.days)


def scene_days(plan: Plan | StoredPlan) -> NDArray[np.datetime64]:
    """(s,) datetime64[D], UTC: the day of every scene of a plan, in the order of its scenes."""
    if isinstance(plan, StoredPlan):
        return np.array([str(text)[:10] for text in plan.scenes["datetime"]], "datetime64[D]")
    return np.array([scene.datetime.date() for scene in plan.scenes], "datetime64[D]")


def date_colours(days: NDArray[np.datetime64]) -> NDArray[np.uint8]:
    """(d, 3) uint8: the palette's colours for up to twelve dates, a ramp by time for more."""
    if len(days) <= len(PALETTE):
        return np.array([rgb(colour) for colour in PALETTE[: len(days)]], np.uint8).reshape(-1, 3)
    since = (days - days[0]).astype(np.float64)
    return ramp(TIME_RAMP, since / since[-1])


def rgb(colour: str) -> Rgb:
    """A colour written #rrggbb."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def ramp(stops: Sequence[str], place: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(…, 3) uint8: colours at places from 0 to 1 along evenly spaced stops."""
    values = np.array([rgb(stop) for stop in stops], np.float64)
    at = np.linspace(0.0, 1.0, len(stops))
    channels = [np.interp(place, at, values[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def strength(clear: NDArray[np.floating]) -> NDArray[np.floating]:
    """How much of its date's colour a chip gets, 0.14 … 1; steepest near a clear share of 1, where most chips are."""
    return np.asarray(0.14 + 0.86 * np.clip(clear, 0.0, 1.0) ** 1.5)


def paled(colours: NDArray[np.uint8], clear: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(…, 3) uint8: colours, paler where less is clear."""
    share = strength(clear)[..., None]
    return np.round(colours * share + np.array(PAPER) * (1 - share)).astype(np.uint8)
