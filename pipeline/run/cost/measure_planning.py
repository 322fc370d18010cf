"""Measures planning: what a look at a scene takes, a granule's metadata, overviews to compare, an overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, Literal

from rasterio.io import DatasetReader

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.geo import LATTICE_M, Grid
from difffusr.pipeline.ground.errors import CatalogError, ReadError
from difffusr.pipeline.ground.urls import is_remote
from difffusr.pipeline.plan import (
    Cells,
    Sampled,
    look_at,
    overviews_read,
    rehearse_comparing,
    rehearse_solving,
    spacing_between,
)
from difffusr.pipeline.plan import (
    sample as read_samples,
)
from difffusr.pipeline.run.cost.calibration import Planning, SceneStep
from difffusr.pipeline.run.cost.measure_reading import HEADER_BYTES, bytes_under
from difffusr.pipeline.run.cost.sample import Sample
from difffusr.pipeline.run.cost.stopwatch import Stopwatch
from difffusr.pipeline.scenes import Asset, ChipRules, Scene, granule_document, maker_of, nadir_of, opened
from difffusr.pipeline.storage import staging_of

#: Scenes that are measured, at most.
_SCENES = 4

#: Requests for a raster over a network: its header, and the tiles of one overview, which lie side by side.
_RASTER_REQUESTS = 2

#: GDAL takes the coarsest overview whose pixels are at most so many times as large as those asked for.
_COARSER = 1.2


def measure_planning(config: RunConfig, sample: Sample) -> Planning:
    """Do for some of the sample's scenes what planning does for all.

    Raises:
        DifffusrError: a scene cannot be read.
    """
    rules = ChipRules.of(config.canonical()["scenes"], staging_of(config))
    every = {scene.id: scene for chip in sample.chips for scene in sample.scenes_of(chip)}
    scenes = list(every.values())[:_SCENES]
    look = _mean([_look(scene, sample.grid, rules) for scene in scenes])
    wanted = config.scenes
    angles = _mean([_angles(scene, wanted.sun) for scene in scenes]) if wanted.balance != "none" else None
    if wanted.balance != "full":
        return Planning(masks=wanted.masks, look=look, angles=angles, overviews=None, overlap_seconds=None)
    spacing = spacing_between(list(sample.scenes.values()))
    made: list[Sampled] = []
    overviews = _mean([_overviews(scene, spacing, wanted.sun, rules, made) for scene in scenes])
    return Planning(
        masks=wanted.masks,
        look=look,
        angles=angles,
        overviews=overviews,
        overlap_seconds=_overlap_seconds(made, spacing),
    )


def _look(scene: Scene, grid: Grid, rules: ChipRules) -> SceneStep:
    """A look, with all that its mask takes; which bands it asks for is noted by the way."""
    step_m, noted = Cells.of(grid).step_m, _Noted(scene.assets)
    step = _timed(lambda: look_at(replace(scene, assets=noted), grid, rules))
    by_network = rules.masks == "csmask"
    files = [(name, step_m) for name in maker_of(rules).files(scene)]
    if scene.scl is not None and not by_network:
        files.append(("SCL", step_m))
    return step + _fetched(scene, [*files, *((band, LATTICE_M if by_network else step_m) for band in noted.asked)])


class _Noted(dict[str, Asset]):
    """Assets that note which of them are asked for, as `Scene.file` does."""

    def __init__(self, assets: Mapping[str, Asset]) -> None:
        super().__init__(assets)
        self.asked: dict[str, None] = {}

    def get(self, band: str, default: Any = None) -> Any:
        if band in self:
            self.asked[band] = None
        return super().get(band, default)


def _angles(scene: Scene, sun: Literal["scene", "noon"]) -> SceneStep:
    step = _timed(lambda: nadir_of(scene, sun))
    if scene.granule is None:
        return step
    try:
        size = len(granule_document(scene.granule, scene.id))
    except (CatalogError, ReadError):  # planning goes on without, and so does this
        return step
    return step + SceneStep(seconds=0, cpu_seconds=0, bytes=size, requests=int(is_remote(scene.granule)))


def _overviews(scene: Scene, spacing: float, sun: str, rules: ChipRules, made: list[Sampled]) -> SceneStep:
    """Sampling without the granule's metadata and without making a mask, which are measured by themselves."""
    alone = replace(scene, granule=None)
    step = _timed(lambda: made.append(read_samples(alone, spacing, sun, rules)))
    return step + _fetched(scene, overviews_read(scene, spacing))


def _overlap_seconds(made: Sequence[Sampled], spacing: float) -> float:
    with Stopwatch() as comparing:
        compared = rehearse_comparing(made, spacing)
    with Stopwatch() as solving:
        solved = rehearse_solving()
    return comparing.seconds / compared + solving.seconds / solved


def _timed(work: Callable[[], object]) -> SceneStep:
    with Stopwatch() as watch:
        work()
    return SceneStep(seconds=watch.seconds, cpu_seconds=watch.cpu_seconds, bytes=0, requests=0)


def _mean(steps: Sequence[SceneStep]) -> SceneStep:
    names = SceneStep.model_fields
    return SceneStep(**{name: fmean(getattr(step, name) for step in steps) for name in names})


def _fetched(scene: Scene, files: Sequence[tuple[str, int]]) -> SceneStep:
    """Bytes and requests of overviews, as `Scene.file` calls their files, each with the side of its cells in metres."""
    size, requests = 0.0, 0
    for band, step_m in files:
        asset = scene.file(band)
        with opened(scene, band, asset) as file:
            size += _overview_bytes(file, step_m, asset.href)
        if is_remote(asset.href):
            size, requests = size + HEADER_BYTES, requests + _RASTER_REQUESTS
    return SceneStep(seconds=0, cpu_seconds=0, bytes=size, requests=requests)


def _overview_bytes(file: DatasetReader, step_m: float, href: str) -> float:
    """Compressed bytes of the overview that is read for cells of so many metres; of the whole file where it has none,
    and where its resolutions are not kept apart (JPEG 2000)."""
    coarsest = _COARSER * step_m / abs(file.transform.a)
    levels = [level for level, factor in enumerate(file.overviews(1)) if factor <= coarsest]
    if file.driver != "GTiff" or not levels:
        return bytes_under(file, range(file.height), range(file.width), href)
    total, row = 0, 0
    while sizes := _row_of_blocks(file, levels[-1], row):
        total, row = total + sum(sizes), row + 1
    return float(total)


def _row_of_blocks(file: DatasetReader, level: int, row: int) -> list[int]:
    """Bytes of the blocks of one row of an overview; none beyond the last row."""
    sizes: list[int] = []
    while size := file.get_tag_item(f"BLOCK_SIZE_{len(sizes)}_{row}", "TIFF", bidx=1, ovr=level):
        sizes.append(int(size))
    return sizes
