"""Collect the contents of a report from a cube and, if it still exists, its staging folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import ValidationError
from pyproj import Transformer

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.cube import Cube, store_of
from difffusr.pipeline.geo import Grid
from difffusr.pipeline.ground.errors import ConfigError, DifffusrError
from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.plan import StoredPlan
from difffusr.pipeline.publish import Publication
from difffusr.pipeline.readers.footprints import box_of, footprint_of
from difffusr.pipeline.readers.report.balance_facts import balance_of
from difffusr.pipeline.readers.report.crops import CROPS_EACH, choose_crops
from difffusr.pipeline.readers.report.facts import CubeReport, PeriodReport, ZoneFacts
from difffusr.pipeline.readers.report.reference import Reference, as_balanced
from difffusr.pipeline.readers.report.run_records import RunRecords, read_publications
from difffusr.pipeline.readers.report.seam_check import check_seams
from difffusr.pipeline.readers.report.survey import survey_period
from difffusr.pipeline.readers.report.windows import shard_side
from difffusr.pipeline.scenes import Scene, find_scenes
from difffusr.pipeline.storage import Storage

#: Most periods, map cells and pictures on a page.
MOST_PERIODS, MOST_CELLS, MOST_CROPS = 6, 3000, 6

#: What a configuration says of a grid of chips.
_SIZES = ("chip_px", "overlap_px", "shard_px", "chunk_px")

#: Most shards of a cube whose objects are listed to add up their sizes.
_MOST_LISTED = 20_000


def collect_report(
    cube: Cube, staging: Storage, config: RunConfig | None, periods: Sequence[str] = (), *, with_scenes: bool = True
) -> CubeReport:
    """Collect a cube's report with bounded effort, however large the cube is.

    Takes memory for a shard or two, and reads per period a few thousand inner chunks of labels and some hundred of
    reflectance.

    Args:
        staging: the cube's staging folder, which may be deleted.
        config: the run's, if the cube was given by one.
        periods: labels; the latest ones by default.
        with_scenes: whether to read the source scenes.

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
    publications, notes = read_publications(staging)
    reports = [_period(cube, staging, config, label, publications, len(chosen), with_scenes) for label in chosen]
    zones = tuple(_zone(cube, epsg) for epsg in sorted(cube.zones))
    return CubeReport(
        bare_href(cube.storage.url),
        cube.attributes,
        cube.scenes,
        zones,
        _stored_bytes(cube),
        tuple(labels),
        tuple(reports),
        publications,
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
    records = RunRecords.of(
        staging.child(f"runs/{label}"), _days(cube, label), publications, with_plan=not cube.in_one_crs
    )
    notes = list(records.notes)
    planned = records.planned_shards
    survey = survey_period(cube, label, max(MOST_CELLS // periods, 1), planned)
    scenes: Mapping[str, Scene] = {}
    if cube.in_one_crs:
        source = "" if cube.derived_from is None else f" of {bare_href(cube.derived_from)}"
        notes.append(
            f"This cube is made of the UTM zones{source}, not of scenes: how these compare with the scenes, and the "
            "seams between chips, are in the report of that cube."
        )
    elif records.plan is None:
        notes.append("Without the plan the scenes of each chip are not known, so nothing is compared with them.")
    elif not with_scenes:
        notes.append("Reading scenes was switched off, so nothing is compared with them.")
    else:
        scenes, why = _scenes(_config(config, label, records.plan.manifest), records)
        notes += why
    reference = Reference(cube, label, records.plan, _grid(cube, records.plan), scenes, staging.child(f"runs/{label}"))
    seams, why = check_seams(reference, survey)
    crops, more = choose_crops(reference, survey, max(min(CROPS_EACH, MOST_CROPS // periods), 1))
    size = shard_side(cube)
    whole = all(cell.shards == 1 and cell.looked_at == size**2 for cell in survey.cells)
    return PeriodReport(
        label,
        _days(cube, label),
        survey,
        whole,
        seams,
        crops,
        {} if records.plan is None else records.plan.manifest,
        records.run,
        records.progress,
        tuple(dict.fromkeys([*notes, *why, *more])),
        balance_of(cube, records, survey),
    )


def _days(cube: Cube, label: str) -> tuple[date, date]:
    return next(cube.periods(epsg)[label][1] for epsg in cube.zones if label in cube.periods(epsg))


def _zone(cube: Cube, epsg: int) -> ZoneFacts:
    window, size = cube.window(epsg), shard_side(cube)
    lattice, of_crs = cube.lattice(epsg), cube.of_crs(epsg)
    if of_crs is None:
        degrees = Transformer.from_crs(lattice.crs, "EPSG:4326", always_xy=True).transform_bounds(
            *lattice.bounds(window)
        )
    else:
        degrees = box_of(footprint_of(of_crs.box(window), of_crs))
    shards = (window.height // size) * (window.width // size)
    return ZoneFacts(epsg, window, degrees, shards, of_crs)


def _stored_bytes(cube: Cube) -> int | None:
    """Size of all objects, by listing them. None for Icechunk, where they are of all snapshots, and for large cubes."""
    shards = sum(_zone(cube, epsg).shards * len(cube.periods(epsg)) for epsg in cube.zones)
    return store_of(cube.storage).stored_bytes() if shards <= _MOST_LISTED else None


def _config(given: RunConfig | None, label: str, manifest: Mapping[str, Any]) -> RunConfig | None:
    """The configuration of a period's run; None if this version cannot read it."""
    if given is not None and given.period.label == label:
        return given
    try:
        return RunConfig.model_validate(manifest["config"])
    except (ValidationError, KeyError):
        return None


def _scenes(config: RunConfig | None, records: RunRecords) -> tuple[dict[str, Scene], list[str]]:
    """The plan's scenes by id, balanced as they were for it, as far as the catalogue has them, and why not all."""
    if config is None:
        return {}, ["The plan's configuration is of another version, so its scenes cannot be looked up."]
    try:
        found = {scene.id: scene for scene in find_scenes(config)}
    except DifffusrError as error:
        return {}, [f"The scenes cannot be looked up, so nothing is compared with them: {error}"]
    assert records.plan is not None
    names = records.plan.chips.scene_ids
    lacking, notes = [name for name in names if name not in found], []
    if lacking:
        share = f"{len(lacking)} of {len(names)} scenes"
        notes = [f"{share} are no longer in the catalogue (such as {lacking[0]}); their chips are not compared."]
    scenes, why = as_balanced({name: found[name] for name in names if name in found}, records.plan, records.balanced)
    return scenes, notes + why


def _grid(cube: Cube, plan: StoredPlan | None) -> Grid | None:
    """The grid of the chips; None if neither plan nor cube has it, and of a cube of one CRS, which has none."""
    if cube.in_one_crs:
        return None
    provenance = cube.attributes.get("difffusr:provenance", {})
    config = (provenance if plan is None else plan.manifest).get("config", {})
    try:
        return Grid(**{name: size for name, size in config["grid"].items() if name in _SIZES})
    except (KeyError, TypeError, ValueError):
        return None
