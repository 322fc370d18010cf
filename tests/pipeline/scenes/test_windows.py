"""A file seen from afar lies on the zone's lattice, whole, wherever its origin is."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from beside import SHARED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from shapely.geometry import box

from difffusr.pipeline.scenes.item import Asset, Scene
from difffusr.pipeline.scenes.windows import read_overview


def scene_of(
    path: Path, data: NDArray[Any], left: int, top: int, gsd: int, overviews: tuple[int, ...] = (), nodata: int = 0
) -> Scene:
    """A scene whose SCL is a file with these pixels."""
    profile = {
        "driver": "GTiff",
        "count": 1,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
    }
    height, width = data.shape
    with rasterio.open(
        path,
        "w",
        width=width,
        height=height,
        dtype=data.dtype,
        crs="EPSG:32632",
        transform=from_origin(left, top, gsd, gsd),
        nodata=nodata,
        **profile,
    ) as file:
        file.write(data, 1)
    if overviews:
        with rasterio.open(path, "r+") as file:
            file.build_overviews(overviews, Resampling.nearest)
    asset = Asset(str(path), gsd, 0, nodata, None, None, "GTiff")
    when = dt.datetime(2023, 6, 1, tzinfo=dt.UTC)
    return Scene(
        "one",
        "c",
        when,
        "32TPS",
        32632,
        "05.09",
        0.0,
        "local",
        box(10, 46, 11, 47),
        {},
        asset,
        None,
        None,
        None,
        None,
        None,
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gsd=st.sampled_from([10, 20, 60, 120]),
    step=st.sampled_from([60, 120]),
    left=st.integers(-3, 8000),
    top=st.integers(-3, 8000),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
)
def test_every_cell_shows_ground_at_its_place(
    tmp_path: Path, gsd: int, step: int, left: int, top: int, height: int, width: int
) -> None:
    left, top = left * 60, top * 60
    # Each pixel says where it is: its row and column of 10 m counted from the file's corner.
    y, x = np.mgrid[:height, :width]
    for axis, of in (("row", y), ("col", x)):
        scene = scene_of(tmp_path / f"{axis}.tif", (of + 1).astype(np.uint16), left, top, gsd)
        data, row, col = read_overview(scene, "SCL", step)
        assert data.shape == (
            -(-(height * gsd - top) // step) - (-top // step),
            -(-(left + width * gsd) // step) - left // step,
        )
        assert (row, col) == (-top // step, left // step)
        start, first, size = (-top, row, height) if axis == "row" else (left, col, width)
        seen = data[:, 0] if axis == "row" else data[0]
        assert (data == (seen[:, None] if axis == "row" else seen)).all()
        shown_m = start + (seen.astype(int) - 0.5) * gsd
        centres_m = (first + np.arange(len(seen)) + 0.5) * step
        whole = (centres_m - step / 2 >= start) & (centres_m + step / 2 <= start + size * gsd)
        # GDAL may fall on either pixel where a centre lies between two.
        assert (abs(shown_m - centres_m) <= gsd / 2)[whole].all()
        assert (abs(shown_m - centres_m) <= max(2 * step, gsd)).all()


def test_half_a_cell_at_the_edge_is_not_lost(tmp_path: Path) -> None:
    # 915 cells of 120 m that start amid one: as many, and a half at either end.
    scene = scene_of(tmp_path / "a.tif", np.full((915, 915), 4, np.uint8), 499980, 5200020, 120)
    data, row, col = read_overview(scene, "SCL", 120)
    assert (data.shape, row, col) == ((916, 916), -43334, 4166)
    assert data.dtype == np.uint8
    assert (data == 4).all()


def test_what_a_file_calls_nodata_is_0(tmp_path: Path) -> None:
    data = np.full((30, 30), 255, np.uint8)
    data[:15] = 5
    seen, _, _ = read_overview(scene_of(tmp_path / "a.tif", data, 600000, 5200080, 20, nodata=255), "SCL", 60)
    assert set(np.unique(seen)) == {0, 5}


def test_overviews_show_the_same_ground(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 12, (70, 70), np.uint8)
    classes = coarse.repeat(24, axis=0).repeat(24, axis=1)
    plain = scene_of(tmp_path / "a.tif", classes, 600000, 5200020, 20)
    pyramid = scene_of(tmp_path / "b.tif", classes, 600000, 5200020, 20, overviews=(2, 4, 8))
    seen, row, col = read_overview(plain, "SCL", 120)
    again, *place = read_overview(pyramid, "SCL", 120)
    assert place == [row, col]
    assert np.mean(seen == again) > 0.95


@pytest.mark.parametrize("folder", ["S2A_33TWM_20230815_0_L2A", "S2A_33TWL_20230815_0_L2A"])
def test_a_real_overview_lies_on_the_lattice(folder: str) -> None:
    file = (SHARED / "data/overviews_120m/items" / folder / "SCL.tif").resolve()
    if not file.is_file():
        pytest.skip(f"the real overviews are not at {file}")
    with rasterio.open(file) as source:
        classes, left, top = source.read(1), source.transform.c, source.transform.f
    asset = Asset(str(file), 120.0, 0, 0, None, None, "GTiff")
    when = dt.datetime(2023, 8, 15, tzinfo=dt.UTC)
    scene = Scene(
        "r",
        "c",
        when,
        "33TWM",
        32633,
        "05.09",
        0,
        "local",
        box(15, 46, 16, 47),
        {},
        asset,
        None,
        None,
        None,
        None,
        None,
    )
    data, row, col = read_overview(scene, "SCL", 120)
    assert (row * 120, col * 120) == (-top - (-top % 120), left - left % 120)
    assert data.shape == (915 + bool(top % 120), 915 + bool(left % 120))
    assert np.bincount(data.ravel(), minlength=12)[4] == pytest.approx(np.count_nonzero(classes == 4), rel=0.01)
