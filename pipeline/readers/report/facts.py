"""What a report tells: of the cube, its zones, its periods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import GROUPS
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.publish.publications import Publication
from difffusr.pipeline.readers.bands import BandReport, is_seamless
from difffusr.pipeline.readers.report.survey import Survey
from difffusr.pipeline.watch.pulse import RunStatus

#: Bands of the pictures: those whose native pixels are 10 m.
SHOWN_BANDS = GROUPS[10]

#: Shards whose borders are measured, and how many borders it takes to judge: of a few the standard error is a guess.
SHARDS, FEW_BORDERS = 32, 8


@dataclass(frozen=True)
class ZoneFacts:
    """One zone: its window in absolute 2.5 m pixels, its west, south, east and north in degrees, its shards."""

    epsg: int
    window: PixelWindow
    degrees: tuple[float, float, float, float]
    shards: int


@dataclass(frozen=True, eq=False)
class Seams:
    """Steps across borders, and what the cube differs from its scenes by.

    Attributes:
        bands: as `difffusr verify` measures them; empty where the places of the chips are not known.
        chips: chips measured.
        of_chips: chips of the plan; 0 where it is gone.
        compared: those of them that were compared with their scenes.
        borders: borders of shards that were measured.
        shard_ratio, shard_error: (bands,) steps at shard borders against inside, and its standard error; NaN where no
            border lies in data.
    """

    bands: Sequence[BandReport]
    chips: int
    of_chips: int
    compared: int
    borders: int
    shard_ratio: NDArray[np.float64]
    shard_error: NDArray[np.float64]

    def shards_seamless(self, band: int) -> bool:
        """Whether a band shows no shard border; so does one that cannot be judged."""
        few = self.borders < FEW_BORDERS
        return few or is_seamless(float(self.shard_ratio[band]), float(self.shard_error[band]))


@dataclass(frozen=True, eq=False)
class Crop:
    """One place before and after.

    Attributes:
        epsg, window: where, in absolute 2.5 m pixels.
        lon, lat: of its middle, degrees.
        scene: number of the scene that most of it shows.
        measured: whether `before` is what the sensor measured; else it is `after` averaged to 10 m.
        before: (4, n, n) float32 reflectance at 10 m, bands as `SHOWN_BANDS`.
        after: (4, 4n, 4n) float32 reflectance at 2.5 m.
    """

    epsg: int
    window: PixelWindow
    lon: float
    lat: float
    scene: int
    measured: bool
    before: NDArray[np.float32] = field(repr=False)
    after: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, eq=False)
class PeriodReport:
    """One period.

    Attributes:
        label, days: its name, first and last day.
        survey: what it holds.
        whole_shards: whether every cell of the survey is one shard, read whole.
        seams, crops: as measured.
        manifest: of the plan that it was made by; empty where that is gone.
        run: `report.json` of the last run of the period; empty where that is gone.
        progress: of that run.
        notes: what cannot be told, and why.
    """

    label: str
    days: tuple[date, date]
    survey: Survey
    whole_shards: bool
    seams: Seams
    crops: tuple[Crop, ...]
    manifest: Mapping[str, Any]
    run: Mapping[str, Any]
    progress: RunStatus | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CubeReport:
    """All that a page tells.

    Attributes:
        url: the cube's.
        attributes: of its root group.
        zones: by EPSG code.
        stored_bytes: of all its objects, earlier revisions included; None where they are not listed.
        labels: of all its periods.
        periods: those that are told of, in order.
        publications: the newest first; empty where the history is gone.
        notes: what cannot be told, and why.
    """

    url: str
    attributes: Mapping[str, Any] = field(repr=False)
    zones: tuple[ZoneFacts, ...]
    stored_bytes: int | None
    labels: tuple[str, ...]
    periods: tuple[PeriodReport, ...]
    publications: tuple[Publication, ...]
    notes: tuple[str, ...]

    @property
    def scenes(self) -> dict[int, Mapping[str, Any]]:
        """Facts of every scene by its number."""
        return {int(number): facts for number, facts in self.attributes.get("difffusr:scenes", {}).items()}

    @property
    def years(self) -> tuple[str, ...]:
        """What the attribution of Sentinel-2 data names: its scenes' years, or the periods' where they are not told."""
        told = {str(facts["datetime"])[:4] for facts in self.scenes.values() if facts.get("datetime")}
        return tuple(sorted(told or {str(day.year) for period in self.periods for day in period.days}))
