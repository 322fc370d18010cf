"""Factors between nodes: exact at them, straight between, constant beyond; and what they do to real scenes."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from beside import SHARED
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.scenes.granule import FactorField, Granule, View, read_granule

LEFT, TOP, STEP = 499_980.0, 5_200_020.0, 5_000.0


def field(values: NDArray[np.floating]) -> FactorField:
    return FactorField(LEFT, TOP, STEP, values.astype(np.float32))


def at_nodes(gsd_m: float, rows: int, columns: int) -> tuple[float, float, float, float]:
    """Bounds of a window of which a pixel's centre lies on every node."""
    half = gsd_m / 2
    return LEFT - half, TOP - (rows - 1) * STEP - half, LEFT + (columns - 1) * STEP + half, TOP + half


@pytest.mark.parametrize("gsd_m", [10, 20, 50, 100, 2.5, 5000])
@pytest.mark.parametrize("shape", [(2, 2), (3, 4), (1, 5), (4, 1), (1, 1)])
def test_a_pixel_on_a_node_has_its_value_to_the_bit(gsd_m: float, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(3).uniform(0.9, 1.1, shape).astype(np.float32)
    west, _, east, north = at_nodes(gsd_m, *shape)
    stride = round(STEP / gsd_m)
    for row in range(shape[0]):  # a strip a row: the whole would be large
        y = north - row * STEP
        strip = field(values).on((west, y - gsd_m, east, y), gsd_m)
        assert strip.dtype == np.float32
        assert np.array_equal(strip[0, ::stride], values[row])


@pytest.mark.parametrize("gsd_m", [10, 20, 60, 120])
@pytest.mark.parametrize("moved", [(0.0, 0.0), (60.0, -60.0), (-3_000.0, 4_980.0), (107_000.0, -106_000.0)])
def test_a_plane_stays_a_plane_and_ends_level(gsd_m: int, moved: tuple[float, float]) -> None:
    down, across = np.mgrid[:23, :23]
    plane = 1 + 0.002 * across - 0.001 * down
    west, north = LEFT + moved[0], TOP + moved[1]
    found = field(plane).on((west, north - 6_000, west + 4_800, north), gsd_m)
    assert found.shape == (6_000 // gsd_m, 4_800 // gsd_m)
    x = west + (np.arange(found.shape[1]) + 0.5) * gsd_m
    y = north - (np.arange(found.shape[0]) + 0.5) * gsd_m
    x, y = np.clip((x - LEFT) / STEP, 0, 22), np.clip((TOP - y) / STEP, 0, 22)
    np.testing.assert_allclose(found, 1 + 0.002 * x[None] - 0.001 * y[:, None], rtol=1e-6)


@pytest.mark.parametrize(
    ("place", "node"),
    [((-9e5, 9e5), (0, 0)), ((9e5, 9e5), (0, 2)), ((-9e5, -9e5), (1, 0)), ((9e5, -9e5), (1, 2)), ((-600, 600), (0, 0))],
)
def test_beyond_the_corners_is_the_corners_value(place: tuple[float, float], node: tuple[int, int]) -> None:
    values = np.arange(6.0).reshape(2, 3) / 7 + 1
    west, north = LEFT + place[0], TOP + place[1]
    assert (field(values).on((west, north - 600, west + 600, north), 60) == np.float32(values[node])).all()


def test_between_nodes_no_value_leaves_their_range() -> None:
    values = np.random.default_rng(5).uniform(0.8, 1.2, (4, 4)).astype(np.float32)
    found = field(values).on((LEFT, TOP - 15_000, LEFT + 15_000, TOP), 60)
    assert values.min() <= found.min() < found.max() <= values.max()
    corner = found[:83, :83]  # between the first four nodes
    assert values[:2, :2].min() <= corner.min() < corner.max() <= values[:2, :2].max()


def test_parts_of_a_window_are_those_of_the_whole() -> None:
    """Chips see the same factor where they overlap."""
    window = PixelWindow(-1_990_000, 201_600, 1536, 1536)
    part = PixelWindow(window.row + 384, window.col + 768, 384, 768)
    values = field(np.random.default_rng(9).uniform(0.9, 1.1, (23, 23)))
    for gsd_m in (10, 20, 60):
        step = round(gsd_m / 2.5)
        whole, own = (values.on(one.bounds_m(32633), gsd_m) for one in (window, part))
        row, col = 384 // step, 768 // step
        assert np.array_equal(own, whole[row : row + len(own), col : col + own.shape[1]])


@pytest.mark.parametrize("values", [np.ones(4), np.ones((0, 3)), np.array([[1, np.nan]]), np.array([[np.inf]])])
def test_what_is_no_field_is_refused(values: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="a factor field needs finite"):
        field(values)


def test_a_granules_field_has_its_factors_at_its_nodes() -> None:
    down, across = np.mgrid[:5, :5]
    sun = View(40 + 0.1 * down, np.full((5, 5), 150.0))
    view = View(2.0 + across, np.full((5, 5), 100.0))
    granule = Granule(32633, LEFT, TOP, STEP, sun, {"B08": (view,)})
    found = granule.field("B08").on(at_nodes(STEP, 5, 5), STEP)
    assert np.array_equal(found, granule.factors("B08").astype(np.float32))
    assert np.array_equal(
        granule.field("B08", 45.0).on(at_nodes(STEP, 5, 5), STEP), granule.factors("B08", 45.0).astype(np.float32)
    )
    assert (granule.field("B02").on(at_nodes(STEP, 5, 5), STEP) == 1).all()


BALANCE, OVERVIEWS = SHARED / "data" / "balance", SHARED / "data" / "overviews_120m"


def pixels(item: str, name: str) -> NDArray[np.float64]:
    here = BALANCE / "tiles_120m" / item / f"{name}.jp2"
    with rasterio.open(here if here.exists() else OVERVIEWS / "items" / item / f"{name}.tif") as file:
        found: NDArray[np.float64] = file.read(1).astype(np.float64)
    return found


def granule_of(item: str) -> Granule:
    return read_granule((BALANCE / "granules" / f"L2A_N0509_{item}.xml.gz").read_bytes(), item)


def clear(item: str) -> NDArray[np.bool_]:
    """Land and water that are 600 m or more from cloud and its shadow."""
    classes = pixels(item, "SCL")
    away: NDArray[np.float64] = distance_transform_edt(~np.isin(classes, (3, 8, 9, 10))) * 120
    return np.isin(classes, (4, 5, 6, 7)) & (away > 600)


@pytest.mark.skipif(not OVERVIEWS.is_dir() or not BALANCE.is_dir(), reason=f"no real scenes: {BALANCE} is not there")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("tile", "band", "before", "at_most"),
    [("33TWM", "B08", 262, 100), ("33TWM", "B04", 59, 45), ("33TWL", "B08", 203, 30), ("33TWM", "B03", 71, 45)],
)
def test_the_angles_alone_explain_most_of_what_two_orbits_differ_by(
    tile: str, band: str, before: int, at_most: int
) -> None:
    """13 and 15 August 2023; in the visible haze remains, which is no matter of angles."""
    items = (f"S2B_{tile}_20230813_0_L2A", f"S2A_{tile}_20230815_0_L2A")
    first, second = (pixels(item, band) for item in items)
    both = clear(items[0]) & clear(items[1]) & (first > 0) & (second > 0)
    granules = [granule_of(item) for item in items]
    left, top = granules[0].left, granules[0].top
    factors = [own.field(band).on((left, top - 915 * 120, left + 915 * 120, top), 120) for own in granules]
    assert np.median((second - first)[both]) == pytest.approx(before, abs=6)
    after = float(np.median((second * factors[1] - first * factors[0])[both]))
    assert 0 < after <= at_most
