"""The generated world seen from two orbits within ten days: what scenes differ by besides the ground, with its truth.

Where the default world is to be made sharper, this one is to be made even: a scene's brightness depends on the side it
was seen from (BRDF, by kind of surface), on haze, and on its own atmospheric correction, and every scene has clouds
where another has none. Some fields are mown or harvested half-way: a difference that has to stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from difffusr.kernels.bands import BANDS, GSD_M, TARGET_GSD_M
from difffusr.pipeline.scenes.synthetic.archive import write_catalog, write_tiff
from difffusr.pipeline.scenes.synthetic.atmosphere import Air, air_on, resampled
from difffusr.pipeline.scenes.synthetic.layout import Layout, lay_out
from difffusr.pipeline.scenes.synthetic.metadata import granule_metadata, mean_direction
from difffusr.pipeline.scenes.synthetic.orbits import (
    ACQUISITIONS,
    HAZE_COLOUR,
    HAZE_DIMS,
    SURFACES,
    Acquisition,
    Haze,
    brightness,
)
from difffusr.pipeline.scenes.synthetic.painting import paint_world
from difffusr.pipeline.scenes.synthetic.palette import (
    CODE,
    CROPS,
    EPSG,
    LANDCOVER,
    LEFT_M,
    SEED,
    SIZE_M,
    SPECTRA,
    TILES,
    TOP_M,
    Float,
)
from difffusr.pipeline.scenes.synthetic.sensor import (
    Look,
    RenderedScene,
    block_mean,
    classify,
    observe,
    with_noise,
)
from difffusr.pipeline.scenes.synthetic.world import DemoWorld, check_size

#: What the harvest makes of a crop, and of which share of its parcels.
_HARVEST: Final = (("meadow", "mown", 0.5), ("wheat", "ripe wheat", 0.15))

#: Haze in blue from which the classification sees it, as thin cirrus.
_SEEN_HAZE: Final = 0.125

#: Cells on which brightness is computed: angles hardly change across one.
_CELL_M: Final = 60

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Conditions:
    """What a scene of the generated world went through: its relative orbit, mean reflectance that haze adds to blue,
    gain that the atmospheric correction left, and whether the fields were mown by then."""

    orbit: int
    haze_blue: float
    gain: float
    mown: bool


@dataclass(frozen=True)
class TwoOrbits(DemoWorld):
    """`DemoWorld` with the `Conditions` of each scene by its id. Dates between which nothing changed share a truth."""

    conditions: Mapping[str, Conditions]


def write_two_orbits(folder: Path | str, seed: int = SEED, size_m: tuple[int, int] = SIZE_M) -> TwoOrbits:
    """Generate a world, and write the catalogue of its scenes (`archive/`), its truth and its land cover.

    Args:
        folder: created if missing.
        size_m: (height, width), multiples of 60 m, at least 600. Ground beyond `SIZE_M` is that before it, mirrored.

    Raises:
        ValueError: the size is none of these.
    """
    check_size(size_m)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layout, ripe = _layouts(seed, size_m)
    transform = Affine(TARGET_GSD_M, 0, LEFT_M, 0, -TARGET_GSD_M, TOP_M)
    scenes: list[RenderedScene] = []
    truth: dict[str, Path] = {}
    for mown, state in enumerate((layout, ripe)):
        days = [acquisition for acquisition in ACQUISITIONS if acquisition.mown == bool(mown)]
        pixels = paint_world(state, 0)
        seen = _observed(pixels, state.landcover)
        scenes += [scene for day in days for scene in _acquire(day, seen, state.landcover, seed, size_m)]
        path = folder / f"truth_{days[0].date}.tif"
        whole = mirrored(np.rint(pixels * 10_000).astype(np.uint16), size_m, TARGET_GSD_M)
        write_tiff(path, whole, transform, EPSG, "GTiff", descriptions=BANDS)
        truth |= {day.date: path for day in days}
    landcover = folder / "landcover.tif"
    names = {str(code): name for code, name in LANDCOVER.items()}
    write_tiff(landcover, mirrored(layout.landcover[None], size_m, TARGET_GSD_M), transform, EPSG, "GTiff", tags=names)
    corners = (LEFT_M, TOP_M - size_m[0], LEFT_M + size_m[1], TOP_M)
    return TwoOrbits(
        write_catalog(scenes, folder / "archive"), truth, landcover,
        transform_bounds(f"EPSG:{EPSG}", "EPSG:4326", *corners), EPSG,
        (ACQUISITIONS[0].date, ACQUISITIONS[-1].date), _conditions(scenes),
    )  # fmt: skip


def _conditions(scenes: list[RenderedScene]) -> dict[str, Conditions]:
    tiles = [tile for tile, _, _ in TILES]
    days = {day.date: day for day in ACQUISITIONS}
    found = {}
    for scene in scenes:
        day, number = days[scene.date], tiles.index(scene.tile)
        found[scene.id] = Conditions(day.orbit.number, day.haze[number].blue, day.gain[number], day.mown)
    return found


def _layouts(seed: int, size_m: tuple[int, int]) -> tuple[Layout, Layout]:
    """The ground before and after the harvest; where the world is larger than `SIZE_M`, a block of that size."""
    streams = np.random.default_rng([seed, 2]).spawn(1)
    block = (min(size_m[0], SIZE_M[0]), min(size_m[1], SIZE_M[1]))
    layout = lay_out(np.random.default_rng(seed), block)
    kinds = [kind.first[0] for kind in CROPS]
    crop = layout.crop.copy()
    for before, after, share in _HARVEST:
        chosen = streams[0].uniform(size=crop.shape) < share
        crop[(layout.crop == kinds.index(before)) & chosen] = kinds.index(after)
    return layout, replace(layout, crop=crop)


def mirrored(pixels: NDArray[_T], size_m: tuple[int, int], gsd_m: float) -> NDArray[_T]:
    """Pixels (..., h, w) repeated southwards and eastwards, every other time mirrored, until they fill a size."""
    for axis, side_m in zip((-2, -1), size_m, strict=True):
        count, own = round(side_m / gsd_m), pixels.shape[axis]
        if count != own:
            place = np.arange(count) % (2 * own)
            pixels = pixels.take(np.where(place < own, place, 2 * own - 1 - place), axis=axis)
    return pixels


def _observed(truth: Float, landcover: NDArray[np.uint8]) -> dict[str, dict[str, Float]]:
    """By band and surface, (h, w) what the sensor gets from that surface alone, from nadir: they add up to the band."""
    masks = np.stack([np.isin(landcover, codes) for codes, _, _ in SURFACES.values()])
    return {
        band: dict(zip(SURFACES, observe(pixels * masks, band), strict=True))
        for band, pixels in zip(BANDS, truth, strict=True)
    }


def _acquire(
    day: Acquisition, ground: Mapping[str, Mapping[str, Float]], landcover: NDArray[np.uint8], seed: int,
    size_m: tuple[int, int],
) -> list[RenderedScene]:  # fmt: skip
    """Both tiles on one day."""
    rng = np.random.default_rng([seed, 3, ACQUISITIONS.index(day)])
    air = air_on(day, rng, (size_m[0] // 20, size_m[1] // 20))
    water = block_mean((landcover == CODE["water"]).astype(np.float32), round(20 / TARGET_GSD_M))
    water = mirrored(water, size_m, 20)
    windows = list(_windows(size_m))
    bands: list[dict[str, NDArray[np.uint16]]] = [{} for _ in windows]
    at_20m: list[dict[str, Float]] = [{} for _ in windows]
    for band in BANDS:
        lit = _lit(day, band, ground[band], size_m)
        noise = rng.standard_normal(lit.shape, np.float32)
        for number, (start_m, stop_m) in enumerate(windows):
            columns = slice(start_m // GSD_M[band], stop_m // GSD_M[band])
            hazy = _through(air, day.haze[number], band, lit * np.float32(day.gain[number]))[:, columns]
            if band in ("B04", "B8A"):
                at_20m[number][band] = block_mean(hazy, 20 // GSD_M[band])
            bands[number][band] = with_noise(hazy, noise[:, columns], day.offset_dn)
    scenes = []
    for number, (start_m, stop_m) in enumerate(windows):
        columns = slice(start_m // 20, stop_m // 20)
        scl = classify(at_20m[number], water[:, columns], air.opacity[:, columns], air.shade[:, columns])
        scl[np.isin(scl, (4, 5, 6)) & (air.haze(day.haze[number])[:, columns] > _SEEN_HAZE)] = 10
        tile = TILES[number][0]
        scenes.append(
            RenderedScene(
                tile, day.date, day.platform, day.offset_dn, bands[number], scl, LEFT_M + start_m, TOP_M, EPSG, None,
                _look(day, tile, start_m, stop_m, size_m[0]),
            )
        )  # fmt: skip
    return scenes


def _windows(size_m: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """First metre and end of each tile, eastwards from the world's border."""
    cells = size_m[1] // _CELL_M
    for _, start, stop in TILES:
        yield start * cells // TILES[-1][2] * _CELL_M, stop * cells // TILES[-1][2] * _CELL_M


def _places(left_m: float, height_m: int, width_m: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """UTM x and y of the centres of cells from a left border on."""
    x = left_m + (np.arange(width_m // _CELL_M) + 0.5) * _CELL_M
    y = TOP_M - (np.arange(height_m // _CELL_M) + 0.5) * _CELL_M
    across, down = np.meshgrid(x, y)
    return across, down


def _lit(day: Acquisition, band: str, surfaces: Mapping[str, Float], size_m: tuple[int, int]) -> Float:
    """(h, w) reflectance of a band as it looks from the day's orbit through clean air."""
    x, y = _places(LEFT_M, *size_m)
    times = _CELL_M // GSD_M[band]
    total = np.zeros((size_m[0] // GSD_M[band], size_m[1] // GSD_M[band]), np.float32)
    for name, seen in surfaces.items():
        factor = brightness(name, band, day.orbit, x, y).astype(np.float32)
        total += mirrored(seen, size_m, GSD_M[band]) * factor.repeat(times, 0).repeat(times, 1)
    return total


def _through(air: Air, haze: Haze, band: str, lit: Float) -> Float:
    """(h, w) what the sensor gets of it through shadows, haze and clouds."""
    number = BANDS.index(band)
    shade, opacity, texture = (resampled(field, lit.shape) for field in (air.shade, air.opacity, air.texture))
    added = resampled(air.haze(haze), lit.shape) * HAZE_COLOUR[number]
    seen = lit * (1 - shade * np.float32(0.62 + 0.02 * number)) * (1 - np.float32(HAZE_DIMS) * added) + added
    cloud = np.float32(SPECTRA["cloud"][number] / 1000) * texture
    return seen * (1 - opacity) + cloud * opacity


def _look(day: Acquisition, tile: str, start_m: int, stop_m: int, height_m: int) -> Look:
    x, y = _places(LEFT_M + start_m, height_m, stop_m - start_m)
    detector = int(np.bincount(day.orbit.detector_at(x, y).ravel()).argmax())
    sun, view = day.orbit.sun(x, y), day.orbit.view("B08", detector, x, y)
    return Look(
        day.orbit.number, day.orbit.time, mean_direction(*sun), mean_direction(*view), granule_metadata(tile, day)
    )
