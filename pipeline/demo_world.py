"""A small made-up world at 2.5 m, the Sentinel-2 scenes a sensor would see of it, their STAC catalogue, and a picture.

Everything follows from a seed. The truth is known, so a run on this world can be measured, not only looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds

from kernels.bands import BANDS, GSD_M, MTF_NYQUIST, RGB, SCALE, TARGET_GSD_M, native_factor

Float = NDArray[np.float32]

#: Where the world lies: UTM 32 N, both corners on the 60 m lattice. In steps of 1680 m (a chip's stride) the corner
#: is at column 297 + 600 m and row -3149 + 360 m, so that 2 rows × 3 columns of chips cover the world.
EPSG: Final = 32632
LEFT_M: Final = 499_560
TOP_M: Final = 5_289_960
#: Height and width.
SIZE_M: Final = (2880, 3660)
SEED: Final = 7
#: The two acquisitions, 35 days apart on one orbit: ISO date, platform letter.
DATES: Final = (("2023-06-05", "A"), ("2023-07-10", "B"))
#: First and last day to ask for, both included.
PERIOD: Final = ("2023-06-01", "2023-07-31")
#: Tile name and the part of the world's width it holds, in 60 m columns of 61: the two overlap by 1020 m.
TILES: Final = (("32TMT", 0, 39), ("32TNT", 22, 61))

LANDCOVER: Final[dict[int, str]] = {
    1: "crop", 2: "bare soil", 3: "grassland", 4: "forest", 5: "garden", 6: "water", 7: "road", 8: "track",
    9: "building",
}  # fmt: skip
_CODE: Final = {name: code for code, name in LANDCOVER.items()}

#: Asset name of each band in Earth Search v1.
ASSETS: Final[dict[str, str]] = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
    "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22",
}  # fmt: skip

#: Surface reflectance in BANDS order, per mille.
_SPECTRA: Final[dict[str, tuple[int, ...]]] = {
    "loam": (58, 76, 108, 138, 164, 190, 205, 218, 238, 252, 315, 262),
    "wheat": (24, 31, 60, 38, 98, 295, 385, 400, 418, 424, 190, 92),
    "ripe wheat": (58, 76, 128, 156, 196, 252, 282, 300, 322, 332, 330, 214),
    "stubble": (70, 92, 138, 170, 204, 240, 258, 274, 294, 302, 365, 262),
    "rape": (26, 36, 84, 52, 124, 320, 392, 412, 424, 428, 208, 104),
    "ripe rape": (50, 66, 104, 118, 160, 232, 268, 284, 306, 312, 268, 160),
    "maize": (22, 28, 64, 31, 104, 338, 446, 460, 476, 470, 204, 92),
    "beet": (22, 30, 78, 34, 118, 400, 520, 530, 548, 540, 226, 104),
    "meadow": (28, 38, 78, 48, 124, 300, 368, 384, 404, 410, 222, 110),
    "mown": (42, 58, 100, 92, 158, 262, 300, 316, 338, 344, 276, 166),
    "lawn": (32, 43, 80, 58, 124, 270, 326, 342, 360, 366, 230, 122),
    "conifer": (15, 20, 33, 22, 54, 150, 184, 190, 204, 210, 96, 44),
    "broadleaf": (19, 24, 52, 28, 84, 285, 378, 386, 404, 404, 172, 74),
    "forest floor": (18, 24, 36, 32, 56, 130, 156, 162, 172, 176, 130, 76),
    "river": (36, 40, 50, 34, 30, 24, 23, 19, 17, 16, 8, 5),
    "lake": (22, 24, 29, 15, 13, 11, 11, 9, 8, 8, 4, 3),
    "gravel": (102, 130, 166, 192, 210, 224, 236, 250, 264, 268, 320, 280),
    "asphalt": (78, 92, 106, 114, 120, 126, 131, 136, 141, 145, 168, 152),
    "paved": (108, 132, 152, 164, 172, 180, 186, 194, 200, 204, 226, 206),
    "red roof": (62, 74, 94, 150, 180, 198, 228, 242, 252, 256, 292, 252),
    "brown roof": (54, 66, 84, 114, 130, 142, 152, 164, 174, 180, 214, 186),
    "grey roof": (104, 124, 138, 146, 152, 158, 162, 168, 172, 176, 196, 182),
    "slate roof": (54, 64, 68, 70, 72, 75, 78, 82, 86, 90, 104, 98),
    "white roof": (280, 330, 356, 368, 376, 386, 392, 398, 400, 402, 400, 372),
    "cloud": (430, 425, 415, 415, 430, 445, 455, 460, 468, 520, 350, 280),
}
#: What is left of the light in a cast shadow (sky light and neighbours), by band.
_SKYLIGHT: Final = np.array([0.46, 0.42, 0.37, 0.33, 0.33, 0.38, 0.40, 0.40, 0.40, 0.38, 0.26, 0.22], np.float32)
#: A field's own colour: senescence (yellower) and dryness, as exponents by band.
_SENESCENCE: Final = np.array([1, 1, 0.9, 1.6, 0.8, -0.2, -0.5, -0.5, -0.5, -0.5, 0.6, 1], np.float32)
_DRYNESS: Final = np.array([0.1, 0.1, 0.1, 0.2, 0.2, 0, -0.1, -0.1, -0.1, -0.2, 1, 1.4], np.float32)
#: Second date against the first: atmosphere and angles not quite the same.
_LATER_GAIN: Final = np.array([1.05, 1.04, 1.03, 1.03, 1.03, 1.02, 1.02, 1.02, 1.02, 1.0, 1.02, 1.03], np.float32)

_SUN_AZIMUTH_DEG: Final = 150.0
_SUN_ELEVATION_DEG: Final = 61.0
_SUPERSAMPLING: Final = 3
#: Both dates; what differs is whether the host has removed the offset that this baseline adds.
_BASELINE: Final = "05.09"
_OFFSET_DN: Final = 1000


@dataclass(frozen=True)
class _Crop:
    """What grows on a parcel: (spectrum, cover 0 – 1) on each date, how often, whether machines leave tramlines."""

    share: float
    first: tuple[str, float]
    later: tuple[str, float]
    tramlines: bool
    landcover: str = "crop"


_CROPS: Final = (
    _Crop(0.24, ("wheat", 0.92), ("ripe wheat", 0.92), True),
    _Crop(0.10, ("ripe wheat", 0.55), ("stubble", 0.80), True),
    _Crop(0.10, ("rape", 0.96), ("ripe rape", 0.94), True),
    _Crop(0.17, ("maize", 0.24), ("maize", 0.93), False),
    _Crop(0.07, ("beet", 0.50), ("beet", 0.92), False),
    _Crop(0.13, ("meadow", 0.97), ("mown", 0.92), False, "grassland"),
    _Crop(0.11, ("mown", 0.90), ("meadow", 0.96), False, "grassland"),
    _Crop(0.08, ("lawn", 0.04), ("lawn", 0.18), False, "bare soil"),
)


@dataclass(frozen=True)
class World:
    """The truth: what a perfect sensor of 2.5 m would see.

    reflectance, later: (12, H, W) float32 surface reflectance in `BANDS` order on the two dates, H and W multiples
    of 24. landcover: (H, W) uint8, codes of `LANDCOVER`. transform: pixel (column, row) to UTM metres of `epsg`.
    """

    reflectance: Float
    later: Float
    landcover: NDArray[np.uint8]
    transform: Affine
    epsg: int
    seed: int

    @property
    def bounds_m(self) -> tuple[float, float, float, float]:
        """West, south, east, north in UTM metres."""
        height, width = self.landcover.shape
        left, top = self.transform.c, self.transform.f
        return left, top - height * TARGET_GSD_M, left + width * TARGET_GSD_M, top

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees."""
        west, south, east, north = transform_bounds(f"EPSG:{self.epsg}", "EPSG:4326", *self.bounds_m)
        return west, south, east, north

    def on(self, date: str) -> Float:
        """The truth on one of `DATES`, (12, H, W) float32 reflectance."""
        return (self.reflectance, self.later)[[day for day, _ in DATES].index(date)]


@dataclass(frozen=True)
class RenderedScene:
    """One tile on one date as the sensor delivers it.

    bands: DN uint16 by band on its native grid, 0 = no data. scl: (H, W) uint8 at 20 m. left_m, top_m: upper left
    corner, UTM metres. offset_dn: what was added to reflectance × 10000. corner_m: legs (x, y) of the no-data
    triangle in the upper left corner, or None.
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

    @property
    def id(self) -> str:
        return f"S2{self.platform}_{self.tile}_{self.date.replace('-', '')}_0_L2A"

    @property
    def cloud_cover(self) -> float:
        """Percent of the valid pixels that are cloud of medium or high probability or cirrus."""
        valid = self.scl > 0
        return round(float(100 * np.isin(self.scl, (8, 9, 10)).sum() / max(valid.sum(), 1)), 2)


@dataclass(frozen=True)
class DemoWorld:
    """Where a written world lies: catalogue, truth GeoTIFFs by ISO date, and what a run needs to ask for it."""

    catalog: Path
    truth: Mapping[str, Path]
    landcover: Path
    bbox: tuple[float, float, float, float]
    epsg: int
    period: tuple[str, str]


def write_demo_world(folder: Path | str, seed: int = SEED, size_m: tuple[int, int] = SIZE_M) -> DemoWorld:
    """Generate a world and write its catalogue (`archive/`), its truth (`truth_DATE.tif`) and its land cover.

    folder: made if missing. size_m: (height, width), multiples of 60 m. The truth is uint16, reflectance × 10000. The
    land cover's band carries a tag for each code, its class's name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world = generate_world(seed, size_m)
    catalog = write_catalog(render_scenes(world), folder / "archive")
    truth = {}
    for date, _ in DATES:
        truth[date] = folder / f"truth_{date}.tif"
        pixels = np.rint(world.on(date) * 10_000).astype(np.uint16)
        _write_tiff(truth[date], pixels, world.transform, world.epsg, "GTiff", descriptions=BANDS)
    landcover = folder / "landcover.tif"
    names = {str(code): name for code, name in LANDCOVER.items()}
    _write_tiff(landcover, world.landcover[None], world.transform, world.epsg, "GTiff", tags=names)
    return DemoWorld(catalog, truth, landcover, world.bbox, world.epsg, PERIOD)


def generate_world(seed: int = SEED, size_m: tuple[int, int] = SIZE_M) -> World:
    """Fields, roads, a village, a river, a lake and woods on two dates.

    size_m: (height, width), multiples of 60 m, at least 600. The same seed and size give the same arrays.
    """
    if any(side % 60 or side < 600 for side in size_m):
        raise ValueError(f"size_m must be multiples of 60 m and at least 600 m, not {size_m}")
    layout = _lay_out(np.random.default_rng(seed), size_m)
    first, later = _paint(layout, 0), _paint(layout, 1)
    transform = Affine(TARGET_GSD_M, 0, LEFT_M, 0, -TARGET_GSD_M, TOP_M)
    return World(first, later, layout.landcover, transform, EPSG, seed)


# --- the layout of the world ---


@dataclass(frozen=True)
class _Layout:
    """Everything that does not change between the dates; maps are (H, W), coverages 0 – 1."""

    parcel: NDArray[np.int32]
    crop: NDArray[np.int64]  # by parcel
    colour: Float  # (parcels, 3): brightness, senescence, dryness
    soil: Float
    patch: Float
    grain: Float
    streak: Float
    tramline: Float
    verge: Float
    wood: Float
    garden: Float
    paved: Float
    gravel: Float
    river: Float
    lake: Float
    asphalt: Float
    track: Float
    roof: Float
    roof_kind: NDArray[np.int64]  # facet by pixel, 0 = none
    roof_spectra: Float  # (facets + 1, 12)
    tree: Float
    tree_tone: Float
    conifer: Float
    shade: Float
    shadow: Float
    landcover: NDArray[np.uint8]


def _lay_out(rng: np.random.Generator, size_m: tuple[int, int]) -> _Layout:
    height, width = size_m
    shape = (int(height / TARGET_GSD_M), int(width / TARGET_GSD_M))
    streams = rng.spawn(8)
    district, parcel, angle = _parcels(streams[0], shape)
    village = np.array([0.70 * width, 0.42 * height])
    river_line = _curve(streams[1], (0.30 * width, -60), (0.60 * width, height + 60), 0.10 * height)
    river, bank, gravel = _river(streams[1], shape, river_line)
    lake, shore = _lake(streams[1], shape, size_m)
    roads, lanes = _roads(streams[2], size_m, village)
    asphalt, kerb = _drawn_roads(shape, roads, lanes)
    wet = np.maximum(river, lake)
    used = np.clip(0.8 + 2 * _noise(streams[2], shape, 2.0, 400, 4000), 0, 1)
    track = _boundary(district) * used * np.clip(1 - 3 * np.maximum(wet, kerb), 0, 1)
    built = _buildings(streams[3], shape, size_m, village, roads, lanes, np.maximum.reduce([wet, asphalt]))
    open_ground = np.clip(1 - 2 * np.maximum.reduce([kerb, wet, track, built.near, gravel]), 0, 1)
    wood, conifer = _woods(streams[4], shape, parcel, built.near + shore)
    wood *= open_ground
    patchy = np.clip(0.5 + _noise(streams[4], shape, 1.0, 30, 400), 0, 1)
    hedge = _boundary(parcel) * (_noise(streams[4], shape, 1.5, 100, 1500) > 1.0)
    density = np.maximum.reduce(
        [0.985 * wood, 0.85 * bank * patchy, 0.75 * shore * patchy, 0.8 * hedge, np.full(shape, 0.001, np.float32)]
    )
    density = np.maximum(density * open_ground, 0.20 * built.garden * (1 - np.maximum.reduce([built.roof, asphalt])))
    tree, tree_height, tree_tone, is_conifer = _trees(streams[5], density, conifer)
    tree *= 1 - np.maximum(built.roof, asphalt)
    shade, shadow = _light(np.maximum(tree_height * (tree > 0.3), built.height))
    wild = streams[6]
    crop = wild.choice(len(_CROPS), size=int(parcel.max()) + 1, p=[kind.share for kind in _CROPS])
    streak, tramline = _rows(wild, parcel, angle)
    verge = np.clip(_boundary(parcel) * 0.8 + np.clip(kerb - asphalt, 0, 1) * 0.8, 0, 1)
    landcover = np.array([_CODE[kind.landcover] for kind in _CROPS], np.uint8)[crop][parcel]
    for name, cover in (
        ("garden", built.garden), ("forest", np.maximum(wood, tree)), ("water", wet), ("track", track),
        ("road", asphalt), ("building", built.roof),
    ):  # fmt: skip
        landcover[cover > 0.5] = _CODE[name]
    return _Layout(
        parcel=parcel, crop=crop,
        colour=wild.normal(0, (0.07, 0.10, 0.09), (len(crop), 3)).astype(np.float32),
        soil=_noise(wild, shape, 1.1, 20, 1800), patch=_noise(wild, shape, 1.2, 20, 700),
        grain=_noise(wild, shape, 0.3, 5, 30), streak=streak, tramline=tramline, verge=verge, wood=wood,
        garden=built.garden, paved=built.paved, gravel=gravel, river=river, lake=lake, asphalt=asphalt, track=track,
        roof=built.roof, roof_kind=built.kind, roof_spectra=built.spectra, tree=tree, tree_tone=tree_tone,
        conifer=is_conifer, shade=shade, shadow=shadow, landcover=landcover,
    )  # fmt: skip


def _parcels(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int32], Float]:
    """Districts (warped Voronoi cells), in each the parcels of repeated cuts, and the heading of each parcel."""
    rows, columns = (np.arange(side, dtype=np.float32) * TARGET_GSD_M for side in shape)
    bend = [9 * _noise(rng, shape, 2.0, 250, 3000) for _ in range(2)]
    x, y = columns[None] + bend[0], rows[:, None] + bend[1]
    count = max(4, round(shape[0] * shape[1] * TARGET_GSD_M**2 / 450_000))
    seeds = rng.uniform(0, 1, (count, 2)) * np.array(shape) * TARGET_GSD_M
    wavy = [45 * _noise(rng, shape, 2.0, 300, 3000) for _ in range(2)]
    distance = np.stack([np.hypot(y + wavy[0] - cy, x + wavy[1] - cx) for cy, cx in seeds.astype(np.float32)])
    district = distance.argmin(0)
    heading = (rng.uniform(0, np.pi) + rng.normal(0, 0.6, count)).astype(np.float32)
    parcel = np.zeros(shape[0] * shape[1], np.int32)
    angle: list[float] = []
    for number in range(count):
        index = np.flatnonzero(district == number)
        cos, sin = np.cos(heading[number]), np.sin(heading[number])
        u = cos * x.flat[index] + sin * y.flat[index]
        v = -sin * x.flat[index] + cos * y.flat[index]
        largest_px = 10_000 * float(np.clip(rng.lognormal(0.9, 0.7), 0.7, 8)) / TARGET_GSD_M**2
        pieces = [np.arange(len(index))]
        while pieces:
            piece = pieces.pop()
            if len(piece) < largest_px * rng.uniform(0.6, 2.2):
                parcel[index[piece]] = len(angle)
                angle.append(float(heading[number]))
                continue
            across = np.ptp(v[piece]) * rng.uniform(1.4, 2.8) > np.ptp(u[piece])
            key = (v[piece] + rng.normal(0, 0.03) * u[piece]) if across else (u[piece] + rng.normal(0, 0.1) * v[piece])
            cut = key.min() + rng.uniform(0.33, 0.67) * np.ptp(key)
            pieces += [part for part in (piece[key < cut], piece[key >= cut]) if len(part)]
    return district, parcel.reshape(shape), np.array(angle, np.float32)


def _river(rng: np.random.Generator, shape: tuple[int, int], line: NDArray[np.float64]) -> tuple[Float, Float, Float]:
    """Coverage of a river along a line, of its wooded banks, of its gravel bars."""
    along = np.linspace(0, 1, len(line))
    half_m = 14 + 4 * np.sin(2 * np.pi * (3 * along + rng.uniform())) + 2 * np.sin(2 * np.pi * (11 * along))
    bend = np.gradient(np.unwrap(np.arctan2(*np.gradient(line, axis=0).T)))
    bar_m = np.clip(np.abs(bend) / (np.abs(bend).max() + 1e-9) * 16, 0, 12) - 1
    water, bank, bars = _Canvas(shape), _Canvas(shape), _Canvas(shape)
    for point, half, bar in zip(line, half_m, bar_m, strict=True):
        water.disc(point, half)
        bank.disc(point, half + 20)
        bars.disc(point, half + bar)
    wet = water.coverage()
    return wet, bank.coverage() - wet, np.clip(bars.coverage() - wet, 0, 1)


def _lake(rng: np.random.Generator, shape: tuple[int, int], size_m: tuple[int, int]) -> tuple[Float, Float]:
    """Coverage of a lake and of its shore."""
    turn = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    radius: Any = 1 + sum(rng.normal(0, 0.42) / k * np.cos(k * turn + rng.uniform(0, 6.3)) for k in range(2, 9))
    centre = np.array([0.17 * size_m[1], 0.72 * size_m[0]])
    shape_m = np.stack([0.085 * size_m[1] * np.cos(turn), 0.07 * size_m[0] * np.sin(turn)], 1) * radius[:, None]
    tilt = np.array([[0.9, -0.44], [0.44, 0.9]])
    water, shore = _Canvas(shape), _Canvas(shape)
    water.polygon(centre + shape_m @ tilt)
    shore.polygon(centre + (shape_m * (1 + 22 / np.linalg.norm(shape_m, axis=1, keepdims=True))) @ tilt)
    wet = water.coverage()
    return wet, shore.coverage() - wet


def _roads(
    rng: np.random.Generator, size_m: tuple[int, int], village: NDArray[np.float64]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Lines in metres: country roads that meet in the village, and the village's lanes."""
    height, width = size_m
    ends = [(-60, 0.30 * height), (width + 60, 0.55 * height), (0.82 * width, -60), (0.66 * width, height + 60)]
    roads = [_curve(rng, village, end, 0.045 * height) for end in ends]
    lanes = []
    reach = min(330.0, 0.15 * height)
    for road in roads:
        near = np.linalg.norm(road - village, axis=1)
        for distance in np.arange(55, reach, rng.uniform(75, 95)):
            start = int(np.argmin(np.abs(near - distance)))
            ahead = road[min(start + 3, len(road) - 1)] - road[start]
            side = np.array([-ahead[1], ahead[0]]) / (np.linalg.norm(ahead) + 1e-9) * rng.choice([-1, 1])
            length = rng.uniform(0.45, 1.0) * np.sqrt(max(reach**2 - distance**2, 60**2)) * 0.75
            lanes.append(_curve(rng, road[start], road[start] + side * length + rng.normal(0, 14, 2), 7))
    return roads, lanes


def _drawn_roads(
    shape: tuple[int, int], roads: list[NDArray[np.float64]], lanes: list[NDArray[np.float64]]
) -> tuple[Float, Float]:
    """Coverage of the carriageways, and of carriageways with their verges."""
    asphalt, kerb = _Canvas(shape), _Canvas(shape)
    for line, width_m in [(road, 8.5 if n < 2 else 6.5) for n, road in enumerate(roads)] + [(ln, 5.0) for ln in lanes]:
        asphalt.line(line, width_m)
        kerb.line(line, width_m + 7)
    return asphalt.coverage(), kerb.coverage()


@dataclass(frozen=True)
class _Built:
    roof: Float
    kind: NDArray[np.int64]
    spectra: Float
    height: Float
    garden: Float
    paved: Float
    near: Float


def _buildings(
    rng: np.random.Generator, shape: tuple[int, int], size_m: tuple[int, int], village: NDArray[np.float64],
    roads: list[NDArray[np.float64]], lanes: list[NDArray[np.float64]], taken: Float,
) -> _Built:  # fmt: skip
    """Houses along the streets of the village and some farms outside; each roof has two facets, one to the sun."""
    roofs, garden, paved = _Canvas(shape), _Canvas(shape), _Canvas(shape)
    facets = Image.new("I", roofs.image.size)
    pen = ImageDraw.Draw(facets)
    spectra, heights = [np.zeros(12)], [0.0]
    kinds = ("red roof", "brown roof", "grey roof", "slate roof", "white roof")
    sun = np.deg2rad(_SUN_AZIMUTH_DEG)
    for centre, direction, long_m, wide_m, street in _lots(rng, size_m, village, roads, lanes, taken):
        normal = np.array([-direction[1], direction[0]])
        barn = long_m > 20
        kind = kinds[rng.choice(5, p=(0.15, 0.25, 0.35, 0.05, 0.20) if barn else (0.46, 0.22, 0.14, 0.12, 0.06))]
        base = np.array(_SPECTRA[kind]) / 1000 * rng.normal(1, 0.12)
        garden.disc(centre, 0.5 * long_m + rng.uniform(9, 17))
        paved.line(np.array([street, centre]), rng.uniform(2.5, 4.5))
        if barn or rng.uniform() < 0.25:
            paved.polygon(_rectangle(centre + rng.choice([-1, 1]) * normal * wide_m, direction, long_m, wide_m))
        roofs.polygon(_rectangle(centre, direction, long_m, wide_m))
        for side in (-1, 1):
            slope = side * normal @ np.array([np.sin(sun), -np.cos(sun)])
            spectra.append(base * (1 + 0.30 * slope))
            heights.append(rng.uniform(5, 8) + 2 * barn)
            half = _rectangle(centre + side * normal * wide_m / 4, direction, long_m, wide_m / 2)
            pen.polygon(roofs.pixels(half), fill=len(spectra) - 1)
    s = _SUPERSAMPLING
    ids = np.asarray(facets, np.int64).reshape(shape[0], s, shape[1], s).max((1, 3))
    cover, lawn = roofs.coverage(), garden.coverage()
    near = np.clip(_blur(lawn, 12) * 3, 0, 1)
    lawn = np.clip(9 * _blur(lawn, 7) - 3.2, 0, 1)
    facet_height = np.array(heights, np.float32)[ids] * (cover > 0.4)
    return _Built(cover, ids, np.array(spectra, np.float32), facet_height, lawn, paved.coverage(), near)


def _lots(
    rng: np.random.Generator, size_m: tuple[int, int], village: NDArray[np.float64],
    roads: list[NDArray[np.float64]], lanes: list[NDArray[np.float64]], taken: Float,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64], float, float, NDArray[np.float64]]]:  # fmt: skip
    """Where buildings stand: centre, direction of the ridge, length, width, the point of the street before it."""
    lots: list[tuple[NDArray[np.float64], NDArray[np.float64], float, float, NDArray[np.float64]]] = []
    reach = min(360.0, 0.16 * size_m[0])

    def place(street: NDArray[np.float64], ahead: NDArray[np.float64], side: int, barn: bool, setback: float) -> None:
        ahead = ahead / (np.linalg.norm(ahead) + 1e-9)
        long_m = rng.uniform(20, 34) if barn else rng.uniform(10, 17)
        wide_m = long_m * rng.uniform(0.5, 0.75) if barn else rng.uniform(8, min(11.5, long_m))
        turn = rng.normal(0, 0.06) + (np.pi / 2 if rng.uniform() < 0.35 else 0)
        direction = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ ahead
        centre = street + side * np.array([-ahead[1], ahead[0]]) * (setback + long_m / 2)
        corners = np.concatenate([_rectangle(centre, direction, long_m + 5, wide_m + 5), centre[None]])
        pixel = np.floor(corners / TARGET_GSD_M).astype(int)
        inside = (pixel >= 0).all() and (pixel < np.array(taken.shape)[::-1]).all()
        if not inside or taken[pixel[:, 1], pixel[:, 0]].max() > 0.05:
            return
        if any(np.linalg.norm(centre - other[0]) < 0.56 * (long_m + other[2]) for other in lots):
            return
        lots.append((centre, direction, long_m, wide_m, street))

    for line in roads + lanes:
        step = np.linalg.norm(line[1] - line[0])
        position = 18.0
        while position / step < len(line) - 2:
            here = line[int(position / step)]
            if np.linalg.norm(here - village) > reach:
                break
            for side in (-1, 1):
                if rng.uniform() < 0.93:
                    place(here, line[int(position / step) + 1] - here, side, rng.uniform() < 0.07, rng.uniform(7, 11))
            position += rng.uniform(17, 25)
    for _ in range(7):
        road = roads[rng.integers(len(roads))]
        here = int(rng.uniform(0.45, 0.92) * len(road))
        side = int(rng.choice([-1, 1]))
        for _ in range(5):
            spot = road[here] + rng.normal(0, 22, 2)
            place(spot, road[min(here + 1, len(road) - 1)] - road[here], side, rng.uniform() < 0.6, rng.uniform(9, 40))
    return lots


def _woods(
    rng: np.random.Generator, shape: tuple[int, int], parcel: NDArray[np.int32], elsewhere: Float
) -> tuple[Float, Float]:
    """Coverage of woods, some along parcel borders and some not, and the share of conifers in them."""
    large = _noise(rng, shape, 2.2, 250, 4000) - 4 * elsewhere
    count = np.maximum(np.bincount(parcel.ravel()), 1)
    mean = (np.bincount(parcel.ravel(), large.ravel()) / count).astype(np.float32)[parcel]
    ragged = _noise(rng, shape, 1.2, 15, 150)
    wood = (mean > 0.98) | (large + 0.10 * ragged > 1.22)
    conifer = np.clip(0.5 + 2.5 * _noise(rng, shape, 1.8, 120, 2000), 0.06, 0.94)
    return _blur(wood.astype(np.float32), 1.2), conifer


def _trees(rng: np.random.Generator, density: Float, conifer: Float) -> tuple[Float, Float, Float, Float]:
    """One tree at most in each 7.5 m cell: coverage, height in metres, tone and whether conifer, each (H, W)."""
    cell = 3
    rows, columns = (-(-side // cell) for side in density.shape)
    offset = rng.uniform(0.1, 0.9, (2, rows, columns)).astype(np.float32)
    centre_y = (np.arange(rows)[:, None] + offset[0]) * cell
    centre_x = (np.arange(columns)[None] + offset[1]) * cell
    last_y, last_x = density.shape[0] - 1, density.shape[1] - 1
    at = (np.minimum(centre_y.astype(int), last_y), np.minimum(centre_x.astype(int), last_x))
    stands = rng.uniform(0, 1, (rows, columns)) < density[at]
    kind = (rng.uniform(0, 1, (rows, columns)) < conifer[at]).astype(np.float32)
    radius = np.where(stands, rng.uniform(1.25, 2.5, (rows, columns)) - 0.35 * kind, 1e-3).astype(np.float32)
    radius *= np.where(density[at] > 0.5, 1, 0.8).astype(np.float32)
    height = radius * 7.5 + 4 * kind + rng.normal(0, 1.5, (rows, columns)).astype(np.float32)
    tone = (1 + 0.13 * rng.normal(size=(rows, columns))).astype(np.float32)
    top = np.zeros((rows * cell, columns * cell), np.float32)
    crown, shade_of, needles = top.copy(), top + 1, top.copy()
    y, x = np.arange(top.shape[0], dtype=np.float32)[:, None] + 0.5, np.arange(top.shape[1], dtype=np.float32) + 0.5
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            cy, cx, r, h, t, k = (
                np.roll(values, (dy, dx), (0, 1)).repeat(cell, 0).repeat(cell, 1)
                for values in (centre_y, centre_x, radius, height, tone, kind)
            )
            within = 1 - ((y - cy) ** 2 + (x - cx) ** 2) / r**2
            here = np.where(within > 0, h * (0.45 + 0.55 * within), 0)
            wins = here > top
            for target, value in ((top, here), (shade_of, t), (needles, k)):
                np.copyto(target, value, where=wins)
            np.maximum(crown, np.clip(2.5 * within, 0, 1), out=crown)
    window = (slice(density.shape[0]), slice(density.shape[1]))
    return crown[window], top[window], shade_of[window], needles[window]


def _light(height: Float) -> tuple[Float, Float]:
    """Shade of slopes (1 = level ground) and cast shadow (0 – 1) under the sun, from heights in metres."""
    azimuth, elevation = np.deg2rad(_SUN_AZIMUTH_DEG), np.deg2rad(_SUN_ELEVATION_DEG)
    to_sun = np.array([np.sin(azimuth), -np.cos(azimuth)])  # x right, y down
    slope_y, slope_x = (0.30 * slope for slope in np.gradient(height, TARGET_GSD_M))
    facing = np.sin(elevation) - np.cos(elevation) * (slope_x * to_sun[0] + slope_y * to_sun[1])
    shade = facing / np.sqrt(1 + slope_x**2 + slope_y**2) / np.sin(elevation)
    shadow = np.zeros_like(height)
    for step in range(1, 6):
        dx, dy = np.rint(-step * to_sun).astype(int)
        above = _shifted(height, dy, dx) - step * TARGET_GSD_M * np.tan(elevation) - height
        np.maximum(shadow, np.clip(above / 4, 0, 1), out=shadow)
    return np.clip(shade, 0.45, 1.45).astype(np.float32), shadow.astype(np.float32)


def _rows(rng: np.random.Generator, parcel: NDArray[np.int32], angle: Float) -> tuple[Float, Float]:
    """Streaks along the working direction (unit variance), turned at the headlands, and coverage of tramlines."""
    height, width = parcel.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cos, sin = np.cos(angle)[parcel], np.sin(angle)[parcel]
    reach = 15 / TARGET_GSD_M
    turned = np.zeros(parcel.shape, bool)
    for sign in (-reach, reach):
        row = np.clip(np.rint(y + sign * sin), 0, height - 1).astype(np.int32)
        column = np.clip(np.rint(x + sign * cos), 0, width - 1).astype(np.int32)
        turned |= parcel[row, column] != parcel
    across = np.where(turned, cos * x + sin * y, cos * y - sin * x) * TARGET_GSD_M
    table = np.convolve(rng.standard_normal(4096), np.hanning(5), "same") + 0.7 * np.repeat(rng.standard_normal(512), 8)
    table = ((table - table.mean()) / table.std()).astype(np.float32)
    place = across / 2.0 + parcel * np.float32(41.3)
    below = np.floor(place)
    share = (place - below).astype(np.float32)
    index = below.astype(np.int64) % len(table)
    streak = (1 - share) * table[index] + share * table[(index + 1) % len(table)]
    spacing = rng.choice([15.0, 18.0, 21.0, 24.0], len(angle)).astype(np.float32)[parcel]
    distance = np.abs((across + parcel * np.float32(3.7)) % spacing - spacing / 2)
    return streak.astype(np.float32), np.clip(1.5 - distance / 1.6, 0, 1).astype(np.float32)


# --- painting ---


def _paint(layout: _Layout, season: int) -> Float:
    """Reflectance (12, H, W) of the layout on the first (0) or the later (1) date."""
    image = _paint_fields(layout, season)
    fine, broad = 1 + 0.05 * layout.grain, 1 + 0.05 * layout.patch
    _over(image, 0.85 * layout.verge, "mown", fine * broad)
    _over(image, layout.garden, "lawn", fine * (1 + 0.10 * layout.patch))
    _over(image, layout.paved, "paved", fine)
    _over(image, layout.gravel, "gravel", fine)
    _over(image, layout.wood, "forest floor", fine)
    _over(image, layout.track, "gravel", fine * broad * 0.82)
    _over(image, layout.river, "river", 1 + 0.04 * layout.patch)
    _over(image, layout.lake, "lake", 1 + 0.05 * layout.patch)
    _over(image, layout.asphalt, "asphalt", fine)
    where = layout.roof > 0.003
    cover = layout.roof[where]
    image[:, where] += cover * (layout.roof_spectra[layout.roof_kind[where]].T * fine[where] - image[:, where])
    sunlit: Float = layout.tree_tone * layout.shade * np.float32(0.94 if season else 1)
    _over(image, layout.tree * (1 - layout.conifer), "broadleaf", sunlit)
    _over(image, layout.tree * layout.conifer, "conifer", sunlit)
    where = layout.shadow > 0.003
    image[:, where] *= 1 - layout.shadow[where] * (1 - _SKYLIGHT[:, None])
    _soften(image)
    if season:
        image *= _LATER_GAIN[:, None, None]
    return np.clip(image, 0.001, 1.0, out=image)


def _paint_fields(layout: _Layout, season: int) -> Float:
    """Soil under the growing crop of each parcel, with rows, tramlines, and uneven growth."""
    state = [kind.later if season else kind.first for kind in _CROPS]
    plants = np.array([_SPECTRA[name] for name, _ in state], np.float32)[layout.crop] / 1000  # (parcels, 12)
    brightness, senescence, dryness = (layout.colour[:, [n]] for n in range(3))
    plants *= (1 + brightness) * np.exp(senescence * _SENESCENCE + dryness * _DRYNESS)
    soils = np.array(_SPECTRA["loam"], np.float32) / 1000 * (1 + 1.5 * brightness) * np.exp(dryness * 0.5 * _DRYNESS)
    cover = np.array([cover for _, cover in state], np.float32)[layout.crop]
    lined = np.array([kind.tramlines for kind in _CROPS], np.float32)[layout.crop]
    uneven = (0.4 + 6 * np.abs(layout.colour[:, 1]))[layout.parcel]
    growth = uneven * (0.10 * layout.patch - 0.06 * layout.soil) + 0.045 * layout.streak + 0.03 * layout.grain
    mean = cover[layout.parcel]
    mean = np.clip(mean * (1 + growth) - np.maximum(mean - 1 + growth, 0) * 0.5, 0, 1)
    mean *= 1 - 0.16 * lined[layout.parcel] * layout.tramline
    plant_tone = 1 + 0.045 * layout.streak + 0.035 * layout.grain + uneven * 0.045 * layout.patch
    soil_tone = 1 - 0.12 * layout.soil + 0.05 * layout.streak + 0.045 * layout.grain
    image = np.empty((12, *layout.parcel.shape), np.float32)
    edge = np.zeros(layout.parcel.shape, bool)
    for axis in (0, 1):
        differs = layout.parcel != np.roll(layout.parcel, 1, axis)
        edge |= differs | np.roll(differs, -1, axis)
    for band in range(12):
        soil, plant = soils[:, band][layout.parcel], plants[:, band][layout.parcel]
        field = soil * soil_tone * (1 - mean) + plant * plant_tone * mean
        smooth = _three(_three(field, 0), 1)
        image[band] = np.where(edge, smooth, field)
    return image


def _over(image: Float, alpha: Float, spectrum: str, tone: NDArray[np.floating[Any]]) -> None:
    """Lay a surface over the image where alpha > 0, in place."""
    where = alpha > 0.003
    colour = np.array(_SPECTRA[spectrum], np.float32)[:, None] / 1000 * tone[where]
    image[:, where] += alpha[where] * (colour - image[:, where])


# --- tools of drawing ---


class _Canvas:
    """A drawing in metres from the world's upper left corner, as anti-aliased coverage on the 2.5 m grid."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.image = Image.new("L", (shape[1] * _SUPERSAMPLING, shape[0] * _SUPERSAMPLING))
        self._pen = ImageDraw.Draw(self.image)

    def pixels(self, points_m: NDArray[np.float64]) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (points_m * _SUPERSAMPLING / TARGET_GSD_M - 0.5).tolist()]

    def line(self, points_m: NDArray[np.float64], width_m: float) -> None:
        ahead = np.gradient(points_m, axis=0)
        aside = np.stack([-ahead[:, 1], ahead[:, 0]], 1) * width_m / 2
        aside /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9
        self.polygon(np.concatenate([points_m + aside, (points_m - aside)[::-1]]))

    def polygon(self, points_m: NDArray[np.float64]) -> None:
        self._pen.polygon(self.pixels(points_m), fill=255)

    def disc(self, centre_m: NDArray[np.float64], radius_m: float) -> None:
        (x, y), radius = self.pixels(centre_m[None])[0], radius_m * _SUPERSAMPLING / TARGET_GSD_M
        self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)

    def coverage(self) -> Float:
        return np.asarray(self.image.reduce(_SUPERSAMPLING), np.float32) / np.float32(255)


def _curve(rng: np.random.Generator, start: Any, end: Any, wobble_m: float) -> NDArray[np.float64]:
    """A winding line from start to end, a point every 4 m or so, (n, 2) as x, y."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(np.linalg.norm(end - start))
    t = np.linspace(0, 1, max(int(length / 4), 4))[:, None]
    normal = np.array([start[1] - end[1], end[0] - start[0]]) / length
    aside = sum(rng.normal(0, wobble_m) / k**1.2 * np.sin(np.pi * k * t) for k in range(1, 9))
    line: NDArray[np.float64] = start + t * (end - start) + aside * normal
    return line


def _rectangle(
    centre: NDArray[np.float64], direction: NDArray[np.float64], long_m: float, wide_m: float
) -> NDArray[np.float64]:
    normal = np.array([-direction[1], direction[0]])
    along, across = direction * long_m / 2, normal * wide_m / 2
    return centre + np.array([-along - across, along - across, along + across, across - along])


def _boundary(label: NDArray[Any]) -> Float:
    """Soft lines, about two pixels wide, where a label changes."""
    change = np.zeros(label.shape, np.float32)
    change[1:] = label[1:] != label[:-1]
    change[:, 1:] = np.maximum(change[:, 1:], label[:, 1:] != label[:, :-1])
    return np.clip(1.4 * _three(_three(change, 0), 1), 0, 1)


def _three(values: Float, axis: int) -> Float:
    """Running mean with weights 1 2 1 along an axis; wraps around."""
    return np.float32(0.5) * values + np.float32(0.25) * (np.roll(values, 1, axis) + np.roll(values, -1, axis))


def _soften(image: Float) -> None:
    """The image through the optics of a 2.5 m sensor: weights 0.12 0.76 0.12 down and across, in place."""
    for band in image:  # a view: written in place
        padded = np.pad(band, 1, mode="edge")
        down = 0.76 * padded[1:-1] + 0.12 * (padded[:-2] + padded[2:])
        band[:] = 0.76 * down[:, 1:-1] + 0.12 * (down[:, :-2] + down[:, 2:])


def _shifted(values: Float, down: int, right: int) -> Float:
    """Values moved by whole pixels; the border repeats."""
    height, width = values.shape
    rows, columns = np.arange(height) - down, np.arange(width) - right
    return values[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)]


def _frequencies(shape: tuple[int, int]) -> Float:
    """Spatial frequency in cycles per metre for each coefficient of rfft2."""
    fy, fx = np.fft.fftfreq(shape[0], TARGET_GSD_M), np.fft.rfftfreq(shape[1], TARGET_GSD_M)
    return np.hypot(fy[:, None], fx[None]).astype(np.float32)


def _noise(
    rng: np.random.Generator, shape: tuple[int, int], power: float, shortest_m: float, longest_m: float
) -> Float:
    """Noise with amplitude 1 / frequency^power between two wavelengths, zero mean and unit variance."""
    frequency = _frequencies(shape)
    longest_m = min(longest_m, max(shape) * TARGET_GSD_M)
    keep = (frequency >= 1 / longest_m) & (frequency <= 1 / shortest_m)
    gain = np.where(keep, np.maximum(frequency, 1e-6) ** -power, 0).astype(np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape, np.float32)) * gain, s=shape)
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def _blur(values: Float, sigma_px: float) -> Float:
    """Gaussian blur; wraps around."""
    gain = np.exp(-2 * (np.pi * sigma_px * TARGET_GSD_M * _frequencies(values.shape)) ** 2)
    return np.fft.irfft2(np.fft.rfft2(values) * gain, s=values.shape).astype(np.float32)


# --- the sensor ---


def psf_sigma_px(band: str) -> float:
    """Sigma, in 2.5 m pixels, of the Gaussian that with the box of a native pixel has the band's MTF at Nyquist.

    The box alone has sinc(1/2) = 2/π there; exp(-2 (π σ f)²) at f = 1 / (2 R) gives the rest.
    """
    return native_factor(band) * float(np.sqrt(-2 * np.log(MTF_NYQUIST[band] * np.pi / 2))) / np.pi


def observe(image: Float, band: str) -> Float:
    """One band (H, W) at 2.5 m as the sensor samples it, (H/R, W/R): Gaussian point spread, then R × R box mean."""
    down, right = (_sampling(side, native_factor(band), psf_sigma_px(band)) for side in image.shape)
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
    cloud and noise (that of the world unless told).
    """
    streams = np.random.default_rng([world.seed if seed is None else seed, 1]).spawn(3)
    opacity, shade = _cloud(streams[0], world.landcover.shape)
    acquisitions = (
        _acquire(world, world.reflectance, streams[1], opacity, shade, 0),
        _acquire(world, world.later, streams[2], np.zeros_like(opacity), np.zeros_like(opacity), _OFFSET_DN),
    )
    west, _, east, north = world.bounds_m
    scenes = []
    for (date, platform), (bands, scl), offset in zip(DATES, acquisitions, (0, _OFFSET_DN), strict=True):
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
    texture = 1 + 0.10 * _noise(rng, opacity.shape, 1.3, 20, 600) if cloudy else opacity
    bands: dict[str, NDArray[np.uint16]] = {}
    at_20m: dict[str, Float] = {}
    for number, band in enumerate(BANDS):
        seen = truth[number]
        if cloudy:
            cloud = _SPECTRA["cloud"][number] / 1000 * texture
            seen = seen * (1 - shade * (0.62 + 0.02 * number)) * (1 - opacity) + cloud * opacity
        sampled = observe(seen, band)
        if band in ("B04", "B8A"):
            at_20m[band] = _block_mean(sampled, 20 // GSD_M[band])
        sampled += rng.standard_normal(sampled.shape, np.float32) * np.sqrt(0.1 * sampled) / 150
        bands[band] = (np.clip(np.rint(sampled * 10_000), 1, 10_000 * 2) + offset).astype(np.uint16)
    ndvi = (at_20m["B8A"] - at_20m["B04"]) / (at_20m["B8A"] + at_20m["B04"])
    scl = np.where(ndvi > 0.4, 4, 5).astype(np.uint8)
    factor = round(20 / TARGET_GSD_M)
    scl[_block_mean((world.landcover == _CODE["water"]).astype(np.float32), factor) > 0.5] = 6
    cover = _block_mean(opacity, factor)
    for code, where in (
        (3, _block_mean(shade, factor) > 0.3), (8, cover > 0.06), (9, cover > 0.5),
    ):  # fmt: skip
        scl[where] = code
    return bands, scl


def _cloud(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Float, Float]:
    """Opacity of one soft-edged cloud over the overlap of the tiles, and depth of its shadow, (H, W) 0 – 1."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    far = np.hypot((x / shape[1] - 0.50) / 0.155, (y / shape[0] - 0.66) / 0.17)
    dense = 1.15 - far + 0.30 * _noise(rng, shape, 1.7, 20, 900)
    opacity = np.clip(dense / 0.95, 0, 1)
    opacity = _blur(opacity * opacity * (3 - 2 * opacity), 3)
    azimuth = np.deg2rad(_SUN_AZIMUTH_DEG)
    away_px = 0.15 * shape[0]
    down, right = round(float(np.cos(azimuth)) * away_px), round(float(-np.sin(azimuth)) * away_px)
    opacity = np.clip(opacity - 0.004, 0, 1)
    return opacity, np.clip(_blur(_shifted(opacity, down, right), 5), 0, 1)


def _beyond_swath(shape: tuple[int, ...], gsd_m: float, corner_m: tuple[float, float]) -> NDArray[np.bool_]:
    """Pixels whose centre lies in the triangle of the upper left corner with these legs."""
    y, x = ((np.arange(side) + 0.5) * gsd_m for side in shape)
    beyond: NDArray[np.bool_] = x[None] / corner_m[0] + y[:, None] / corner_m[1] < 1
    return beyond


def _block_mean(values: Float, factor: int) -> Float:
    height, width = values.shape
    mean: Float = values.reshape(height // factor, factor, width // factor, factor).mean((1, 3))
    return mean


# --- the catalogue ---


def write_catalog(scenes: list[RenderedScene], folder: Path | str) -> Path:
    """Write a static STAC catalogue with relative links and COG assets, as Earth Search v1 names them.

    folder: made if missing. Returns the path of catalog.json.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for scene in scenes:
        home = folder / "items" / scene.id
        home.mkdir(parents=True, exist_ok=True)
        rasters: dict[str, NDArray[Any]] = {**scene.bands, "SCL": scene.scl}
        for name, pixels in rasters.items():
            gsd = GSD_M.get(name, 20)
            grid = Affine(gsd, 0, scene.left_m, 0, -gsd, scene.top_m)
            _write_tiff(home / f"{name}.tif", pixels[None], grid, scene.epsg, "COG", nodata=0)
        items.append(_item(scene))
        _write_json(home / f"{scene.id}.json", items[-1])
    _write_json(folder / "collection.json", _collection(items))
    root = {"rel": "root", "href": "./catalog.json"}
    child = {"rel": "child", "href": "./collection.json"}
    catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "demo-world", "links": [root, child]}
    _write_json(folder / "catalog.json", {**catalog, "description": "Sentinel-2 scenes of a made-up world"})
    return folder / "catalog.json"


def _collection(items: list[dict[str, Any]]) -> dict[str, Any]:
    boxes = np.array([item["bbox"] for item in items])
    times = sorted(item["properties"]["datetime"] for item in items)
    links = [{"rel": "root", "href": "./catalog.json"}, {"rel": "parent", "href": "./catalog.json"}]
    links += [
        {"rel": "item", "href": f"./items/{item['id']}/{item['id']}.json", "type": "application/geo+json"}
        for item in items
    ]
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": "sentinel-2-l2a",
        "license": "Apache-2.0",
        "description": "Made-up Sentinel-2 L2A products: no place on Earth looks like this",
        "extent": {
            "spatial": {"bbox": [[*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]]},
            "temporal": {"interval": [[times[0], times[-1]]]},
        },
        "links": links,
    }


def _item(scene: RenderedScene) -> dict[str, Any]:
    """The STAC item of a scene; its geometry is where it has pixels."""
    outline = _outline(scene)
    longitudes, latitudes = zip(*outline, strict=True)
    time = f"{scene.date}T10:36:29Z"
    day = scene.date.replace("-", "")
    uri = f"S2{scene.platform}_MSIL2A_{day}T103031_N{_BASELINE.replace('.', '')}_R108_T{scene.tile}_{day}T164512.SAFE"
    extensions = ("grid/v1.0.0", "mgrs/v1.0.0", "raster/v1.1.0", "eo/v1.0.0", "projection/v1.0.0", "view/v1.0.0")
    up = [("collection", "../../collection.json"), ("root", "../../catalog.json"), ("parent", "../../collection.json")]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": scene.id,
        "collection": "sentinel-2-l2a",
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in extensions],
        "geometry": {"type": "Polygon", "coordinates": [[list(point) for point in outline]]},
        "bbox": [min(longitudes), min(latitudes), max(longitudes), max(latitudes)],
        "properties": {
            "datetime": time,
            "created": time,
            "updated": time,
            "platform": f"sentinel-2{scene.platform.lower()}",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "eo:cloud_cover": scene.cloud_cover,
            "proj:epsg": scene.epsg,
            "grid:code": f"MGRS-{scene.tile}",
            "mgrs:utm_zone": int(scene.tile[:2]),
            "mgrs:latitude_band": scene.tile[2],
            "mgrs:grid_square": scene.tile[3:],
            "view:sun_azimuth": _SUN_AZIMUTH_DEG,
            "view:sun_elevation": _SUN_ELEVATION_DEG,
            "s2:processing_baseline": _BASELINE,
            "s2:product_uri": uri,
            "s2:sequence": "0",
            "s2:nodata_pixel_percentage": round(float(100 * (scene.scl == 0).mean()), 2),
            "earthsearch:boa_offset_applied": scene.offset_dn == 0,
        },
        "assets": {ASSETS.get(name, "scl"): _asset(scene, name) for name in (*scene.bands, "SCL")},
        "links": [{"rel": rel, "href": href, "type": "application/json"} for rel, href in up],
    }


def _asset(scene: RenderedScene, name: str) -> dict[str, Any]:
    gsd = GSD_M.get(name, 20)
    pixels = scene.bands.get(name, scene.scl)
    raster: dict[str, Any] = {"nodata": 0, "data_type": str(pixels.dtype), "spatial_resolution": gsd}
    asset: dict[str, Any] = {
        "href": f"./{name}.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "proj:shape": list(pixels.shape),
        "proj:transform": [gsd, 0, scene.left_m, 0, -gsd, scene.top_m],
        "raster:bands": [raster],
    }
    if name in scene.bands:
        raster |= {"bits_per_sample": 15, "scale": 0.0001, "offset": -scene.offset_dn / 10_000}
        asset |= {"roles": ["data", "reflectance"], "eo:bands": [{"name": ASSETS[name]}], "gsd": gsd}
    return asset


def _outline(scene: RenderedScene) -> list[tuple[float, float]]:
    """Closed ring of longitude, latitude around a scene's valid pixels, counter-clockwise."""
    height, width = (side * 20.0 for side in scene.scl.shape)
    ring = [(0.0, height), (width, height), (width, 0.0)]
    if scene.corner_m is None:
        ring += [(0.0, 0.0)]
    else:
        ring += [(scene.corner_m[0], 0.0), (0.0, scene.corner_m[1])]
    x, y = zip(*((scene.left_m + right, scene.top_m - down) for right, down in (*ring, ring[0])), strict=True)
    longitudes, latitudes = transform_points(f"EPSG:{scene.epsg}", "EPSG:4326", x, y)
    return list(zip(longitudes, latitudes, strict=True))


def _write_tiff(
    path: Path, pixels: NDArray[Any], transform: Affine, epsg: int, driver: str, nodata: int | None = None,
    descriptions: tuple[str, ...] | None = None, tags: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write (bands, H, W) as a tiled GeoTIFF or a COG (whose overviews are means, or for classes nearest).

    tags: what the first band's values mean, where they are classes.
    """
    options: dict[str, Any] = {"compress": "deflate", "nodata": nodata}
    if driver == "COG":
        options |= {"blocksize": 256, "overview_resampling": "nearest" if pixels.dtype == np.uint8 else "average"}
    else:
        options |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band", "zlevel": 3}
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver=driver, dtype=pixels.dtype, count=count, height=height, width=width,
        crs=f"EPSG:{epsg}", transform=transform, **options,
    ) as raster:  # fmt: skip
        raster.write(pixels)
        raster.update_tags(1, **(tags or {}))
        if descriptions:
            raster.descriptions = descriptions


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


# --- the picture ---


def before_after_picture(
    path: Path | str,
    low: Float,
    super_resolved: Float,
    truth: Float | None = None,
    bicubic: Float | None = None,
    panel_px: int = 480,
) -> Path:
    """Draw a labelled PNG: a row in natural colour, a row in false colour, the same stretch across each row.

    low: (12, h, w) reflectance at 10 m in BANDS order. super_resolved, and truth and bicubic where given: (12, 4h,
    4w) at 2.5 m. bicubic is computed from low where it is not given; without truth its panel is left out.
    panel_px: about the side of a panel, rounded to whole pixels of the image.
    """
    fine_shape = (12, low.shape[1] * SCALE, low.shape[2] * SCALE)
    for name, image in (("super_resolved", super_resolved), ("truth", truth), ("bicubic", bicubic)):
        if image is not None and image.shape != fine_shape:
            raise ValueError(f"{name} must have shape {fine_shape} beside 10 m pixels {low.shape}, not {image.shape}")
    panels = {"Sentinel-2, 10 m": low.repeat(SCALE, 1).repeat(SCALE, 2)}
    panels["Bicubic, 2.5 m"] = _bicubic(low) if bicubic is None else bicubic
    panels["DiffFuSR, 2.5 m"] = super_resolved
    if truth is not None:
        panels["Truth, 2.5 m"] = truth
    zoom = max(1, round(panel_px / max(fine_shape[1:])))
    height, width = fine_shape[1] * zoom, fine_shape[2] * zoom
    margin, gap, head, side = 20, 10, 40, 30
    sheet = Image.new(
        "RGB", (2 * margin + side + len(panels) * (width + gap) - gap, 2 * margin + head + 2 * height + gap), "white"
    )
    pen = ImageDraw.Draw(sheet)
    heading, small = ImageFont.load_default(22), ImageFont.load_default(18)
    for row, (style, names) in enumerate((("Natural colour", RGB), ("False colour", ("B08", "B04", "B03")))):
        top = margin + head + row * (height + gap)
        index = [BANDS.index(name) for name in names]
        reference = super_resolved if truth is None else truth
        limits = _stretch(reference[index], together=names == RGB)
        _write_upwards(sheet, f"{style} ({', '.join(names)})", (margin - 4, top, height), small)
        for column, image in enumerate(panels.values()):
            picture = Image.fromarray(_to_rgb(image[index], limits))
            left = margin + side + column * (width + gap)
            sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
    for column, name in enumerate(panels):
        middle = margin + side + column * (width + gap) + width / 2
        pen.text((middle, margin + head / 2 - 4), name, fill=(30, 30, 30), font=heading, anchor="mm")
    sheet.save(path)
    return Path(path)


def _stretch(image: Float, together: bool) -> tuple[Float, Float]:
    """Reflectance shown black and white, (3, 1, 1) each: by band, or together so that natural colours stay true."""
    black, white = np.percentile(image.reshape(len(image), -1), (0.5, 99.3), axis=1).astype(np.float32)
    if together:
        black, white = np.full_like(black, 0.6 * black.min()), np.full_like(white, white.max())
    return black[:, None, None], white[:, None, None]


def _to_rgb(image: Float, limits: tuple[Float, Float]) -> NDArray[np.uint8]:
    black, white = limits
    grey = np.clip((image - black) / np.maximum(white - black, 1e-4), 0, 1) ** (1 / 1.5)
    return np.ascontiguousarray(np.rint(grey * 255).astype(np.uint8).transpose(1, 2, 0))


def _bicubic(low: Float) -> Float:
    size = (low.shape[2] * SCALE, low.shape[1] * SCALE)
    bands = [Image.fromarray(band.astype(np.float32)).resize(size, Image.Resampling.BICUBIC) for band in low]
    return np.stack([np.asarray(band, np.float32) for band in bands])


def _write_upwards(sheet: Image.Image, text: str, place: tuple[int, int, int], font: Any) -> None:
    """Write a text turned by 90° left of (x), centred between top and top + height."""
    left, top, height = place
    box = font.getbbox(text)
    label = Image.new("RGB", (int(box[2]) + 4, int(box[3]) + 6), "white")
    ImageDraw.Draw(label).text((2, 0), text, fill=(30, 30, 30), font=font)
    turned = label.rotate(90, expand=True)
    sheet.paste(turned, (left, top + (height - turned.height) // 2))
