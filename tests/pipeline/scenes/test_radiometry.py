"""The same ground has the same reflectance, whichever copy of an acquisition is read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from beside import SHARED
from rasterio.transform import from_origin

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.geo.grid import PixelWindow, origin_m
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.item import Asset, Scene, scene_from_item
from difffusr.pipeline.scenes.radiometry import Stored, offset_dn
from difffusr.pipeline.scenes.windows import read_window

ITEMS = SHARED / "data" / "stac_items"

COPIES = [
    ("earthsearch_v1_sentinel-2-c1-l2a_S2B_T20EPT", "earthsearch_v1_sentinel-2-l2a_S2B_20EPT"),
    ("earthsearch_v1_sentinel-2-c1-l2a_S2B_T24MXV", "earthsearch_v1_sentinel-2-l2a_S2B_24MXV"),
]


def scene(name: str) -> Scene:
    if not ITEMS.is_dir():
        pytest.skip(f"the real STAC items are not at {ITEMS}")
    return scene_from_item(json.loads(next(ITEMS.glob(f"{name}*")).read_text()), "/data/item.json")


def stored_at(folder: Path, one: Scene, band: str, dn: np.ndarray[Any, Any]) -> Scene:
    """The scene with a file of these DN in the place of its band's, and where the band's file begins."""
    asset = one.assets[band]
    assert asset.transform is not None
    file = folder / f"{one.collection}_{band}.tif"
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "crs": f"EPSG:{one.epsg}", "nodata": 0}
    place = from_origin(asset.transform[2], asset.transform[5], asset.gsd_m, asset.gsd_m)
    with rasterio.open(file, "w", height=dn.shape[0], width=dn.shape[1], transform=place, **profile) as target:
        target.write(dn, 1)
    return dataclasses.replace(one, assets={band: dataclasses.replace(asset, href=str(file))})


def reflectance(one: Scene, band: str, size_px: int) -> np.ndarray[Any, Any]:
    asset: Asset = one.assets[band]
    assert asset.transform is not None
    side = round(size_px * asset.gsd_m / 2.5)
    left, top = round(asset.transform[2] / 2.5), round((origin_m(one.epsg) - asset.transform[5]) / 2.5)
    dn = read_window(one, band, PixelWindow(top, left, side, side)).astype(np.float64)
    return (dn + asset.offset_dn) * one.scale


@pytest.mark.parametrize(("as_produced", "harmonised"), COPIES)
@pytest.mark.parametrize("band", ["B02", "B05", "B09"])
def test_both_collections_copies_of_an_acquisition_give_equal_reflectance(
    tmp_path: Path, as_produced: str, harmonised: str, band: str
) -> None:
    one, other = scene(as_produced), scene(harmonised)
    assert (one.tile, one.baseline, one.epsg) == (other.tile, other.baseline, other.epsg)
    assert abs((one.datetime - other.datetime).total_seconds()) < 60
    assert {a.offset_dn for a in one.assets.values()} == {-1000}
    assert {a.offset_dn for a in other.assets.values()} == {0}
    truth = np.random.default_rng(0).integers(1, 9000, (12, 12), dtype=np.uint16)
    with_offset = stored_at(tmp_path, one, band, truth + np.uint16(1000))
    without = stored_at(tmp_path, other, band, truth)
    np.testing.assert_array_equal(reflectance(with_offset, band, 12), reflectance(without, band, 12))
    np.testing.assert_allclose(reflectance(without, band, 12), truth / 10_000)


@pytest.mark.parametrize(("one", "other"), COPIES)
def test_both_copies_lie_on_the_same_pixels(one: str, other: str) -> None:
    first, second = scene(one), scene(other)
    for band in BANDS:
        a, b = first.assets[band], second.assets[band]
        assert (a.gsd_m, a.shape, a.transform) == (b.gsd_m, b.shape, b.transform)
        assert a.gsd_m == GSD_M[band]


COG = Stored(
    "item i: asset red",
    "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/B04.tif?sig=SECRET",
    "GTiff",
    "sentinel-2-l2a",
    "05.09",
    None,
    None,
)


def test_what_is_known_of_a_file_decides() -> None:
    assert offset_dn(COG) == -1000
    assert offset_dn(COG._replace(baseline="03.01")) == 0
    assert offset_dn(COG._replace(href="s3://sentinel-cogs/B04.tif", flag=True)) == 0
    assert offset_dn(COG._replace(href="s3://sentinel-cogs/B04.tif", flag=False)) == -1000
    assert offset_dn(COG._replace(href="s3://eodata/B04.jp2", driver="JP2OpenJPEG", declared=-0.1)) == -1000


@pytest.mark.parametrize("change", [{"baseline": "06.00"}, {"declared": 0.0}, {"collection": "mine"}])
def test_what_is_not_known_is_an_error_without_secrets(change: dict[str, Any]) -> None:
    with pytest.raises(CatalogError, match=r"item i: asset red .*radiometry unknown") as caught:
        offset_dn(COG._replace(**change))
    assert "SECRET" not in str(caught.value)
