"""The demonstration: the whole job on a generated world, compared with the world's truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
import yaml
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, GROUPS, RGB, SCALE, TARGET_GSD_M, band_indices
from difffusr.kernels.measures import ergas, psnr, sam_degrees
from difffusr.pipeline.commands.common import world_in
from difffusr.pipeline.config import RunConfig, load_config
from difffusr.pipeline.cube import CubeReader
from difffusr.pipeline.geo import PixelWindow, grid_of
from difffusr.pipeline.ground.pixels import DN_SCALE, Quality
from difffusr.pipeline.run import RunResult, draft_of, execute
from difffusr.pipeline.scenes import ChipRules, read_chip
from difffusr.pipeline.scenes.synthetic import DemoWorld, before_after_picture, write_demo_world
from difffusr.pipeline.storage import storage_of
from difffusr.pipeline.watch import Progress

Float = NDArray[np.float32]

#: Side of the picture's crop in 10 m pixels.
_CROP_PX = 96


@dataclass(frozen=True)
class Scores:
    """Agreement with the truth at 2.5 m: PSNR in decibels (range 1) of RGB and of all bands, SAM in degrees, ERGAS."""

    psnr_rgb: float
    psnr: float
    sam: float
    ergas: float


@dataclass(frozen=True)
class DemoOutcome:
    """The results of the demonstration.

    Attributes:
        config, result: of the run.
        scores: by name, the cube's and bicubic enlargement's.
        picture: path of the before/after PNG.
        group: the cube's group with the mosaic.
    """

    config: RunConfig
    result: RunResult
    scores: dict[str, Scores]
    picture: Path
    group: str


def run_demo(folder: Path, seed: int, progress: Progress) -> DemoOutcome:
    """Generate the world of a seed, run on it with the small models, and measure.

    Raises:
        DifffusrError: the folder cannot be written, or the run fails.
    """
    with world_in(folder, progress):
        world = write_demo_world(folder / "world", seed)
        config_path = _write_config(folder, world)
    config = load_config(config_path)
    result = execute(config, progress)
    progress.start("compare", 1)
    mosaic = _gather(config, result, world)
    scores = {"DiffFuSR": _score(mosaic.cube, mosaic), "bicubic": _score(mosaic.bicubic, mosaic)}
    picture = _draw(folder / "before-after.png", mosaic)
    progress.advance("compare")
    return DemoOutcome(config, result, scores, picture, f"{world.epsg}/0")


def _write_config(folder: Path, world: DemoWorld) -> Path:
    content = {
        "name": "demo",
        "area": {"bbox": [round(float(edge), 6) for edge in world.bbox]},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog.relative_to(folder))},
        "store": {"url": "cube.zarr"},
    }
    path = folder / "demo.yaml"
    path.write_text(f"# The demonstration's run: `difffusr verify {path}`\n" + yaml.safe_dump(content, sort_keys=False))
    return path


@dataclass(frozen=True)
class _Mosaic:
    """The planned chips' cores as one image.

    Attributes:
        cube, bicubic, truth: (12, H, W) float32 reflectance at 2.5 m.
        low: (12, H/4, W/4), the input on the 10 m grid, coarser bands repeated.
        seen: (H, W), where cube, input and truth show the same clear scene.
    """

    cube: Float
    bicubic: Float
    truth: Float
    low: Float
    seen: NDArray[np.bool_]


def _gather(config: RunConfig, result: RunResult, world: DemoWorld) -> _Mosaic:
    """Put the chips' cores, a stride each, side by side: they tile the ground without overlap."""
    grid = grid_of(config)
    plan = result.plan
    draft = draft_of(config, plan)
    reader = CubeReader(storage_of(config), draft)
    scenes = {scene.id: scene for scene in plan.scenes}
    dates = {number: str(facts["datetime"])[:10] for number, facts in draft.scenes.items()}
    rows, cols = sorted({c.index.row for c in plan.chips}), sorted({c.index.col for c in plan.chips})
    step, edge = grid.stride_px, grid.overlap_px // 2
    fine = (12, len(rows) * step * SCALE, len(cols) * step * SCALE)
    cube, bicubic, truth = (np.zeros(fine, np.float32) for _ in range(3))
    low = np.zeros((12, fine[1] // SCALE, fine[2] // SCALE), np.float32)
    seen = np.zeros(fine[1:], bool)
    for chip in plan.chips:
        outer = grid.chip_window(chip.index)
        core = PixelWindow(outer.row + edge * SCALE, outer.col + edge * SCALE, step * SCALE, step * SCALE)
        top, left = (chip.index.row - rows[0]) * step, (chip.index.col - cols[0]) * step
        there = np.s_[top * SCALE : (top + step) * SCALE, left * SCALE : (left + step) * SCALE]
        cube[(slice(None), *there)] = reader.read(chip.epsg, "reflectance", core).astype(np.float32) / DN_SCALE
        source = reader.read(chip.epsg, "source", core)
        quality = reader.read(chip.epsg, "quality", core)
        for number in np.unique(source[source > 0]):
            part = source == number
            truth[(slice(None), *there)][:, part] = read_truth(world.truth[dates[int(number)]], core)[:, part]
        measured = read_chip(outer, [scenes[s] for s in chip.scenes], ChipRules())
        enlarged, coarse = _enlarge(measured.dn, grid.chip_px)
        inner = slice(edge, edge + step)
        inner_fine = slice(edge * SCALE, (edge + step) * SCALE)
        bicubic[(slice(None), *there)] = enlarged[:, inner_fine, inner_fine]
        low[:, top : top + step, left : left + step] = coarse[:, inner, inner]
        # a pixel counts where the cube and the chip's own input show the same clear scene
        same = measured.source.repeat(SCALE, 0).repeat(SCALE, 1)[inner_fine, inner_fine] > 0
        clear = (quality == Quality.CLEAR) | (quality == Quality.FILLED)
        seen[there] = clear & same & (truth[0][there] > 0)
    return _Mosaic(cube, bicubic, truth, low, seen)


def _enlarge(dn: Mapping[int, NDArray[np.uint16]], chip_px: int) -> tuple[Float, Float]:
    """Native bands → bicubic (12, 4n, 4n) and, coarser bands repeated, (12, n, n), reflectance."""
    fine = np.zeros((12, chip_px * SCALE, chip_px * SCALE), np.float32)
    coarse = np.zeros((12, chip_px, chip_px), np.float32)
    for gsd, names in GROUPS.items():
        native = torch.from_numpy(dn[gsd].astype(np.float32) / DN_SCALE)[None]
        order = band_indices(names)
        size = [chip_px * SCALE] * 2
        fine[order] = F.interpolate(native, size=size, mode="bicubic", align_corners=False)[0].numpy()
        coarse[order] = native[0].numpy().repeat(gsd // 10, 1).repeat(gsd // 10, 2)
    return fine, coarse


def read_truth(path: Path, window: PixelWindow) -> Float:
    """(12, h, w) reflectance of a file of the world's truth; 0 outside it."""
    out = np.zeros((12, window.height, window.width), np.float32)
    with rasterio.open(path) as file:
        left, _, _, top = window.bounds_m(file.crs.to_epsg())
        row, col = round((file.transform.f - top) / TARGET_GSD_M), round((left - file.transform.c) / TARGET_GSD_M)
        r0, r1 = max(row, 0), min(row + window.height, file.height)
        c0, c1 = max(col, 0), min(col + window.width, file.width)
        if r0 < r1 and c0 < c1:
            data = file.read(window=((r0, r1), (c0, c1))).astype(np.float32) / DN_SCALE
            out[:, r0 - row : r1 - row, c0 - col : c1 - col] = data
    return out


def _score(image: Float, mosaic: _Mosaic) -> Scores:
    x = torch.from_numpy(image[:, mosaic.seen])[None, :, None]  # (1, 12, 1, pixels)
    y = torch.from_numpy(mosaic.truth[:, mosaic.seen])[None, :, None]
    rgb = band_indices(RGB)
    return Scores(
        psnr_rgb=float(psnr(x[:, rgb], y[:, rgb])),
        psnr=float(psnr(x, y)),
        sam=float(sam_degrees(x, y)),
        ergas=float(ergas(x, y, ratio=SCALE)),
    )


def _draw(path: Path, mosaic: _Mosaic) -> Path:
    """Draw the crop with the most detail that has no gaps."""
    best, place = -1.0, (0, 0)
    size = _CROP_PX * SCALE
    green = mosaic.truth[BANDS.index("B03")]
    for row in range(0, green.shape[0] - size + 1, size // 4):
        for col in range(0, green.shape[1] - size + 1, size // 4):
            cut = np.s_[row : row + size, col : col + size]
            if mosaic.seen[cut].all():
                detail = float(np.abs(np.diff(green[cut], axis=1)).mean())
                if detail > best:
                    best, place = detail, (row, col)
    row, col = place
    fine = np.s_[:, row : row + size, col : col + size]
    coarse = np.s_[:, row // SCALE : row // SCALE + _CROP_PX, col // SCALE : col // SCALE + _CROP_PX]
    return before_after_picture(
        path, mosaic.low[coarse], mosaic.cube[fine], truth=mosaic.truth[fine], bicubic=mosaic.bicubic[fine]
    )
