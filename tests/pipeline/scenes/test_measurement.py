"""What of a file's DN is a measurement, by value: the table of `scenes.measurement`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from small_rasters import scene_of

from difffusr.kernels.bands import GROUPS, GSD_M
from difffusr.pipeline.geo.grid import PixelWindow, origin_m
from difffusr.pipeline.ground.pixels import UNMEASURED, Quality
from difffusr.pipeline.scenes import ChipRules
from difffusr.pipeline.scenes.chip import Chip, read_chip
from difffusr.pipeline.scenes.item import Asset, Scene
from difffusr.pipeline.scenes.measurement import measured

SIDE = 20  # 60 m pixels of the ground below: 1.2 km


def bands(dn: int = 3000) -> dict[int, NDArray[np.uint16]]:
    return {gsd: np.full((len(GROUPS[gsd]), *(SIDE * 60 // gsd,) * 2), dn, np.uint16) for gsd in GROUPS}


def classes(value: int = 4) -> NDArray[np.uint16]:
    return np.full((SIDE * 3, SIDE * 3), value, np.uint16)


def east(gsd: int, metres: int = 600) -> tuple[slice, slice]:
    return slice(None), slice(metres // gsd, None)


def test_plain_ground_is_measured_everywhere() -> None:
    raw = bands()
    dn, valid = measured(raw, classes())
    assert all((dn[gsd] == raw[gsd]).all() and valid[gsd].all() for gsd in GROUPS)


@pytest.mark.parametrize("garbage", [0, 1, 7, 3000, 64500, UNMEASURED])
@pytest.mark.parametrize("metres", [600, 580, 340])
def test_class_0_is_no_data_whatever_the_dn(garbage: int, metres: int) -> None:
    raw, scl = bands(), classes()
    scl[east(20, metres)] = 0
    for gsd in GROUPS:
        at = -(-metres // gsd) if metres % 60 > 30 or gsd != 60 else metres // 60
        raw[gsd][:, :, at:] = garbage
    dn, valid = measured(raw, scl)
    for gsd in (10, 20):
        assert not valid[gsd][east(gsd, metres)].any()
        assert valid[gsd][:, : metres // gsd].all()
    for gsd in GROUPS:
        assert set(np.unique(dn[gsd])) == {0, 3000}
        assert (dn[gsd] > 0).all(axis=0).sum() == valid[gsd].sum()


@pytest.mark.parametrize("zeros", [("B09",), ("B11", "B12"), ("B09", "B11", "B12"), ("B04",), ("B02", "B8A", "B01")])
@pytest.mark.parametrize("scl", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
def test_dn_0_amid_data_is_the_least_reflectance(zeros: tuple[str, ...], scl: int) -> None:
    raw = bands(200)
    for gsd, names in GROUPS.items():
        for number, name in enumerate(names):
            if name in zeros:
                raw[gsd][number][east(gsd)] = 0
    dn, valid = measured(raw, classes(scl))
    for gsd, names in GROUPS.items():
        assert valid[gsd].all()
        for number, name in enumerate(names):
            assert (dn[gsd][number][east(gsd)] == (1 if name in zeros else 200)).all()
            assert (dn[gsd][number][:, : 600 // gsd] == 200).all()


@pytest.mark.parametrize("scl", [1, 12, 255, None])
def test_dn_0_without_a_class_of_the_ground_is_no_data(scl: int | None) -> None:
    raw = bands(200)
    raw[20][2, 30:33, 30:33] = 0
    _, valid = measured(raw, None if scl is None else classes(scl))
    assert (~valid[20]).sum() == 9
    assert valid[10].all()
    assert valid[60].all()


@pytest.mark.parametrize("dn", [0, 1])
@pytest.mark.parametrize("scl", [4, 6, None])
def test_where_no_band_has_more_than_1_there_is_no_data(dn: int, scl: int | None) -> None:
    raw = bands()
    for gsd in GROUPS:
        raw[gsd][:, *east(gsd)] = dn
    out, valid = measured(raw, None if scl is None else classes(scl))
    for gsd in GROUPS:
        assert not valid[gsd][east(gsd)].any()
        assert valid[gsd][:, : 600 // gsd].all()
        assert not out[gsd][:, *east(gsd)].any()


@pytest.mark.parametrize("nothing", ["class 0", "DN 0"])
@pytest.mark.parametrize("band", ["B02", "B05", "B09"])
def test_dn_1_at_a_swaths_edge_is_no_data_and_farther_inside_is_dark(nothing: str, band: str) -> None:
    raw, scl = bands(), classes()
    for gsd in GROUPS:
        raw[gsd][:, *east(gsd, 900)] = 0
    if nothing == "class 0":
        scl[east(20, 900)] = 0
    gsd = int(GSD_M[band])
    place = GROUPS[gsd].index(band)
    raw[gsd][place, :, (900 - 60) // gsd : 900 // gsd] = 1
    raw[gsd][place, :, 300 // gsd : 360 // gsd] = 1
    dn, valid = measured(raw, scl)
    assert not valid[gsd][:, (900 - 60) // gsd : 900 // gsd].any()
    assert valid[gsd][:, : (900 - 60) // gsd].all()
    assert (dn[gsd][place, :, 300 // gsd : 360 // gsd] == 1).all()


@pytest.mark.parametrize("gsd", [10, 20, 60])
@pytest.mark.parametrize("scl", [4, 9, None])
def test_a_saturated_pixel_is_no_data_and_its_neighbours_stay(gsd: int, scl: int | None) -> None:
    raw = bands()
    raw[gsd][1, 7, 8] = UNMEASURED
    _, valid = measured(raw, None if scl is None else classes(scl))
    assert np.argwhere(~valid[gsd]).tolist() == [[7, 8]]
    assert all(valid[other].all() for other in GROUPS if other != gsd)


def test_one_lost_pixel_of_the_classification_does_not_cost_a_pixel_of_60_m() -> None:
    scl = classes()
    scl[31, 31] = 0
    _, valid = measured(bands(), scl)
    assert valid[60].all()
    assert np.argwhere(~valid[20]).tolist() == [[31, 31]]
    assert (~valid[10]).sum() == 4


# ---- from files -----------------------------------------------------------------------------------------------------

LEFT, TOP = 600_000, 1_200_000


def written(folder: Path, offset_dn: int = 0, nodata: dict[str, int] | None = None, **dn: NDArray[np.uint16]) -> Scene:
    """A scene of 1.2 km with these bands (and SCL), the others DN 3000."""
    folder.mkdir(exist_ok=True)
    assets: dict[str, Asset] = {}
    for name, gsd in {**GSD_M, "SCL": 20}.items():
        size = 1200 // gsd
        pixels = dn.get(name, np.full((size, size), 4 if name == "SCL" else 3000, np.uint16))
        transform = rasterio.Affine(gsd, 0, LEFT, 0, -gsd, TOP)
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", height=size, width=size, count=1, dtype="uint16",
            crs="EPSG:32648", transform=transform, nodata=(nodata or {}).get(name),
        ) as file:  # fmt: skip
            file.write(pixels, 1)
        offset = 0 if name == "SCL" else offset_dn
        assets[name] = Asset(str(folder / f"{name}.tif"), gsd, offset, 0, None, None, "GTiff")
    scl = assets.pop("SCL")
    return replace(scene_of("", folder.name), assets=assets, scl=scl)


def chip_of(*scenes: Scene) -> Chip:
    window = PixelWindow(round((origin_m(32648) - TOP) / 2.5), round(LEFT / 2.5), 480, 480)
    return read_chip(window, scenes, ChipRules())


def half(gsd: int, west: int, rest: int) -> NDArray[np.uint16]:
    out = np.full((1200 // gsd, 1200 // gsd), west, np.uint16)
    out[east(gsd)] = rest
    return out


def test_a_second_scene_shows_what_the_first_has_no_data_of(tmp_path: Path) -> None:
    garbage = {name: half(gsd, 3000, 64500) for name, gsd in GSD_M.items()}
    first = written(tmp_path / "a", SCL=half(20, 4, 0), **garbage)
    alone, filled = chip_of(first), chip_of(first, written(tmp_path / "b"))
    assert (alone.quality[:, :60] == Quality.CLEAR).all()
    assert not alone.quality[:, 60:].any()
    assert max(dn.max() for dn in alone.dn.values()) == 3000
    assert (filled.quality[:, 60:] == Quality.FILLED).all()
    assert (filled.source[:, 60:] == 2).all()


@pytest.mark.parametrize("offset", [0, -1000])
def test_a_dark_lake_is_clear_and_stored_as_1(tmp_path: Path, offset: int) -> None:
    water = {name: half(gsd, 3000, 0 if name in ("B09", "B11", "B12") else 1200) for name, gsd in GSD_M.items()}
    chip = chip_of(written(tmp_path / "a", offset, SCL=half(20, 4, 6), **water))
    assert (chip.quality == Quality.CLEAR).all()
    assert (chip.dn[20][GROUPS[20].index("B11"), :, 30:] == 1).all()
    assert (chip.dn[10][GROUPS[10].index("B04"), :, 60:] == 1200 + offset).all()


@pytest.mark.parametrize("tags", [{}, {"B04": 0}, dict.fromkeys(GSD_M, 0), {"B05": 777, "SCL": 0}, {"B05": 777}])
def test_nodata_tags_may_differ_from_band_to_band(tmp_path: Path, tags: dict[str, int]) -> None:
    """0 means the same with and without a tag; another value is no data, also where the classification sees ground."""
    b04, b05 = half(10, 3000, 0), half(20, 3000, 777)
    chip = chip_of(written(tmp_path / "a", nodata=tags, B04=b04, B05=b05))
    lost = tags.get("B05") == 777
    assert (chip.quality[:, 60:] == (Quality.NO_DATA if lost else Quality.CLEAR)).all()
    assert (chip.quality[:, :60] == Quality.CLEAR).all()
    assert (chip.dn[10][GROUPS[10].index("B04"), :, 60:] == (0 if lost else 1)).all()
