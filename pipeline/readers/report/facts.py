"""The contents of a report: cube, zones, periods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import GROUPS, TARGET_GSD_M
from difffusr.pipeline.geo import Lattice, PixelWindow
from difffusr.pipeline.plan import SceneBalance
from difffusr.pipeline.plan.pictures import zone_name
from difffusr.pipeline.publish import Publication
from difffusr.pipeline.readers.report.survey import Survey
from difffusr.pipeline.readers.verdicts import BandReport, SourceSeams, WorstBorder, is_seamless
from difffusr.pipeline.watch import RunStatus

#: Bands of the pictures: the native 10 m bands.
SHOWN_BANDS = GROUPS[10]

#: Most shards whose borders are measured, and fewest borders to judge by: with fewer the standard error is a guess.
MOST_SHARDS, FEW_BORDERS = 32, 8


@dataclass(frozen=True)
class ZoneFacts:
    """One zone.

    Attributes:
        epsg: its code, or the number of the cube's one CRS.
        window: in absolute pixels of its lattice.
        degrees: west, south, east, north.
        shards: how many.
        of_crs: the pixels of a cube of one CRS; None in a UTM zone.
    """

    epsg: int
    window: PixelWindow
    degrees: tuple[float, float, float, float]
    shards: int
    of_crs: Lattice | None = None

    @property
    def name(self) -> str:
        """For people: UTM 32N, or EPSG:3035."""
        return zone_name(self.epsg) if self.of_crs is None else self.of_crs.name

    @property
    def lattice(self) -> Lattice:
        """Its pixels."""
        return self.of_crs or Lattice.of_zone(self.epsg)

    @property
    def pixel_words(self) -> str:
        """Side of a pixel."""
        if self.of_crs is None:
            return f"{TARGET_GSD_M:g} m"
        ground = f"{self.of_crs.ground_m(self.window):g} m"
        if not self.of_crs.is_geographic:
            return ground
        return f"{np.format_float_positional(self.of_crs.pixel)}° ({ground})"

    @property
    def area_km2(self) -> float:
        """Ground that its window covers."""
        if self.of_crs is None:
            return self.window.height * self.window.width * TARGET_GSD_M**2 / 1e6
        return self.of_crs.area_m2(self.window) / 1e6


@dataclass(frozen=True, eq=False)
class Seams:
    """Steps across borders, and the residual between cube and scenes.

    Attributes:
        bands: as `difffusr verify` measures them; empty if the grid of the chips is not known.
        chips: chips measured.
        of_chips: chips of the plan; 0 without a plan.
        compared: measured chips that were compared with their scenes.
        borders: shard borders measured.
        shard_ratio, shard_error: (bands,) steps at shard borders over steps inside, and its standard error; NaN if no
            border lies in data.
        sources: seams between scenes by kind; empty if the grid of the chips is not known.
        worst_border: of those between scenes.
    """

    bands: Sequence[BandReport]
    chips: int
    of_chips: int
    compared: int
    borders: int
    shard_ratio: NDArray[np.float64]
    shard_error: NDArray[np.float64]
    sources: Sequence[SourceSeams]
    worst_border: WorstBorder | None

    def shards_seamless(self, band: int) -> bool:
        """Whether a band shows no shard borders; True if that cannot be judged."""
        few = self.borders < FEW_BORDERS
        return few or is_seamless(float(self.shard_ratio[band]), float(self.shard_error[band]))


@dataclass(frozen=True, eq=False)
class Crop:
    """One place before and after.

    Attributes:
        epsg, window: where, in absolute pixels of the zone's lattice.
        lon, lat: of its middle, degrees.
        scene: number of the scene of most pixels.
        measured: whether `before` is the sensor's measurement; else it is `after` averaged to 10 m.
        before: (4, n, n) float32 reflectance at 10 m, bands as `SHOWN_BANDS`.
        after: (4, 4n, 4n) float32 reflectance at 2.5 m.
        gsd_m: side of a pixel on the ground: in a cube of one CRS it may be another than 2.5 m, and that of `before`
            four times it.
    """

    epsg: int
    window: PixelWindow
    lon: float
    lat: float
    scene: int
    measured: bool
    before: NDArray[np.float32] = field(repr=False)
    after: NDArray[np.float32] = field(repr=False)
    gsd_m: float = TARGET_GSD_M


@dataclass(frozen=True, eq=False)
class BalanceFacts:
    """What balance did to a period's scenes.

    Attributes:
        sun: `scenes.sun` of the run; max_offset: `scenes.max_offset`, reflectance.
        scenes: those that were balanced, if the plan is there also those that no chip uses.
        used: ids of scenes that some chip uses.
    """

    sun: str
    max_offset: float
    scenes: SceneBalance
    used: frozenset[str]


@dataclass(frozen=True, eq=False)
class PeriodReport:
    """One period.

    Attributes:
        label, days: its name, first and last day.
        survey: what it contains.
        whole_shards: whether every cell of the survey is one shard, read whole.
        seams, crops: as measured.
        manifest: of its plan; empty without a plan.
        run: `report.json` of the period's last run; empty if it is deleted.
        progress: of that run.
        notes: what is missing from the report, and why.
        balance: None if the scenes are as they were measured.
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
    balance: BalanceFacts | None = None


@dataclass(frozen=True, eq=False)
class CubeReport:
    """The contents of a page.

    Attributes:
        url: the cube's.
        attributes: of its root group.
        scenes: facts of every scene, by number.
        zones: by EPSG code.
        stored_bytes: of all its objects, including earlier revisions; None if they were not listed.
        labels: of all its periods.
        periods: those in the report, in order of time.
        publications: newest first; empty if the history is deleted.
        notes: what is missing from the report, and why.
    """

    url: str
    attributes: Mapping[str, Any] = field(repr=False)
    scenes: Mapping[int, Mapping[str, Any]] = field(repr=False)
    zones: tuple[ZoneFacts, ...]
    stored_bytes: int | None
    labels: tuple[str, ...]
    periods: tuple[PeriodReport, ...]
    publications: tuple[Publication, ...]
    notes: tuple[str, ...]

    @property
    def years(self) -> tuple[str, ...]:
        """Years for the attribution of Sentinel-2 data: of the scenes, or of the periods if scenes have no date."""
        years = {str(facts["datetime"])[:4] for facts in self.scenes.values() if facts.get("datetime")}
        return tuple(sorted(years or {str(day.year) for period in self.periods for day in period.days}))
