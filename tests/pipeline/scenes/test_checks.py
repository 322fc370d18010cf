"""The file is right, not the item; what its values mean is certain, or it is refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from small_rasters import SQUARE, scene_of

from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.ground.pixels import UNMEASURED
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.windows import read_overview, read_window

PLACE = rasterio.Affine(10, 0, 600_000, 0, -10, 1_200_000)
TRANSFORM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 1_200_000.0)


def file_of(path: Path, value: Any = 3000, dtype: str = "uint16", scale: float | None = None, **profile: Any) -> Path:
    """A file of 60 × 60 pixels of a value, but for the first, which is 7."""
    options = {"crs": "EPSG:32648", "transform": PLACE, "count": 1, "height": 60, "width": 60, **profile}
    options = {key: given for key, given in options.items() if given is not None}
    with rasterio.open(path, "w", driver="GTiff", dtype=dtype, **options) as file:
        pixels = np.full((options["height"], options["width"]), value, dtype)
        pixels[0, 0] = 7
        for band in range(1, options["count"] + 1):
            file.write(pixels, band)
        if scale is not None:
            file.scales = [scale] * options["count"]
    return path


def scene_with(path: Path, **asset: Any) -> Scene:
    one = scene_of(str(path))
    return dataclasses.replace(one, assets={"B04": dataclasses.replace(one.assets["B04"], **asset)})


def values(scene: Scene) -> tuple[int, int]:
    """The first pixel and another, read as a window and from afar, where no data is 0."""
    window = read_window(scene, "B04", SQUARE)
    afar, _, _ = read_overview(scene, "B04", 60)
    assert window.dtype == afar.dtype == np.uint16
    assert int(afar[5, 5]) == int(window[30, 30]) % UNMEASURED
    return int(window[0, 0]), int(window[30, 30])


@pytest.mark.parametrize(
    ("dtype", "value", "scale", "nodata", "declared", "right"),
    [
        ("uint16", 3000, None, 0, None, 3000),
        ("uint16", 32767, 0.0001, 0, None, 32767),
        ("int16", 3000, None, None, None, 3000),
        ("int16", -9999, None, -9999, None, UNMEASURED),
        ("int32", 40000, None, None, None, 40000),
        ("uint32", 65534, None, 0, None, 65534),
        ("float32", 3000.0, 0.0001, None, None, 3000),
        ("float32", 3000.0, None, None, 0.0001, 3000),
        ("float64", 12.0, 0.0001, None, 0.0001, 12),
        ("float32", float("nan"), 0.0001, float("nan"), None, UNMEASURED),
        ("float32", -1.0, 0.0001, -1, None, UNMEASURED),
    ],
)
def test_dn_are_read_from_any_type_that_holds_them(
    tmp_path: Path, dtype: str, value: Any, scale: float | None, nodata: Any, declared: float | None, right: int
) -> None:
    path = file_of(tmp_path / "a.tif", value, dtype, scale, nodata=nodata)
    assert values(scene_with(path, scale=declared)) == (7, right)


@pytest.mark.parametrize(
    ("dtype", "value", "scale", "declared", "said"),
    [
        ("int16", -20, None, None, "int16 with values such as -20, expected whole DN"),
        ("uint32", 70_000, None, None, "uint32 with values such as 70000"),
        ("float32", 0.31, 0.0001, None, r"float32 with values such as 0\.31"),
        ("float32", 0.31, None, 0.0001, r"float32 with values such as 0\.31"),
        ("float32", float("inf"), None, 0.0001, "with values such as inf"),
        ("float32", float("nan"), None, 0.0001, "with values such as nan"),
        ("float32", 3000.0, None, None, "holds float32, and neither the file nor its item says"),
        ("float32", 0.31, None, None, "it could be reflectance"),
        ("uint16", 3000, 2.75e-5, None, "values of scale 2.75e-05, expected 0.0001"),
        ("uint8", 30, None, None, r"holds 1 band\(s\) of uint8, expected one of uint16"),
        ("complex64", 3, None, None, r"holds 1 band\(s\) of complex64"),
    ],
)
def test_what_may_be_something_else_is_refused_by_name(
    tmp_path: Path, dtype: str, value: Any, scale: float | None, declared: float | None, said: str
) -> None:
    scene = scene_with(file_of(tmp_path / "a.tif", value, dtype, scale), scale=declared)
    for read in (lambda: read_window(scene, "B04", SQUARE), lambda: read_overview(scene, "B04", 60)):
        with pytest.raises(ReadError, match=said) as caught:
            read()
        assert "scene S2A_48QUE, B04: " in str(caught.value)
        assert "a.tif" in str(caught.value)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_file_of_several_bands_is_refused_by_name(tmp_path: Path, count: int) -> None:
    with pytest.raises(ReadError, match=rf"B04: .*a\.tif holds {count} band\(s\) of uint16"):
        read_window(scene_with(file_of(tmp_path / "a.tif", count=count)), "B04", SQUARE)


# ---- where its pixels lie -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gsd", [10.0, 20.0, 60.0, 600_000.0, 0.5])
def test_an_items_size_of_pixels_does_not_make_a_right_file_fail(tmp_path: Path, gsd: float) -> None:
    assert values(scene_with(file_of(tmp_path / "a.tif"), gsd_m=gsd)) == (7, 3000)


def test_a_file_at_another_resolution_is_refused_by_name(tmp_path: Path) -> None:
    coarse = file_of(tmp_path / "a.tif", transform=rasterio.Affine(20, 0, 600_000, 0, -20, 1_200_000))
    with pytest.raises(ReadError, match=r"B04: .*a\.tif has the transform \(20.0.*pixels of 10 m"):
        read_window(scene_with(coarse), "B04", SQUARE)
    with pytest.raises(ReadError, match=r"B04: .*a\.tif has pixels of 20 m, expected 10 m"):
        read_window(scene_with(coarse, gsd_m=20.0), "B04", SQUARE)
    afar, _, _ = read_overview(scene_with(coarse, gsd_m=20.0), "B04", 60)  # whole tiles at low resolution
    assert afar.shape == (20, 20)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("own", [None, PLACE])
def test_the_items_place_serves_where_the_file_has_no_crs(tmp_path: Path, own: Any) -> None:
    path = file_of(tmp_path / "a.tif", crs=None, transform=own)
    assert values(scene_with(path, transform=TRANSFORM, shape=(60, 60))) == (7, 3000)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("own", "said", "shape"),
    [
        (PLACE, None, None),
        (PLACE, TRANSFORM, None),
        (PLACE, TRANSFORM, (60, 61)),
        (PLACE, TRANSFORM, (30, 30)),
        (None, None, (60, 60)),
        (rasterio.Affine(10, 0, 600_060, 0, -10, 1_200_000), TRANSFORM, (60, 60)),
        (rasterio.Affine(20, 0, 600_000, 0, -20, 1_200_000), TRANSFORM, (60, 60)),
    ],
)
def test_it_does_not_serve_where_it_is_not_the_files(tmp_path: Path, own: Any, said: Any, shape: Any) -> None:
    path = file_of(tmp_path / "a.tif", crs=None, transform=own)
    with pytest.raises(ReadError, match=r"B04: .*a\.tif has CRS none, its item says EPSG:32648"):
        read_window(scene_with(path, transform=said, shape=shape), "B04", SQUARE)


@pytest.mark.parametrize("crs", ["EPSG:32647", "EPSG:4326", "EPSG:32748"])
def test_a_file_in_another_crs_is_refused_whatever_the_item_says(tmp_path: Path, crs: str) -> None:
    path = file_of(tmp_path / "a.tif", crs=crs)
    with pytest.raises(ReadError, match=f"has CRS {crs}, its item says EPSG:32648"):
        read_window(scene_with(path, transform=TRANSFORM, shape=(60, 60)), "B04", SQUARE)
