"""What is to be told of a published cube: collected from the cube itself, and from its staging folder where that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import ValidationError
from pyproj import CRS, Transformer

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.ground.errors import ConfigError, DifffusrError
from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.plan.tables import StoredPlan
from difffusr.pipeline.publish.publications import Publication
from difffusr.pipeline.readers.report.crops import CROPS_EACH, crops_of
from difffusr.pipeline.readers.report.facts import CubeReport, PeriodReport, ZoneFacts
from difffusr.pipeline.readers.report.kept import Kept, publications_of
from difffusr.pipeline.readers.report.source import Source, seams_of, shard_size
from difffusr.pipeline.readers.report.survey import look_over, shard_px
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.search import find_scenes
from difffusr.pipeline.storage.icechunk import is_repository
from difffusr.pipeline.storage.objects import STORE_FAILURES, Storage

#: Periods on one page, cells of all their maps, and pictures: what keeps it small.
MOST_PERIODS, MOST_CELLS, MOST_CROPS = 6, 3000, 6

#: Shards of a cube whose objects are listed to add up their sizes.
_MOST_LISTED = 20_000


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
    seen, notes = publications_of(staging)
    told = [_period(cube, staging, config, label, seen, len(chosen), with_scenes) for label in chosen]
    zones = tuple(_zone(cube, epsg) for epsg in sorted(cube.zones))
    return CubeReport(
        bare_href(cube.storage.url),
        cube.attributes,
        zones,
        _stored_bytes(cube),
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
    kept = Kept.of(staging.child(f"runs/{label}"), _days(cube, label), publications)
    notes = list(kept.notes)
    planned = kept.planned_shards
    survey = look_over(cube, label, max(MOST_CELLS // periods, 1), planned)
    scenes: Mapping[str, Scene] = {}
    if kept.plan is None:
        notes.append("Without the plan the scenes of each chip are not known: nothing is compared with them.")
    elif not with_scenes:
        notes.append("The scenes were not to be read: nothing is compared with them.")
    else:
        scenes, why = _scenes(_config(config, label, kept.plan.manifest), kept.plan)
        notes += why
    source = Source(cube, label, kept.plan, _grid(cube, kept.plan), scenes)
    seams, why = seams_of(source, survey)
    crops, more = crops_of(source, survey, max(min(CROPS_EACH, MOST_CROPS // periods), 1))
    size = shard_size(cube)
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


def _days(cube: Cube, label: str) -> tuple[date, date]:
    return next(cube.periods(epsg)[label][1] for epsg in cube.zones if label in cube.periods(epsg))


def _zone(cube: Cube, epsg: int) -> ZoneFacts:
    window, size = cube.window(epsg), shard_px(cube, epsg)
    to_degrees = Transformer.from_crs(CRS.from_epsg(epsg), "EPSG:4326", always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(*window.bounds_m(epsg))
    shards = (window.height // size) * (window.width // size)
    return ZoneFacts(epsg, window, (west, south, east, north), shards)


def _stored_bytes(cube: Cube) -> int | None:
    """By listing all objects: not of a repository, whose objects are of all snapshots, and not of a million of them."""
    shards = sum(_zone(cube, epsg).shards * len(cube.periods(epsg)) for epsg in cube.zones)
    if is_repository(cube.storage) or shards > _MOST_LISTED:
        return None
    fs, path = cube.storage.filesystem()
    try:
        return int(fs.du(path))
    except (*STORE_FAILURES, NotImplementedError):
        return None


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
