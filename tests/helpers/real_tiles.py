"""Real scenes of two orbits at 120 m, brought to nadir on one grid, and their balance as plans make it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import rasterio
from beside import SHARED
from numpy.typing import NDArray
from scipy import ndimage

from difffusr.pipeline.plan.balance.fit import Fit, corners, fit
from difffusr.pipeline.plan.balance.pairs import Pairs, compare
from difffusr.pipeline.plan.balance.samples import Samples
from difffusr.pipeline.scenes.granule import read_granule

FOLDER = SHARED / "data" / "balance"
BANDS = ("B02", "B03", "B04", "B08")
NIR = [3]

#: Rows of the northern tile above the southern one's, on one grid of 120 m: they are half a pixel apart.
TOP = {"33TWM": 0, "33TWL": 833}
NORTH_M = {"33TWM": 5_200_020.0, "33TWL": 5_100_000.0}
SIZE = 915


@dataclass(frozen=True, eq=False)
class Tile:
    """A scene: DN at nadir (4, H, W) on the common grid, NaN where it is not clear, and what brought them there."""

    tile: str
    day: dt.date
    dn: NDArray[np.float64]
    factor: NDArray[np.float64]


def read_tile(tile: str, day: str) -> Tile:
    name = f"*_{tile}_{day}_0_L2A"
    (folder,) = (
        place
        for home in (FOLDER / "tiles_120m", SHARED / "data" / "overviews_120m" / "items")
        for place in home.glob(name)
        if list(place.glob("B02.*"))
    )
    rasters = {}
    for band in (*BANDS, "SCL"):
        with rasterio.open(next(folder.glob(f"{band}.*"))) as file:
            rasters[band] = file.read(1)
    (path,) = (FOLDER / "granules").glob(f"L2A_{name}.xml.gz")
    granule = read_granule(path.read_bytes(), path.name)
    bounds = 499_980.0, NORTH_M[tile] - SIZE * 120, 499_980.0 + SIZE * 120, NORTH_M[tile]
    cloud = ndimage.binary_opening(np.isin(rasters["SCL"], (3, 8, 9, 10)), np.ones((2, 2)))
    clear = np.isin(rasters["SCL"], (4, 5, 6, 7)) & (ndimage.distance_transform_edt(~cloud) > 5)
    clear &= ndimage.distance_transform_edt(rasters["B02"] > 1) > 3
    dn = np.full((4, TOP["33TWL"] + SIZE, SIZE), np.nan)
    factor = np.ones(dn.shape)
    here = slice(TOP[tile], TOP[tile] + SIZE)
    for number, band in enumerate(BANDS):
        factor[number, here] = granule.field(band).on(bounds, 120)
        dn[number, here] = np.where(clear, rasters[band] * factor[number, here], np.nan)
    return Tile(tile, dt.datetime.strptime(day, "%Y%m%d").date(), dn, factor)


def sampled(dn: NDArray[np.float64], day: dt.date, top: int, height: int, use: NDArray[np.bool_]) -> Samples:
    """Every second pixel of a scene where it is clear and `use` allows it."""
    chosen = np.zeros(use.shape, bool)
    chosen[::2, ::2] = True
    row, col = np.nonzero(chosen & use & np.isfinite(dn[0]))
    place = np.stack([(col + 0.5) / use.shape[1], (row + 0.5 - top) / height], axis=1).astype(np.float32)
    return Samples((row << 32) + col, place, np.rint(dn[:, row, col]).astype(np.uint16), day.toordinal())


def solve(samples: list[Samples], spacing_m: float) -> Fit:
    found = [compare(i, samples[i], j, samples[j], NIR, spacing_m) for i, j in combinations(range(len(samples)), 2)]
    mean = np.stack([one.dn.mean(axis=1) if len(one.number) else np.zeros(len(BANDS)) for one in samples])
    centre = np.stack([corners(one.place).mean(axis=0) if len(one.number) else np.full(4, 0.25) for one in samples])
    return fit(Pairs.of([pair for pair in found if pair is not None], len(BANDS)), mean, centre)


def balanced(found: Fit, number: int, dn: NDArray[np.float64], top: int, height: int) -> NDArray[np.float64]:
    row, col = np.indices(dn.shape[1:])
    at = corners(np.stack([(col.ravel() + 0.5) / dn.shape[2], (row.ravel() + 0.5 - top) / height], axis=1))
    offset = (found.offset[number].reshape(len(BANDS), 4) @ at.T).reshape(dn.shape)
    return found.gain[number][:, None, None] * dn + offset
