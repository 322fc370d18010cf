"""The demonstration of balance: a generated world seen from two orbits, once as its scenes are and once balanced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, SCALE
from difffusr.pipeline.commands.common import world_in
from difffusr.pipeline.commands.demonstration import read_truth
from difffusr.pipeline.config import RunConfig, load_config
from difffusr.pipeline.cube import CubeReader
from difffusr.pipeline.geo import PixelWindow, grid_of
from difffusr.pipeline.ground.pixels import DN_SCALE, Quality
from difffusr.pipeline.plan import Plan, SceneBalance
from difffusr.pipeline.readers import verify_run
from difffusr.pipeline.run import RunResult, draft_of, execute
from difffusr.pipeline.scenes.synthetic import DemoWorld, write_two_orbits
from difffusr.pipeline.storage import storage_of
from difffusr.pipeline.watch import Progress

Array = NDArray[np.float64]

#: Settings of `scenes.balance` that are compared, and what is said of each in its configuration.
BALANCES: Final = {
    "none": "the scenes as they are",
    "full": "view angles, then a gain and an offset for each granule and band",
}

#: Height and width of the world.
_SIZE_M: Final = (2880, 3660)

#: Side of the squares that are compared with the truth, in 2.5 m pixels: brightness counts here, detail does not.
_SQUARE_PX: Final = 8

_CONFIG: Final = """\
# One of two runs on the same scenes, of five dates from two orbits; `difffusr verify {path}` checks it.
name: {balance}
area: {{bbox: {bbox}}}
period: {{start: {start}, end: {end}}}
source: {{static_catalog: {catalog}}}
grid: {{chip_px: 96, overlap_px: 12, shard_px: 1024, chunk_px: 128}}  # small: many borders on a few kilometres
scenes:
  policy: clearest  # each chip for itself, whatever its neighbours take
  border_cost: 0
  balance: {balance}  # {told}
model: {{sampler: draft}}  # no diffusion: brightness is what is looked at
compute: {{actors_max: 1}}  # a second one would load the networks again
store: {{url: {balance}.zarr}}
"""


@dataclass(frozen=True)
class Mosaic:
    """What a run came to.

    Attributes:
        config, result: of the run.
        off: (12,) mean absolute difference to the truth, of squares of 20 m, reflectance.
        ratio: (12,) steps across borders between scenes, against those beside them; NaN without such borders.
    """

    config: RunConfig
    result: RunResult
    off: Array
    ratio: Array


@dataclass(frozen=True)
class Balancing:
    """The results of the demonstration.

    Attributes:
        mosaics: by setting of `scenes.balance`.
        apart: mean over scenes and bands of the median difference to other scenes, the view taken out, before gain and
            offset and after, reflectance; NaN where the world is too small to compare its scenes.
    """

    mosaics: Mapping[str, Mosaic]
    apart: tuple[float, float]


def run_two_orbits(folder: Path, seed: int, progress: Progress, size_m: tuple[int, int] = _SIZE_M) -> Balancing:
    """Generate the world of a seed, run on it without balance and with it, and compare.

    Raises:
        DifffusrError: the folder cannot be written, or a run fails.
    """
    with world_in(folder, progress):
        world = write_two_orbits(folder / "world", seed, size_m)
        paths = {balance: _write_config(folder, world, balance) for balance in BALANCES}
    mosaics = {balance: _mosaic(path, world, progress) for balance, path in paths.items()}
    return Balancing(mosaics, _apart(mosaics["full"].result.plan))


def _write_config(folder: Path, world: DemoWorld, balance: str) -> Path:
    path = folder / f"{balance}.yaml"
    start, end = world.period
    text = _CONFIG.format(
        path=path, balance=balance, told=BALANCES[balance], start=start, end=end,
        bbox=[round(float(edge), 6) for edge in world.bbox], catalog=world.catalog.relative_to(folder),
    )  # fmt: skip
    path.write_text(text)
    return path


def _mosaic(path: Path, world: DemoWorld, progress: Progress) -> Mosaic:
    config = load_config(path)
    result = execute(config, progress)
    progress.start("compare", 1)
    off = _off(config, result, world)
    kinds = {seams.kind: seams.bands for seams in verify_run(config).sources}
    ratio = {band.band: band.ratio for band in kinds.get("all", ())}
    progress.advance("compare")
    return Mosaic(config, result, off, np.array([ratio.get(band, np.nan) for band in BANDS]))


def _apart(plan: Plan) -> tuple[float, float]:
    scenes = SceneBalance.of(plan)
    known = [values[np.isfinite(values)] for values in scenes.difference()] if scenes else []
    before, after = (float(values.mean()) if values.size else float("nan") for values in known or [np.empty(0)] * 2)
    return before, after


def _off(config: RunConfig, result: RunResult, world: DemoWorld) -> Array:
    """(12,) mean absolute difference between the cube and the truth of each pixel's date, where ground is clear."""
    grid, draft = grid_of(config), draft_of(config, result.plan)
    reader = CubeReader(storage_of(config), draft)
    dates = {number: str(facts["datetime"])[:10] for number, facts in draft.scenes.items()}
    total, count = np.zeros(len(BANDS)), 0
    for chip in result.plan.chips:
        outer = grid.chip_window(chip.index)
        side = grid.stride_px * SCALE
        edge = (outer.width - side) // 2
        core = PixelWindow(outer.row + edge, outer.col + edge, side, side)
        cube = reader.read(chip.epsg, "reflectance", core).astype(np.float32) / DN_SCALE
        source = reader.read(chip.epsg, "source", core)
        clear = np.isin(reader.read(chip.epsg, "quality", core), (Quality.CLEAR, Quality.FILLED))
        truth = np.zeros_like(cube)
        for path in {world.truth[dates[int(number)]] for number in np.unique(source[source > 0])}:
            there = np.isin(source, [number for number, date in dates.items() if world.truth[date] == path])
            truth[:, there] = read_truth(path, core)[:, there]
        seen = _squares(clear & (truth[0] > 0)).all(axis=(1, 3))
        total += np.abs(_squares(cube - truth).mean(axis=(2, 4)))[:, seen].sum(axis=1)
        count += int(seen.sum())
    return total / max(count, 1)


def _squares(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """(…, h, w) as (…, rows, square, columns, square), without what is left over."""
    rows, cols = (side // _SQUARE_PX for side in image.shape[-2:])
    whole = image[..., : rows * _SQUARE_PX, : cols * _SQUARE_PX]
    return whole.reshape(*image.shape[:-2], rows, _SQUARE_PX, cols, _SQUARE_PX)
