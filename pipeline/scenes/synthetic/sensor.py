"""Sentinel-2 over the generated world: its bands and scene classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, GSD_M, MTF_NYQUIST, TARGET_GSD_M, native_factor
from difffusr.pipeline.ground.pixels import CLOUD_CLASSES
from difffusr.pipeline.scenes.synthetic.drawing import blurred, shifted_by, smooth_noise
from difffusr.pipeline.scenes.synthetic.palette import CODE, DATES, OFFSET_DN, SPECTRA, SUN_AZIMUTH_DEG, TILES, Float
from difffusr.pipeline.scenes.synthetic.truth import World


@dataclass(frozen=True)
class Look:
    """From where a scene was seen: relative orbit, time of day, mean zenith and azimuth of sun and view in degrees, and
    the granule's metadata (MTD_TL.xml)."""

    orbit: int
    time: str
    sun_deg: tuple[float, float]
    view_deg: tuple[float, float]
    metadata: bytes


@dataclass(frozen=True)
class RenderedScene:
    """One tile on one date as the sensor delivers it.

    bands: DN uint16 by band on its native grid, 0 = no data. scl: (H, W) uint8 at 20 m. left_m, top_m: upper left
    corner, UTM metres. offset_dn: what was added to reflectance × 10000. corner_m: legs (x, y) of the no-data
    triangle in the upper left corner, or None. look: where its angles are known.
    """

    tile: str
    date: str
    platform: str
    offset_dn: int
    bands: Mapping[str, NDArray[np.uint16]]
    scl: NDArray[np.uint8]
    left_m: float
    top_m: float
    epsg: int
    corner_m: tuple[float, float] | None
    look: Look | None = None

    @property
    def id(self) -> str:
        return f"S2{self.platform}_{self.tile}_{self.date.replace('-', '')}_0_L2A"

    @property
    def cloud_cover(self) -> float:
        """Per cent of the valid pixels that are cloud of medium or high probability or cirrus."""
        valid = self.scl > 0
        return round(float(100 * np.isin(self.scl, CLOUD_CLASSES).sum() / max(valid.sum(), 1)), 2)


def psf_sigma_px(band: str) -> float:
    """Sigma, in 2.5 m pixels, of the Gaussian that with the box of a native pixel has the band's MTF at Nyquist.

    The box alone has sinc(1/2) = 2/π there; exp(-2 (π σ f)²) at f = 1 / (2 R) gives the rest.
    """
    return native_factor(band) * float(np.sqrt(-2 * np.log(MTF_NYQUIST[band] * np.pi / 2))) / np.pi


def observe(image: Float, band: str) -> Float:
    """One band (..., H, W) at 2.5 m as the sensor samples it, (..., H/R, W/R): Gaussian point spread, then box mean."""
    down, right = (_sampling(side, native_factor(band), psf_sigma_px(band)) for side in image.shape[-2:])
    return (down @ image @ right.T).astype(np.float32)


def _sampling(side: int, factor: int, sigma_px: float) -> Float:
    """Matrix (side / factor, side): each row the weights of one native pixel; they sum to 1, at the border too."""
    distance = np.arange(side)[:, None] - np.arange(side)[None]
    weights = np.exp(-0.5 * (distance / sigma_px) ** 2)
    weights /= weights.sum(1, keepdims=True)
    return weights.reshape(side // factor, factor, side).mean(1).astype(np.float32)


def render_scenes(world: World, seed: int | None = None) -> list[RenderedScene]:
    """Two overlapping tiles on two dates.

    First date: a cloud and its shadow over the tiles' overlap; the offset of the processing baseline has been removed
    from the pixels. Second: the western tile ends at a slanted swath edge; the pixels still carry +1000 DN. seed: of
    cloud and noise, the world's by default.
    """
    streams = np.random.default_rng([world.seed if seed is None else seed, 1]).spawn(3)
    opacity, shade = _cloud(streams[0], world.landcover.shape)
    acquisitions = (
        _acquire(world, world.reflectance, streams[1], opacity, shade, 0),
        _acquire(world, world.later, streams[2], np.zeros_like(opacity), np.zeros_like(opacity), OFFSET_DN),
    )
    west, _, east, north = world.bounds_m
    scenes = []
    for (date, platform), (bands, scl), offset in zip(DATES, acquisitions, (0, OFFSET_DN), strict=True):
        for number, (tile, start, stop) in enumerate(TILES):
            columns = round((east - west) / 60)
            start, stop = start * columns // TILES[-1][2], stop * columns // TILES[-1][2]
            window = {
                name: pixels[:, start * 60 // GSD_M[name] : stop * 60 // GSD_M[name]].copy()
                for name, pixels in bands.items()
            }
            classes = scl[:, start * 3 : stop * 3].copy()
            corner = None
            if offset and number == 0:
                corner = (0.27 * (stop - start) * 60, 0.9 * len(classes) * 20)
                for name, pixels in window.items():
                    pixels[_beyond_swath(pixels.shape, GSD_M[name], corner)] = 0
                classes[_beyond_swath(classes.shape, 20, corner)] = 0
            left = west + start * 60
            scenes.append(RenderedScene(tile, date, platform, offset, window, classes, left, north, world.epsg, corner))
    return scenes


def _acquire(
    world: World, truth: Float, rng: np.random.Generator, opacity: Float, shade: Float, offset: int
) -> tuple[dict[str, NDArray[np.uint16]], NDArray[np.uint8]]:
    """The whole world on one date: DN by band on native grids, and the scene classification at 20 m."""
    cloudy = opacity.max() > 0
    texture = 1 + 0.10 * smooth_noise(rng, opacity.shape, 1.3, 20, 600) if cloudy else opacity
    bands: dict[str, NDArray[np.uint16]] = {}
    at_20m: dict[str, Float] = {}
    for number, band in enumerate(BANDS):
        seen = truth[number]
        if cloudy:
            cloud = SPECTRA["cloud"][number] / 1000 * texture
            seen = seen * (1 - shade * (0.62 + 0.02 * number)) * (1 - opacity) + cloud * opacity
        sampled = observe(seen, band)
        if band in ("B04", "B8A"):
            at_20m[band] = block_mean(sampled, 20 // GSD_M[band])
        bands[band] = with_noise(sampled, rng.standard_normal(sampled.shape, np.float32), offset)
    factor = round(20 / TARGET_GSD_M)
    water = block_mean((world.landcover == CODE["water"]).astype(np.float32), factor)
    return bands, classify(at_20m, water, block_mean(opacity, factor), block_mean(shade, factor))


def with_noise(sampled: Float, noise: Float, offset: int) -> NDArray[np.uint16]:
    """DN of reflectance with the sensor's noise, given with unit variance, and an offset."""
    noisy = sampled + noise * np.sqrt(0.1 * sampled) / 150
    return (np.clip(np.rint(noisy * 10_000), 1, 10_000 * 2) + offset).astype(np.uint16)


def classify(at_20m: Mapping[str, Float], water: Float, opacity: Float, shade: Float) -> NDArray[np.uint8]:
    """The scene classification from B04 and B8A, shares of water, and clouds, (H, W) at 20 m each."""
    ndvi = (at_20m["B8A"] - at_20m["B04"]) / (at_20m["B8A"] + at_20m["B04"])
    scl = np.where(ndvi > 0.4, 4, 5).astype(np.uint8)
    for code, where in ((6, water > 0.5), (3, shade > 0.3), (8, opacity > 0.06), (9, opacity > 0.5)):
        scl[where] = code
    return scl


def _cloud(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Float, Float]:
    """Opacity of one soft-edged cloud over the overlap of the tiles, and depth of its shadow, (H, W) 0 – 1."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    far = np.hypot((x / shape[1] - 0.50) / 0.155, (y / shape[0] - 0.66) / 0.17)
    dense = 1.15 - far + 0.30 * smooth_noise(rng, shape, 1.7, 20, 900)
    opacity = np.clip(dense / 0.95, 0, 1)
    opacity = blurred(opacity * opacity * (3 - 2 * opacity), 3)
    azimuth = np.deg2rad(SUN_AZIMUTH_DEG)
    away_px = 0.15 * shape[0]
    down, right = round(float(np.cos(azimuth)) * away_px), round(float(-np.sin(azimuth)) * away_px)
    opacity = np.clip(opacity - 0.004, 0, 1)
    return opacity, np.clip(blurred(shifted_by(opacity, down, right), 5), 0, 1)


def _beyond_swath(shape: tuple[int, ...], gsd_m: float, corner_m: tuple[float, float]) -> NDArray[np.bool_]:
    """Pixels whose centre lies in the triangle of the upper left corner with these legs."""
    y, x = ((np.arange(side) + 0.5) * gsd_m for side in shape)
    beyond: NDArray[np.bool_] = x[None] / corner_m[0] + y[:, None] / corner_m[1] < 1
    return beyond


def block_mean(values: Float, factor: int) -> Float:
    """Means of factor × factor pixels."""
    height, width = values.shape
    mean: Float = values.reshape(height // factor, factor, width // factor, factor).mean((1, 3))
    return mean
