"""An offset flag that contradicts the pixels is noticed, and plausible ground is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from small_rasters import scene_of

from difffusr.pipeline.scenes.doubts import doubt_of_offset
from difffusr.pipeline.scenes.item import Asset, Scene

SIDE = 40


def scene(folder: Path, low: float, high: float, offset_dn: int, **changes: str) -> Scene:
    """A scene of 2.4 km whose reflectance in B02, B03 and B12 goes from low to high, DN as stored."""
    dn = np.linspace(low, high, (SIDE * 6) ** 2).reshape(SIDE * 6, SIDE * 6)
    assets = {}
    for band in ("B02", "B03", "B12"):
        path = folder / f"{band}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=SIDE * 6, width=SIDE * 6, count=1, dtype="uint16", crs="EPSG:32648",
            transform=rasterio.Affine(10, 0, 600_000, 0, -10, 1_200_000),
        ) as file:  # fmt: skip
            file.write(dn.astype(np.uint16), 1)
        assets[band] = Asset(str(path), 10, offset_dn, 0, None, None, "GTiff")
    return replace(scene_of(""), **{"assets": assets, "baseline": "05.09", "collection": "sentinel-2-l2a", **changes})  # type: ignore[arg-type]


CLEAR = np.ones((SIDE, SIDE), bool)


@pytest.mark.parametrize(("low", "high"), [(400, 400), (100, 1800), (200, 3000), (1, 900)])
def test_an_offset_taken_out_twice_is_doubted(tmp_path: Path, low: float, high: float) -> None:
    assert "removed already?" in doubt_of_offset(scene(tmp_path, low, high, -1000), CLEAR, 60)


@pytest.mark.parametrize(("low", "high"), [(1020, 1300), (1050, 4000), (1100, 9000), (1400, 5000)])
def test_an_offset_that_is_still_in_the_dn_is_doubted(tmp_path: Path, low: float, high: float) -> None:
    assert "still in?" in doubt_of_offset(scene(tmp_path, low, high, 0), CLEAR, 60)


@pytest.mark.parametrize(
    ("low", "high", "offset"),
    [(900, 4000, -1000), (1100, 1200, -1000), (20, 3000, 0), (3000, 3000, 0), (3000, 3000, -1000), (1800, 9000, 0)],
)
def test_plausible_ground_is_not(tmp_path: Path, low: float, high: float, offset: int) -> None:
    assert doubt_of_offset(scene(tmp_path, low, high, offset), CLEAR, 60) == ""


def test_only_what_a_flag_tells_is_looked_at(tmp_path: Path) -> None:
    for changes in ({"baseline": "03.01"}, {"collection": "sentinel-2-c1-l2a"}, {"baseline": "02.14"}):
        assert doubt_of_offset(scene(tmp_path, 400, 400, -1000, **changes), CLEAR, 60) == ""
    unreadable = scene(tmp_path, 400, 400, -1000)
    Path(unreadable.assets["B03"].href).unlink()
    assert doubt_of_offset(unreadable, CLEAR, 60) == ""


def test_clouds_are_not_looked_at(tmp_path: Path) -> None:
    clear = np.zeros((SIDE, SIDE), bool)
    clear[-10:] = True
    assert doubt_of_offset(scene(tmp_path, 100, 3000, -1000), clear, 60) == ""
