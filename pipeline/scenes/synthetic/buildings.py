"""Buildings of the generated world, along its streets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.scenes.synthetic.drawing import Canvas, blurred, rectangle_at
from difffusr.pipeline.scenes.synthetic.palette import SPECTRA, SUN_AZIMUTH_DEG, SUPERSAMPLING, Float


@dataclass(frozen=True)
class _Built:
    roof: Float
    kind: NDArray[np.int64]
    spectra: Float
    height: Float
    garden: Float
    paved: Float
    near: Float


def place_buildings(
    rng: np.random.Generator, shape: tuple[int, int], size_m: tuple[int, int], village: NDArray[np.float64],
    roads: list[NDArray[np.float64]], lanes: list[NDArray[np.float64]], taken: Float,
) -> _Built:  # fmt: skip
    """Houses along the streets of the village and some farms outside; each roof has two facets, one to the sun."""
    roofs, garden, paved = Canvas(shape), Canvas(shape), Canvas(shape)
    facets = Image.new("I", roofs.image.size)
    pen = ImageDraw.Draw(facets)
    spectra, heights = [np.zeros(12)], [0.0]
    kinds = ("red roof", "brown roof", "grey roof", "slate roof", "white roof")
    sun = np.deg2rad(SUN_AZIMUTH_DEG)
    for centre, direction, long_m, wide_m, street in _lots(rng, size_m, village, roads, lanes, taken):
        normal = np.array([-direction[1], direction[0]])
        barn = long_m > 20
        kind = kinds[rng.choice(5, p=(0.15, 0.25, 0.35, 0.05, 0.20) if barn else (0.46, 0.22, 0.14, 0.12, 0.06))]
        base = np.array(SPECTRA[kind]) / 1000 * rng.normal(1, 0.12)
        garden.disc(centre, 0.5 * long_m + rng.uniform(9, 17))
        paved.line(np.array([street, centre]), rng.uniform(2.5, 4.5))
        if barn or rng.uniform() < 0.25:
            paved.polygon(rectangle_at(centre + rng.choice([-1, 1]) * normal * wide_m, direction, long_m, wide_m))
        roofs.polygon(rectangle_at(centre, direction, long_m, wide_m))
        for side in (-1, 1):
            slope = side * normal @ np.array([np.sin(sun), -np.cos(sun)])
            spectra.append(base * (1 + 0.30 * slope))
            heights.append(rng.uniform(5, 8) + 2 * barn)
            half = rectangle_at(centre + side * normal * wide_m / 4, direction, long_m, wide_m / 2)
            pen.polygon(roofs.pixels(half), fill=len(spectra) - 1)
    s = SUPERSAMPLING
    ids = np.asarray(facets, np.int64).reshape(shape[0], s, shape[1], s).max((1, 3))
    cover, lawn = roofs.coverage(), garden.coverage()
    near = np.clip(blurred(lawn, 12) * 3, 0, 1)
    lawn = np.clip(9 * blurred(lawn, 7) - 3.2, 0, 1)
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
        corners = np.concatenate([rectangle_at(centre, direction, long_m + 5, wide_m + 5), centre[None]])
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
