"""Balance on real scenes: on ground that the fit has not seen it makes two orbits and three dates agree; and what grew
between June and July stays grown."""

from __future__ import annotations

import datetime as dt
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from real_tiles import BANDS, FOLDER, SIZE, TOP, Tile, balanced, sampled, solve
from scipy import ndimage

from difffusr.kernels.brdf import c_factor

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"no real scenes of two orbits: {FOLDER} is not there")


def scatter(values: NDArray[np.float64]) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


@pytest.mark.parametrize("side", [80, 160])
def test_scenes_agree_on_ground_that_the_fit_has_not_seen(real_tiles: list[Tile], side: int) -> None:
    """Squares of 10 and 20 km in turns: half of them fitted, the other half judged."""
    tiles = real_tiles
    row, col = np.indices(tiles[0].dn.shape[1:])
    fitted = (row // side + col // side) % 2 == 0
    found = solve([sampled(tile.dn, tile.day, TOP[tile.tile], SIZE, fitted) for tile in tiles], 240.0)
    after = [balanced(found, i, tile.dn, TOP[tile.tile], SIZE) for i, tile in enumerate(tiles)]
    moved = np.array([np.nanmean(now - tile.dn, axis=(1, 2)) for now, tile in zip(after, tiles, strict=True)])
    assert np.abs(moved.mean(axis=0)).max() <= 5
    scatters = []
    for i, j in combinations(range(len(tiles)), 2):
        judged = ~fitted & np.isfinite(tiles[i].dn[0]) & np.isfinite(tiles[j].dn[0])
        if judged.sum() < 1000:
            continue
        for band, limit in enumerate((15, 15, 15, 40)):
            before = (tiles[j].dn[band] - tiles[i].dn[band])[judged]
            now = (after[j][band] - after[i][band])[judged]
            what = f"{BANDS[band]}: {tiles[i].tile} {tiles[i].day} – {tiles[j].tile} {tiles[j].day}"
            assert abs(np.median(now)) <= limit, f"{what}: {np.median(before):.0f} → {np.median(now):.0f}"
            scatters.append((scatter(before), scatter(now)))
    first, then = np.array(scatters).T
    assert (then <= first * 1.05).all()
    assert then.sum() <= first.sum()


@pytest.fixture(scope="module")
def fields() -> dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Alberta on four dates of 2020, 31 m: DN at nadir (4, H, W), and where it is clear."""
    return {day.name: read_fields(day) for day in sorted((FOLDER / "alberta").iterdir())}


def read_fields(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    def read(name: str) -> NDArray[np.float64]:
        with rasterio.open(folder / f"{name}.tif") as file:
            return file.read().astype(np.float64)

    colours, classes = read("RGB"), read("SCL")[0]
    dn = np.stack([*(colours[i] / 255 / 2.5 * 1e4 for i in (2, 1, 0)), read("B08")[0] / 65535 * 1e4])
    azimuth = read("sunAzimuthAngles")[0] - read("viewAzimuthMean")[0]
    angles = read("sunZenithAngles")[0], read("viewZenithMean")[0], azimuth
    cloud = ndimage.binary_opening(np.isin(classes, (3, 8, 9, 10)), np.ones((3, 3)))
    clear = np.isin(classes, (4, 5, 6, 7)) & (ndimage.distance_transform_edt(~cloud) > 20)
    clear &= (colours.max(axis=0) < 255) & (colours.min(axis=0) > 0)
    return dn * np.stack([c_factor(band, *angles) for band in BANDS]), clear


@pytest.mark.parametrize(
    "days", [("2020-06-15", "2020-07-05"), ("2020-06-15", "2020-06-25", "2020-06-27", "2020-07-05")]
)
def test_what_grew_stays_grown(fields, days: tuple[str, ...]) -> None:
    """Of the differences between fields in how they changed from 15 June to 5 July, 90 % and more remain."""
    shape = fields[days[0]][1].shape
    samples = [
        sampled(
            np.where(fields[day][1], fields[day][0], np.nan),
            dt.date.fromisoformat(day),
            0,
            shape[0],
            np.ones(shape, bool),
        )
        for day in days
    ]
    found = solve(samples, 62.0)
    first, last = (fields[day] for day in (days[0], days[-1]))
    clear = first[1] & last[1]
    now = [balanced(found, days.index(day), fields[day][0], 0, shape[0]) for day in (days[0], days[-1])]
    row, col = np.indices(shape)
    square = np.where(clear, row // 26 * 100 + col // 26, -1)  # 800 m: a quarter section
    there = [number for number in np.unique(square) if number >= 0 and (square == number).sum() > 300]
    for band in range(len(BANDS)):
        grown = ndimage.median(last[0][band] - first[0][band], square, there)
        left = ndimage.median(now[1][band] - now[0][band], square, there)
        assert len(there) > 300
        assert np.std(left) >= 0.9 * np.std(grown), BANDS[band]
        assert np.polyfit(grown, left, 1)[0] >= 0.9, BANDS[band]
    # and most of what the whole landscape grew by
    assert np.median(left) >= 0.7 * np.median(grown)
