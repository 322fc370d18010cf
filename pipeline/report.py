"""What is to be told of a published cube: collected from the cube itself, and from its staging folder where that is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pyproj import CRS, Transformer

from kernels.bands import BANDS, GROUPS, SCALE
from pipeline.access import bare_href
from pipeline.catalog import Scene, find_scenes
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, DifffusrError, StoreError
from pipeline.grid import ChipIndex, Grid, PixelWindow, ShardIndex
from pipeline.plan import ChipPlan, StoredPlan, read_plan
from pipeline.publication import Publication
from pipeline.published import Cube
from pipeline.publishing import history
from pipeline.pulse import Progress, read_progress
from pipeline.reader import Quality, read_chip
from pipeline.repository import is_repository
from pipeline.seams import seam_ratios, steps_at_shard
from pipeline.storage import STORE_FAILURES, Storage
from pipeline.survey import Place, Reader, Survey, look_over, shard_px
from pipeline.verify import BandReport, is_seamless, measure_bands, sample_of

#: Periods on one page, cells of all their maps, and pictures: what keeps it small.
MOST_PERIODS, MOST_CELLS, MOST_CROPS = 6, 3000, 6

#: Bands of the pictures: those whose native pixels are 10 m.
SHOWN_BANDS = GROUPS[10]

#: Side of a picture in 2.5 m pixels, and the step on which it begins: whole 60 m cells.
_CROP_PX, _CELL_PX = 480, 24

#: Pictures of one period, and the least share of clear pixels in one.
_CROPS_EACH, _CLEAR = 4, 0.95

#: Where in the order of contrast pictures are looked for: not only where there is most to see.
_RANKS = (0.0, 0.15, 0.4, 0.7)

#: Shards whose borders are measured, and how many borders it takes to judge: of a few the standard error is a guess.
_SHARDS, FEW_BORDERS = 32, 8

T = TypeVar("T")


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
    progress: Progress | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CubeReport:
    """All that a page tells.

    Attributes:
        url: the cube's.
        attributes: of its root group.
        zones: by EPSG code.
        stored_bytes: of all its objects, earlier revisions included; None where the store does not list them.
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


def collect(
    cube: Cube, staging: Storage, config: RunConfig | None, periods: Sequence[str] = (), *, with_scenes: bool = True
) -> CubeReport:
    """Look at a cube with bounded effort: memory for a shard or two, a few thousand inner chunks of labels and some
    hundred of reflectance a period, however large it is.

    Args:
        staging: the cube's staging folder, which may be gone.
        config: of the run that the cube was named by, if it was.
        periods: labels; the latest ones by default.
        with_scenes: whether the source scenes may be read.

    Raises:
        ConfigError: the cube has no such period.
        StoreError: the cube cannot be read.
    """
    days = {label: found for epsg in cube.zones for label, (_, found) in cube.periods(epsg).items()}
    labels = sorted(days, key=lambda label: days[label])
    if lacking := [label for label in periods if label not in labels]:
        raise ConfigError(f"--period: the cube has no {lacking[0]}; it has {', '.join(labels)}")
    if len(set(periods)) > MOST_PERIODS:
        raise ConfigError(f"--period: given {len(set(periods))} times, expected at most {MOST_PERIODS}")
    chosen = [label for label in labels if label in periods] if periods else labels[-MOST_PERIODS:]
    seen, notes = _history(staging)
    told = [_period(cube, staging, config, label, seen, len(chosen), with_scenes) for label in chosen]
    zones = tuple(_zone(cube, epsg) for epsg in sorted(cube.zones))
    return CubeReport(
        bare_href(cube.storage.url),
        cube.attributes,
        zones,
        _stored_bytes(cube.storage),
        tuple(labels),
        tuple(told),
        seen,
        notes,
    )


def _period(
    cube: Cube,
    staging: Storage,
    config: RunConfig | None,
    label: str,
    publications: Sequence[Publication],
    periods: int,
    with_scenes: bool,
) -> PeriodReport:
    kept = _Kept.of(staging.child(f"runs/{label}"), label, publications, _days(cube, label))
    notes = list(kept.notes)
    planned = None if kept.plan is None else _planned(kept.plan)
    survey = look_over(cube, label, max(MOST_CELLS // periods, 1), planned)
    scenes: Mapping[str, Scene] = {}
    if kept.plan is None:
        notes.append("Without the plan the scenes of each chip are not known: nothing is compared with them.")
    elif not with_scenes:
        notes.append("The scenes were not to be read: nothing is compared with them.")
    else:
        scenes, why = _scenes(_config(config, label, kept.plan.manifest), kept.plan)
        notes += why
    source = _Source(cube, label, kept.plan, _grid(cube, kept.plan), scenes)
    seams, why = _seams(source, survey)
    crops, more = _crops(source, survey, max(min(_CROPS_EACH, MOST_CROPS // periods), 1))
    size = shard_px(cube, next(iter(cube.zones)))
    whole = all(cell.shards == 1 and cell.looked_at == size**2 for cell in survey.cells)
    return PeriodReport(
        label,
        _days(cube, label),
        survey,
        whole,
        seams,
        crops,
        {} if kept.plan is None else kept.plan.manifest,
        kept.run,
        kept.progress,
        tuple(dict.fromkeys([*notes, *why, *more])),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The cube
# ---------------------------------------------------------------------------------------------------------------------


def _days(cube: Cube, label: str) -> tuple[date, date]:
    return next(cube.periods(epsg)[label][1] for epsg in cube.zones if label in cube.periods(epsg))


def _zone(cube: Cube, epsg: int) -> ZoneFacts:
    window, size = cube.window(epsg), shard_px(cube, epsg)
    to_degrees = Transformer.from_crs(CRS.from_epsg(epsg), "EPSG:4326", always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(*window.bounds_m(epsg))
    shards = (window.height // size) * (window.width // size)
    return ZoneFacts(epsg, window, (west, south, east, north), shards)


def _stored_bytes(storage: Storage) -> int | None:
    if is_repository(storage):
        return None  # its objects are of all snapshots
    fs, path = storage.filesystem()
    try:
        return int(fs.du(path))
    except (*STORE_FAILURES, NotImplementedError):
        return None


# ---------------------------------------------------------------------------------------------------------------------
# The staging folder
# ---------------------------------------------------------------------------------------------------------------------


def _history(staging: Storage) -> tuple[tuple[Publication, ...], tuple[str, ...]]:
    """The publications, and why there are none."""
    seen, note = _tried(lambda: tuple(history(staging)))
    if seen:
        return seen, ()
    return (), (f"The history of publications is not at {bare_href(staging.url)}{f' ({note})' if note else ''}.",)


@dataclass(frozen=True, eq=False)
class _Kept:
    """What the folder of a run still holds: the plan that the period was made by, and how its last run went."""

    plan: StoredPlan | None
    run: Mapping[str, Any]
    progress: Progress | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, folder: Storage, label: str, publications: Sequence[Publication], days: tuple[date, date]) -> _Kept:
        """Read a folder, which may be gone."""
        notes = []
        there, why = _tried(lambda: folder.exists("published/manifest.json"))
        plan = None
        if not there:
            notes.append(f"The plan is not at {bare_href(folder.url)}{f' ({why})' if why else ''}.")
        elif _is_rolled_back(publications, f"{days[0]} – {days[1]}"):
            notes.append(
                "Readers see an earlier publication than the one whose plan was kept: the plan is not told of."
            )
        else:
            plan, why = _tried(lambda: read_plan(folder, "published"))
            notes += [f"The plan cannot be read: {why}"] if why else []
        run, why = _tried(lambda: json.loads(folder.read("report.json")) if folder.exists("report.json") else {})
        notes += [f"What the last run did cannot be read: {why}"] if why else []
        progress, why = _tried(lambda: read_progress(folder))
        notes += [f"What the last run took cannot be read: {why}"] if why else []
        return cls(plan, run if isinstance(run, dict) else {}, progress, tuple(notes))


def _is_rolled_back(publications: Sequence[Publication], period: str) -> bool:
    """Whether readers see another publication of a period than its latest; `publications`: the newest first."""
    states: dict[int, dict[str, int]] = {}
    state: dict[str, int] = {}
    latest = 0
    for record in reversed(publications):
        if record.restores is not None:
            state = dict(states.get(record.restores, {}))
        else:
            state = {**state, record.period: record.number}
            latest = record.number if record.period == period else latest
        states[record.number] = state
    return bool(publications) and state.get(period, 0) != latest


def _tried(do: Callable[[], T]) -> tuple[T | None, str]:
    """What it gives, or why it does not."""
    try:
        return do(), ""
    except (StoreError, ValueError) as error:
        return None, str(error)


def _planned(plan: StoredPlan) -> list[tuple[int, ShardIndex]]:
    shards = plan.shards
    places = zip(shards.epsg.tolist(), shards.row.tolist(), shards.col.tolist(), strict=True)
    return [(epsg, ShardIndex(row, col)) for epsg, row, col in places]


def _config(given: RunConfig | None, label: str, manifest: Mapping[str, Any]) -> RunConfig | None:
    """The configuration that a period was made by; None where it is not understood any more."""
    if given is not None and given.period.label == label:
        return given
    try:
        return RunConfig.model_validate(manifest["config"])
    except (ValidationError, KeyError):
        return None


def _scenes(config: RunConfig | None, plan: StoredPlan) -> tuple[dict[str, Scene], list[str]]:
    """The plan's scenes by id as far as their catalogue has them, and why not all."""
    if config is None:
        return {}, ["The plan's configuration is of another version: its scenes cannot be looked up."]
    try:
        found = {scene.id: scene for scene in find_scenes(config)}
    except DifffusrError as error:
        return {}, [f"The scenes cannot be looked up, nothing is compared with them: {error}"]
    lacking = [name for name in plan.chips.scene_ids if name not in found]
    if lacking:
        said = f"{len(lacking)} of {len(plan.chips.scene_ids)} scenes are not in the catalogue any more, {lacking[0]}"
        return found, [f"{said} for one: their chips are not compared with them."]
    return found, []


def _grid(cube: Cube, plan: StoredPlan | None) -> Grid | None:
    """The lattice of the chips; None where neither the plan nor the cube tells it."""
    told = cube.attributes.get("difffusr:provenance", {})
    config = (told if plan is None else plan.manifest).get("config", {})
    try:
        return Grid(**config["grid"])
    except (KeyError, TypeError, ValueError):
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Seams
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Source:
    """What a period is measured against: its plan, its lattice and its scenes, as far as they are known."""

    cube: Cube
    label: str
    plan: StoredPlan | None
    grid: Grid | None
    scenes: Mapping[str, Scene]

    @property
    def read(self) -> Reader:
        """Gives the cube's pixels."""
        return Reader(self.cube, self.label)

    @property
    def numbers(self) -> dict[str, int]:
        """The cube's number of each scene by its id."""
        told = self.cube.attributes.get("difffusr:scenes", {})
        return {str(facts["id"]): int(number) for number, facts in told.items()}

    @property
    def allow_cloudy(self) -> bool:
        """Whether the run let cloud fill what nothing clear covers."""
        config = {} if self.plan is None else self.plan.manifest["config"]
        return bool(config.get("scenes", {}).get("allow_cloudy", True))


def _seams(source: _Source, survey: Survey) -> tuple[Seams, list[str]]:
    """Seams and residual, and why they could not be measured."""
    read, notes = source.read, []
    bands: list[BandReport] = []
    chips: Sequence[ChipPlan] = ()
    scenes = {name: scene for name, scene in source.scenes.items() if name in source.numbers}
    if source.grid is None:
        notes.append("The cube does not say where its chips lie: seams of chips are not measured.")
    else:
        chips = _chips(source.grid, survey) if source.plan is None else source.plan.chips
        bands, why = _measured(source, source.grid, chips, read, scenes)
        scenes = {} if why else scenes
        notes += why
    compared = [chip for chip in sample_of(chips) if chip.scenes and all(name in scenes for name in chip.scenes)]
    shards = _some_shards(source.cube, survey)
    steps = [found for epsg, shard in shards for found in steps_at_shard(read, _size(source.cube), epsg, shard)]
    ratio, error = seam_ratios(steps)
    borders = sum(1 for step in steps if step[0, 1] and step[0, 3])
    of_chips = 0 if source.plan is None else len(chips)
    return Seams(bands, len(sample_of(chips)), of_chips, len(compared), borders, ratio, error), notes


def _measured(
    source: _Source, grid: Grid, chips: Sequence[ChipPlan], read: Reader, scenes: Mapping[str, Scene]
) -> tuple[list[BandReport], list[str]]:
    """Figures by band, of the cube alone where a scene cannot be read; and why."""
    cloudy = source.allow_cloudy
    try:
        return measure_bands(chips, read, grid, scenes, source.numbers, allow_cloudy=cloudy), []
    except StoreError:
        raise
    except DifffusrError as error:
        why = [f"A scene cannot be read, nothing is compared with them: {error}"]
        return measure_bands(chips, read, grid, {}, source.numbers, allow_cloudy=cloudy), why


def _chips(grid: Grid, survey: Survey) -> list[ChipPlan]:
    """Chips that touch shards with data: more than a plan would have, and those beyond the data show no steps."""
    found: set[tuple[int, ChipIndex]] = set()
    for cell in survey.cells:
        if cell.with_data:
            first = cell.window._replace(height=grid.shard_px, width=grid.shard_px)
            found.update((cell.epsg, chip) for chip in grid.chips_touching(first))
    return [ChipPlan(epsg, chip, (), 0.0, 0.0, "") for epsg, chip in sorted(found)]


def _some_shards(cube: Cube, survey: Survey) -> list[tuple[int, ShardIndex]]:
    """Shards that hold data, evenly spread; the first one of a cell."""
    cells = [cell for cell in survey.cells if cell.with_data]
    size = _size(cube)
    chosen = [cells[int(i)] for i in np.unique(np.linspace(0, len(cells) - 1, _SHARDS).round())] if cells else []
    return [(cell.epsg, ShardIndex(cell.window.row // size, cell.window.col // size)) for cell in chosen]


def _size(cube: Cube) -> int:
    return shard_px(cube, next(iter(cube.zones)))


# ---------------------------------------------------------------------------------------------------------------------
# Before and after
# ---------------------------------------------------------------------------------------------------------------------


def _crops(source: _Source, survey: Survey, most: int) -> tuple[tuple[Crop, ...], list[str]]:
    """Pictures of places spread over the order of contrast, and why some show no measurement."""
    chosen: list[Crop] = []
    notes: list[str] = []
    read = source.read
    for rank in _RANKS[:most]:
        start = int(rank * len(survey.places))
        for place in [*survey.places[start:], *survey.places[:start]]:
            window, chip = _around(source, place)
            taken = any(crop.epsg == place.epsg and crop.window.overlaps(window) for crop in chosen)
            if taken or not _is_clear(read(place.epsg, "quality", window)):
                continue
            crop, why = _crop(source, read, place.epsg, window, chip)
            chosen.append(crop)
            notes += why
            break
    return tuple(chosen), notes


def _is_clear(quality: NDArray[np.uint8]) -> bool:
    return bool(np.isin(quality, (Quality.CLEAR, Quality.FILLED)).mean() >= _CLEAR and quality.all())


def _around(source: _Source, place: Place) -> tuple[PixelWindow, ChipIndex | None]:
    """A window of whole 60 m cells around a place, in what one chip alone answers for if the chips are known."""
    row, col = place.window.row + place.window.height // 2, place.window.col + place.window.width // 2
    if source.grid is None:
        side = min(_CROP_PX, place.window.height // _CELL_PX * _CELL_PX)
        return PixelWindow(_whole(row - side // 2), _whole(col - side // 2), side, side), None
    grid = source.grid
    chip = ChipIndex(*(round((middle - grid.chip_side / 2) / grid.chip_step) for middle in (row, col)))
    window, overlap = grid.chip_window(chip), grid.overlap_px * SCALE
    inset = overlap if 2 * overlap < grid.chip_side else 0
    side = min(_CROP_PX, grid.chip_side - 2 * inset)
    first = [
        int(np.clip(_whole(middle - side // 2), start + inset, start + grid.chip_side - inset - side))
        for middle, start in ((row, window.row), (col, window.col))
    ]
    return PixelWindow(first[0], first[1], side, side), chip


def _whole(pixel: int) -> int:
    return round(pixel / _CELL_PX) * _CELL_PX


def _crop(
    source: _Source, read: Reader, epsg: int, window: PixelWindow, chip: ChipIndex | None
) -> tuple[Crop, list[str]]:
    scale = read.scale(epsg)
    order = [BANDS.index(band) for band in SHOWN_BANDS]
    after = (read(epsg, "reflectance", window)[order] * scale).astype(np.float32)
    number = int(np.bincount(read(epsg, "source", window).ravel()).argmax())
    scenes = _scenes_of(source, epsg, chip)
    before, notes = None, []
    if scenes:
        try:
            measured = read_chip(window, scenes, allow_cloudy=source.allow_cloudy)
            before = (measured.dn[10] * scale).astype(np.float32)
        except DifffusrError as error:
            notes.append(f"A scene cannot be read, its picture shows the average of the result: {error}")
    size = window.height // SCALE
    averaged = after.reshape(len(order), size, SCALE, size, SCALE).mean(axis=(2, 4))
    to_degrees = Transformer.from_crs(CRS.from_epsg(epsg), "EPSG:4326", always_xy=True)
    left, bottom, right, top = window.bounds_m(epsg)
    lon, lat = to_degrees.transform((left + right) / 2, (bottom + top) / 2)
    crop = Crop(epsg, window, lon, lat, number, before is not None, averaged if before is None else before, after)
    return crop, notes


def _scenes_of(source: _Source, epsg: int, chip: ChipIndex | None) -> list[Scene]:
    """The scenes that a chip was made of, best first; none where they are not known."""
    if source.plan is None or chip is None:
        return []
    chips = source.plan.chips
    here = np.flatnonzero((chips.epsg == epsg) & (chips.row == chip.row) & (chips.col == chip.col))
    names = chips[int(here[0])].scenes if len(here) else ()
    return [source.scenes[name] for name in names] if all(name in source.scenes for name in names) else []
