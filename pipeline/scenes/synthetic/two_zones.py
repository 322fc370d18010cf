"""The generated world on both sides of a border of UTM zones: one ground, seen in a granule of either zone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject, transform, transform_bounds

from difffusr.kernels.bands import BANDS, GSD_M, TARGET_GSD_M
from difffusr.pipeline.scenes.synthetic.archive import write_catalog, write_tiff
from difffusr.pipeline.scenes.synthetic.layout import lay_out
from difffusr.pipeline.scenes.synthetic.painting import paint_world
from difffusr.pipeline.scenes.synthetic.palette import CODE, DATES, SEED, Float
from difffusr.pipeline.scenes.synthetic.sensor import RenderedScene, block_mean, classify, observe, with_noise
from difffusr.pipeline.scenes.synthetic.world import check_size

#: The granule of each zone there.
TILES: Final[Mapping[int, str]] = {32632: "32TQT", 32633: "33TTN"}

#: The CRS that the world is drawn in, and its middle there: 12° E, 47.7° N.
CRS: Final = 3035
_MIDDLE_M: Final = (4_471_180, 2_733_850)

#: Pixels of 2.5 m in one of 60 m, the coarsest that a granule has.
_BLOCK: Final = 24


@dataclass(frozen=True)
class TwoZones:
    """A written world: paths of its catalogue and of its truth (GeoTIFF, EPSG:3035, uint16, reflectance × 10000), a box
    in degrees that both granules show whole, and the day on which they were seen."""

    catalog: Path
    truth: Path
    bbox: tuple[float, float, float, float]
    date: str


def write_two_zones(folder: Path | str, seed: int = SEED, size_m: tuple[int, int] = (1200, 3660)) -> TwoZones:
    """Generate a world across 12° E, and write the catalogue of its two scenes (`archive/`) and its truth.

    Args:
        folder: created if missing.
        size_m: (height, width), multiples of 60 m, at least 600.

    Raises:
        ValueError: the size is none of these.
    """
    check_size(size_m)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layout = lay_out(np.random.default_rng(seed), size_m)
    ground = paint_world(layout, 0)
    left, top = _MIDDLE_M[0] - size_m[1] / 2, _MIDDLE_M[1] + size_m[0] / 2
    placed = Affine(TARGET_GSD_M, 0, left, 0, -TARGET_GSD_M, top)
    water = (layout.landcover == CODE["water"]).astype(np.float32)
    scenes = [_scene(epsg, np.concatenate([ground, water[None]]), placed, seed) for epsg in TILES]
    truth = folder / "truth.tif"
    write_tiff(truth, np.rint(ground * 10_000).astype(np.uint16), placed, CRS, "GTiff", descriptions=BANDS)
    bbox = _inside(left, top - size_m[0], left + size_m[1], top)
    return TwoZones(write_catalog(scenes, folder / "archive"), truth, bbox, DATES[0][0])


def _inside(west: float, south: float, east: float, north: float) -> tuple[float, float, float, float]:
    """The box in degrees within a box of the world, 120 m from its edges: granules end in whole pixels of 60 m."""
    far = 2 * _BLOCK * TARGET_GSD_M
    x, y = (west + far, east - far, east - far, west + far), (south + far, south + far, north - far, north - far)
    lons, lats = (np.sort(degrees) for degrees in transform(f"EPSG:{CRS}", "EPSG:4326", x, y))
    return float(lons[1]), float(lats[1]), float(lons[2]), float(lats[2])


def _scene(epsg: int, ground: Float, placed: Affine, seed: int) -> RenderedScene:
    """What the granule of a zone shows of the ground, (13, h, w): reflectance, and the share of water."""
    pixels, left, top = _in_zone(epsg, ground, placed)
    seen = _seen(pixels)
    pixels = np.where(np.isfinite(pixels), pixels, 0)
    noise = np.random.default_rng([seed, 4, epsg])
    bands: dict[str, NDArray[np.uint16]] = {}
    at_20m: dict[str, Float] = {}
    for number, band in enumerate(BANDS):
        sampled = observe(pixels[number], band)
        if band in ("B04", "B8A"):
            at_20m[band] = np.where(_finer(seen, 3), block_mean(sampled, 20 // GSD_M[band]), 1)
        dn = with_noise(np.maximum(sampled, 0), noise.standard_normal(sampled.shape, np.float32), 0)
        bands[band] = np.where(_finer(seen, 60 // GSD_M[band]), dn, 0).astype(np.uint16)
    clear = np.zeros_like(at_20m["B04"])
    scl = classify(at_20m, block_mean(pixels[-1], round(20 / TARGET_GSD_M)), clear, clear)
    scl[~_finer(seen, 3)] = 0
    date, platform = DATES[0]
    return RenderedScene(TILES[epsg], date, platform, 0, bands, scl, left, top, epsg, None)


def _in_zone(epsg: int, ground: Float, placed: Affine) -> tuple[Float, float, float]:
    """The ground in pixels of 2.5 m of a zone, NaN where there is none, and its left and upper edge on the lattice of
    60 m."""
    height, width = ground.shape[1:]
    corners = (placed.c, placed.f - height * TARGET_GSD_M, placed.c + width * TARGET_GSD_M, placed.f)
    west, south, east, north = transform_bounds(f"EPSG:{CRS}", f"EPSG:{epsg}", *corners)
    left, top = float(np.floor(west / 60) * 60), float(np.ceil(north / 60) * 60)
    shape = int(np.ceil((top - south) / 60)) * _BLOCK, int(np.ceil((east - left) / 60)) * _BLOCK
    pixels = np.full((len(ground), *shape), np.nan, np.float32)
    reproject(
        ground, pixels, src_transform=placed, src_crs=f"EPSG:{CRS}", src_nodata=np.nan, dst_nodata=np.nan,
        dst_transform=Affine(TARGET_GSD_M, 0, left, 0, -TARGET_GSD_M, top), dst_crs=f"EPSG:{epsg}",
        resampling=Resampling.cubic, warp_extras={"SAMPLE_GRID": "YES"},
    )  # fmt: skip
    return pixels, left, top


def _seen(pixels: Float) -> NDArray[np.bool_]:
    """(h, w) in pixels of 60 m: those with all of their ground and of what is around, which blurs into them."""
    whole = np.pad(block_mean(np.isfinite(pixels[0]).astype(np.float32), _BLOCK) == 1, 1)
    around = [np.roll(whole, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    inside: NDArray[np.bool_] = np.all(around, axis=0)[1:-1, 1:-1]
    return inside


def _finer(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    return mask.repeat(times, 0).repeat(times, 1)
