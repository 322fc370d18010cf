"""The same ground has the same reflectance, whichever copy of an acquisition is read."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from stac_items import ES, ES_C1, PC, item, needs_items

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.geo.grid import PixelWindow, origin_m
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.item import Asset, Scene, scene_from_item
from difffusr.pipeline.scenes.radiometry import Stored, offset_dn
from difffusr.pipeline.scenes.windows import read_window

COPIES = [
    ("earthsearch_v1_sentinel-2-c1-l2a_S2B_T20EPT", "earthsearch_v1_sentinel-2-l2a_S2B_20EPT"),
    ("earthsearch_v1_sentinel-2-c1-l2a_S2B_T24MXV", "earthsearch_v1_sentinel-2-l2a_S2B_24MXV"),
]


def scene(name: str) -> Scene:
    return scene_from_item(item(name), "/data/item.json")


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


@needs_items
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


@needs_items
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


# ---- items of every provider ----------------------------------------------------------------------------------------


def offsets(one: dict[str, Any]) -> set[int]:
    return {asset.offset_dn for asset in scene_from_item(one, "/data/item.json").assets.values()}


def changed(
    name: str, *, bucket: tuple[str, str] | None = None, declared: float | None = None, **properties: Any
) -> dict[str, Any]:
    one = item(name)
    if declared is not None:
        for asset in one["assets"].values():
            asset["raster:offset"] = declared
    for key, value in properties.items():
        prefix, _, rest = key.partition("_")
        one["properties"][f"{prefix}:{rest}"] = value
    one["properties"] = {key: value for key, value in one["properties"].items() if value is not None}
    baseline = properties.get("s2_processing_baseline") or properties.get("processing_version")
    if baseline:  # the product's name says the same
        for place, key in ((one, "id"), (one["properties"], "s2:product_uri")):
            place[key] = re.sub(r"_N\d{4}_", f"_N{baseline.replace('.', '')}_", place.get(key, ""))
    if bucket:
        for asset in one["assets"].values():
            asset["href"] = asset["href"].replace(*bucket)
    return one


MIRROR = ("sentinel-cogs.s3.us-west-2.amazonaws.com", "mirror.example.org")


@needs_items
@pytest.mark.parametrize(
    ("one", "offset"),
    [
        (lambda: changed(ES, earthsearch_boa_offset_applied=True), 0),
        (lambda: changed(ES, earthsearch_boa_offset_applied=False), -1000),
        (lambda: changed(ES, s2_processing_baseline="03.01", earthsearch_boa_offset_applied=False), 0),
        (lambda: changed(ES, s2_processing_baseline="04.00", earthsearch_boa_offset_applied=False), -1000),
        (lambda: changed(ES, bucket=MIRROR), 0),
        (lambda: changed(PC, s2_processing_baseline="03.00"), 0),
        (lambda: changed(PC, s2_processing_baseline="04.00"), -1000),
        (lambda: changed(PC, s2_processing_baseline="05.11"), -1000),
        (lambda: changed("cdse_v1_S2B_T36NYH", declared=0, processing_version="02.14"), 0),
        # Taken from the product's name.
        (lambda: changed("cdse_v1_S2B_T36NYH", processing_version=None), -1000),
        # An old acquisition reprocessed for Collection 1: not the date decides.
        (lambda: item("cdse_v1_S2B_T36NYH"), -1000),
        (lambda: changed(ES_C1, bucket=("e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com", "mirror")), -1000),
    ],
)
def test_offsets_follow_place_collection_and_baseline(one: Callable[[], dict[str, Any]], offset: int) -> None:
    assert offsets(one()) == {offset}


@needs_items
def test_the_jp2_of_earth_search_keep_the_offset_that_its_cogs_have_lost() -> None:
    both = item(ES)
    assert offsets(both) == {0}
    originals = {**both, "assets": {key: value for key, value in both["assets"].items() if key.endswith("-jp2")}}
    assert offsets(originals) == {-1000}
    mixed = copy.deepcopy(both)
    del mixed["assets"]["red"]
    scene = scene_from_item(mixed, "/data/item.json")
    assert (scene.assets["B04"].offset_dn, scene.assets["B03"].offset_dn) == (-1000, 0)


@needs_items
@pytest.mark.parametrize(
    ("one", "said"),
    [
        (lambda: changed(ES, s2_processing_baseline="99.99"), "baseline 99.99"),
        (lambda: changed(ES, s2_processing_baseline="06.00"), "baseline 06.00"),
        (lambda: changed(ES, earthsearch_boa_offset_applied=None), "boa_offset_applied absent"),
        (lambda: changed(ES, bucket=MIRROR, earthsearch_boa_offset_applied=None), "bucket none known"),
        (lambda: {**item(ES), "collection": "my-mosaics"}, "collection my-mosaics"),
        (lambda: changed(PC, s2_processing_baseline="04.00", bucket=("sentinel2l2a01", "another")), "bucket another"),
        (
            lambda: changed(
                PC,
                s2_processing_baseline=None,
                s2_product_uri="S2A_MSIL2A_20230824T100031_N9999_R122_T06VVN_20240101T000000",
            ),
            "baseline 99.99",
        ),
        (lambda: changed(PC, s2_processing_baseline=None, s2_product_uri=None), "processing baseline is unknown"),
    ],
)
def test_unknown_radiometry_is_an_error_that_names_the_item(one: Callable[[], dict[str, Any]], said: str) -> None:
    with pytest.raises(CatalogError) as caught:
        offsets(one())
    assert said in str(caught.value)
    assert one()["id"] in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_items
def test_a_raster_offset_that_contradicts_the_baseline_is_an_error() -> None:
    one = item("cdse_v1_S2C_T55WFR")
    one["assets"]["B04_10m"]["raster:offset"] = 0
    with pytest.raises(CatalogError, match=r"B04_10m.*raster offset 0\.0, expected a raster offset of -0\.1"):
        offsets(one)
