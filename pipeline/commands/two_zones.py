"""The demonstration of one CRS: a generated world across a border of UTM zones, in both zones and in one CRS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, TARGET_GSD_M
from difffusr.pipeline.commands.common import world_in
from difffusr.pipeline.config import RunConfig, load_config
from difffusr.pipeline.cube import CubeReader
from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.ground.pixels import DN_SCALE
from difffusr.pipeline.run import RunResult, draft_of, execute
from difffusr.pipeline.scenes.synthetic import TwoZones, write_two_zones
from difffusr.pipeline.storage import storage_of
from difffusr.pipeline.watch import Progress

#: The derived cube's name in the configuration.
DERIVED: Final = "europe"

_CONFIG: Final = """\
# A run across a border of UTM zones: `difffusr verify {path}` checks its zones,
# `difffusr verify {path} --derived {derived}` the cube of one CRS.
name: two-zones
area: {{bbox: {bbox}}}
period: {date}
source: {{static_catalog: {catalog}}}
grid: {{chip_px: 96, overlap_px: 12, shard_px: 1024, chunk_px: 128}}  # small, as the world is
model: {{sampler: draft}}  # no diffusion: the border is what is looked at
compute: {{actors_max: 1}}  # a second one would load the networks again
store: {{url: zones.zarr}}
derived:
  - {{name: {derived}, crs: "EPSG:3035", url: {derived}.zarr, shard_px: 1024, chunk_px: 128}}
"""


@dataclass(frozen=True)
class AcrossZones:
    """What the demonstration came to.

    Attributes:
        zones: the configuration of the run, whose `of_derived(DERIVED)` is that of the other cube.
        results: of the run, and of the derived cube; the second is missing where the first was stopped.
        off, mean: (12,) of the derived cube where it shows the world: the mean absolute difference to the truth, as
            reflectance, and the ratio of the means; empty without it.
    """

    zones: RunConfig
    results: tuple[RunResult, ...]
    off: NDArray[np.float64]
    mean: NDArray[np.float64]


def run_two_zones(folder: Path, seed: int, progress: Progress, size_m: tuple[int, int] = (1200, 3660)) -> AcrossZones:
    """Generate the world of a seed, run on it, bring both zones into one CRS, and compare with the truth.

    Raises:
        DifffusrError: the folder cannot be written, or a run fails.
    """
    with world_in(folder, progress):
        world = write_two_zones(folder / "world", seed, size_m)
        path = _write_config(folder, world)
    config = load_config(path)
    zones = execute(config, progress)
    if zones.stopped:
        return AcrossZones(config, (zones,), np.empty(0), np.empty(0))
    derived = config.of_derived(DERIVED)
    made = execute(derived, progress)
    return AcrossZones(config, (zones, made), *_compared(derived, made, world))


def _write_config(folder: Path, world: TwoZones) -> Path:
    path = folder / "two-zones.yaml"
    text = _CONFIG.format(
        path=path, derived=DERIVED, date=f"{{start: {world.date}, end: {world.date}}}",
        bbox=[round(edge, 6) for edge in world.bbox], catalog=world.catalog.relative_to(folder),
    )  # fmt: skip
    path.write_text(text)
    return path


def _compared(config: RunConfig, made: RunResult, world: TwoZones) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(12,) mean absolute difference between the derived cube and the truth, reflectance, and ratio of their means."""
    with rasterio.open(world.truth) as file:
        truth, number = file.read().astype(np.float64), file.crs.to_epsg()
        row, col = round(-file.transform.f / TARGET_GSD_M), round(file.transform.c / TARGET_GSD_M)
    window = PixelWindow(row, col, *truth.shape[1:])
    reader = CubeReader(storage_of(config), draft_of(config, made.plan))
    cube = reader.read(number, "reflectance", window).astype(np.float64)
    shown = (cube > 0).all(axis=0)
    if not shown.any():
        return np.full(len(BANDS), np.nan), np.full(len(BANDS), np.nan)
    off = np.abs(cube - truth)[:, shown].mean(axis=1) / DN_SCALE
    return off, cube[:, shown].mean(axis=1) / truth[:, shown].mean(axis=1)
