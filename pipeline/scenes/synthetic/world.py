"""A small made-up world at 2.5 m, the Sentinel-2 scenes a sensor would see of it, their STAC catalogue, and a picture.

Everything follows from a seed. The truth is known, so a run on this world can be measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.transform import Affine

from difffusr.kernels.bands import BANDS, TARGET_GSD_M
from difffusr.pipeline.scenes.synthetic.archive import write_catalog, write_tiff
from difffusr.pipeline.scenes.synthetic.layout import lay_out
from difffusr.pipeline.scenes.synthetic.painting import paint_world
from difffusr.pipeline.scenes.synthetic.palette import DATES, EPSG, LANDCOVER, LEFT_M, PERIOD, SEED, SIZE_M, TOP_M
from difffusr.pipeline.scenes.synthetic.sensor import render_scenes
from difffusr.pipeline.scenes.synthetic.truth import World


@dataclass(frozen=True)
class DemoWorld:
    """A written world: paths of catalogue and truth (GeoTIFFs by ISO date), and what a run's configuration needs."""

    catalog: Path
    truth: Mapping[str, Path]
    landcover: Path
    bbox: tuple[float, float, float, float]
    epsg: int
    period: tuple[str, str]


def write_demo_world(folder: Path | str, seed: int = SEED, size_m: tuple[int, int] = SIZE_M) -> DemoWorld:
    """Generate a world and write its catalogue (`archive/`), its truth (`truth_DATE.tif`) and its land cover.

    folder: created if missing. size_m: (height, width), multiples of 60 m. The truth is uint16, reflectance × 10000.
    The land cover's band has a tag for each code, the name of its class.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world = generate_world(seed, size_m)
    catalog = write_catalog(render_scenes(world), folder / "archive")
    truth = {}
    for date, _ in DATES:
        truth[date] = folder / f"truth_{date}.tif"
        pixels = np.rint(world.on(date) * 10_000).astype(np.uint16)
        write_tiff(truth[date], pixels, world.transform, world.epsg, "GTiff", descriptions=BANDS)
    landcover = folder / "landcover.tif"
    names = {str(code): name for code, name in LANDCOVER.items()}
    write_tiff(landcover, world.landcover[None], world.transform, world.epsg, "GTiff", tags=names)
    return DemoWorld(catalog, truth, landcover, world.bbox, world.epsg, PERIOD)


def generate_world(seed: int = SEED, size_m: tuple[int, int] = SIZE_M) -> World:
    """Fields, roads, a village, a river, a lake and woods on two dates.

    size_m: (height, width), multiples of 60 m, at least 600. The same seed and size give the same arrays.
    """
    check_size(size_m)
    layout = lay_out(np.random.default_rng(seed), size_m)
    first, later = paint_world(layout, 0), paint_world(layout, 1)
    transform = Affine(TARGET_GSD_M, 0, LEFT_M, 0, -TARGET_GSD_M, TOP_M)
    return World(first, later, layout.landcover, transform, EPSG, seed)


def check_size(size_m: tuple[int, int]) -> None:
    """Raise ValueError for a world off the lattice or too small."""
    if any(side % 60 or side < 600 for side in size_m):
        raise ValueError(f"size_m must be multiples of 60 m and at least 600 m, not {size_m}")
