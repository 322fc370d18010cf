"""The layout of the generated world: fields, roads, buildings, water and woods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.scenes.synthetic.buildings import place_buildings
from difffusr.pipeline.scenes.synthetic.drawing import (
    Canvas,
    blurred,
    boundary_of,
    curve_between,
    shifted_by,
    smooth_noise,
)
from difffusr.pipeline.scenes.synthetic.palette import CODE, CROPS, SUN_AZIMUTH_DEG, SUN_ELEVATION_DEG, Float


@dataclass(frozen=True)
class Layout:
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


def lay_out(rng: np.random.Generator, size_m: tuple[int, int]) -> Layout:
    height, width = size_m
    shape = (int(height / TARGET_GSD_M), int(width / TARGET_GSD_M))
    streams = rng.spawn(8)
    district, parcel, angle = _parcels(streams[0], shape)
    village = np.array([0.70 * width, 0.42 * height])
    river_line = curve_between(streams[1], (0.30 * width, -60), (0.60 * width, height + 60), 0.10 * height)
    river, bank, gravel = _river(streams[1], shape, river_line)
    lake, shore = _lake(streams[1], shape, size_m)
    roads, lanes = _roads(streams[2], size_m, village)
    asphalt, kerb = _drawn_roads(shape, roads, lanes)
    wet = np.maximum(river, lake)
    used = np.clip(0.8 + 2 * smooth_noise(streams[2], shape, 2.0, 400, 4000), 0, 1)
    track = boundary_of(district) * used * np.clip(1 - 3 * np.maximum(wet, kerb), 0, 1)
    built = place_buildings(streams[3], shape, size_m, village, roads, lanes, np.maximum.reduce([wet, asphalt]))
    open_ground = np.clip(1 - 2 * np.maximum.reduce([kerb, wet, track, built.near, gravel]), 0, 1)
    wood, conifer = _woods(streams[4], shape, parcel, built.near + shore)
    wood *= open_ground
    patchy = np.clip(0.5 + smooth_noise(streams[4], shape, 1.0, 30, 400), 0, 1)
    hedge = boundary_of(parcel) * (smooth_noise(streams[4], shape, 1.5, 100, 1500) > 1.0)
    density = np.maximum.reduce(
        [0.985 * wood, 0.85 * bank * patchy, 0.75 * shore * patchy, 0.8 * hedge, np.full(shape, 0.001, np.float32)]
    )
    density = np.maximum(density * open_ground, 0.20 * built.garden * (1 - np.maximum.reduce([built.roof, asphalt])))
    tree, tree_height, tree_tone, is_conifer = _trees(streams[5], density, conifer)
    tree *= 1 - np.maximum(built.roof, asphalt)
    shade, shadow = _light(np.maximum(tree_height * (tree > 0.3), built.height))
    wild = streams[6]
    crop = wild.choice(len(CROPS), size=int(parcel.max()) + 1, p=[kind.share for kind in CROPS])
    streak, tramline = _rows(wild, parcel, angle)
    verge = np.clip(boundary_of(parcel) * 0.8 + np.clip(kerb - asphalt, 0, 1) * 0.8, 0, 1)
    landcover = np.array([CODE[kind.landcover] for kind in CROPS], np.uint8)[crop][parcel]
    for name, cover in (
        ("garden", built.garden), ("forest", np.maximum(wood, tree)), ("water", wet), ("track", track),
        ("road", asphalt), ("building", built.roof),
    ):  # fmt: skip
        landcover[cover > 0.5] = CODE[name]
    return Layout(
        parcel=parcel, crop=crop,
        colour=wild.normal(0, (0.07, 0.10, 0.09), (len(crop), 3)).astype(np.float32),
        soil=smooth_noise(wild, shape, 1.1, 20, 1800), patch=smooth_noise(wild, shape, 1.2, 20, 700),
        grain=smooth_noise(wild, shape, 0.3, 5, 30), streak=streak, tramline=tramline, verge=verge, wood=wood,
        garden=built.garden, paved=built.paved, gravel=gravel, river=river, lake=lake, asphalt=asphalt, track=track,
        roof=built.roof, roof_kind=built.kind, roof_spectra=built.spectra, tree=tree, tree_tone=tree_tone,
        conifer=is_conifer, shade=shade, shadow=shadow, landcover=landcover,
    )  # fmt: skip


def _parcels(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int32], Float]:
    """Districts (warped Voronoi cells), in each the parcels of repeated cuts, and the heading of each parcel."""
    rows, columns = (np.arange(side, dtype=np.float32) * TARGET_GSD_M for side in shape)
    bend = [9 * smooth_noise(rng, shape, 2.0, 250, 3000) for _ in range(2)]
    x, y = columns[None] + bend[0], rows[:, None] + bend[1]
    count = max(4, round(shape[0] * shape[1] * TARGET_GSD_M**2 / 450_000))
    seeds = rng.uniform(0, 1, (count, 2)) * np.array(shape) * TARGET_GSD_M
    wavy = [45 * smooth_noise(rng, shape, 2.0, 300, 3000) for _ in range(2)]
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
    water, bank, bars = Canvas(shape), Canvas(shape), Canvas(shape)
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
    water, shore = Canvas(shape), Canvas(shape)
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
    roads = [curve_between(rng, village, end, 0.045 * height) for end in ends]
    lanes = []
    reach = min(330.0, 0.15 * height)
    for road in roads:
        near = np.linalg.norm(road - village, axis=1)
        for distance in np.arange(55, reach, rng.uniform(75, 95)):
            start = int(np.argmin(np.abs(near - distance)))
            ahead = road[min(start + 3, len(road) - 1)] - road[start]
            side = np.array([-ahead[1], ahead[0]]) / (np.linalg.norm(ahead) + 1e-9) * rng.choice([-1, 1])
            length = rng.uniform(0.45, 1.0) * np.sqrt(max(reach**2 - distance**2, 60**2)) * 0.75
            lanes.append(curve_between(rng, road[start], road[start] + side * length + rng.normal(0, 14, 2), 7))
    return roads, lanes


def _drawn_roads(
    shape: tuple[int, int], roads: list[NDArray[np.float64]], lanes: list[NDArray[np.float64]]
) -> tuple[Float, Float]:
    """Coverage of the carriageways, and of carriageways with their verges."""
    asphalt, kerb = Canvas(shape), Canvas(shape)
    for line, width_m in [(road, 8.5 if n < 2 else 6.5) for n, road in enumerate(roads)] + [(ln, 5.0) for ln in lanes]:
        asphalt.line(line, width_m)
        kerb.line(line, width_m + 7)
    return asphalt.coverage(), kerb.coverage()


def _woods(
    rng: np.random.Generator, shape: tuple[int, int], parcel: NDArray[np.int32], elsewhere: Float
) -> tuple[Float, Float]:
    """Coverage of woods, some along parcel borders and some not, and the share of conifers in them."""
    large = smooth_noise(rng, shape, 2.2, 250, 4000) - 4 * elsewhere
    count = np.maximum(np.bincount(parcel.ravel()), 1)
    mean = (np.bincount(parcel.ravel(), large.ravel()) / count).astype(np.float32)[parcel]
    ragged = smooth_noise(rng, shape, 1.2, 15, 150)
    wood = (mean > 0.98) | (large + 0.10 * ragged > 1.22)
    conifer = np.clip(0.5 + 2.5 * smooth_noise(rng, shape, 1.8, 120, 2000), 0.06, 0.94)
    return blurred(wood.astype(np.float32), 1.2), conifer


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
    azimuth, elevation = np.deg2rad(SUN_AZIMUTH_DEG), np.deg2rad(SUN_ELEVATION_DEG)
    to_sun = np.array([np.sin(azimuth), -np.cos(azimuth)])  # x right, y down
    slope_y, slope_x = (0.30 * slope for slope in np.gradient(height, TARGET_GSD_M))
    facing = np.sin(elevation) - np.cos(elevation) * (slope_x * to_sun[0] + slope_y * to_sun[1])
    shade = facing / np.sqrt(1 + slope_x**2 + slope_y**2) / np.sin(elevation)
    shadow = np.zeros_like(height)
    for step in range(1, 6):
        dx, dy = np.rint(-step * to_sun).astype(int)
        above = shifted_by(height, dy, dx) - step * TARGET_GSD_M * np.tan(elevation) - height
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
