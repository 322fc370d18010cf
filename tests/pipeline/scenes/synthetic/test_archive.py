"""The made-up scenes are catalogued as an archive would."""

from __future__ import annotations

import json

import numpy as np
import pystac
import pytest
import rasterio
from shapely.geometry import Point, shape

from difffusr.pipeline.scenes.synthetic.palette import ASSETS, DATES


def test_the_later_pixels_carry_the_offset_and_the_item_says_so(scenes, catalog):
    for scene in scenes:
        item = json.loads((catalog.parent / "items" / scene.id / f"{scene.id}.json").read_text())
        later = scene.date == DATES[1][0]
        water = scene.bands["B11"][scene.scl == 6]
        assert (scene.offset_dn, item["properties"]["earthsearch:boa_offset_applied"]) == (1000 * later, not later)
        assert item["assets"]["swir16"]["raster:bands"][0]["offset"] == (-0.1 if later else 0)
        if scene.tile == "32TMT":
            assert (np.median(water) > 1000) == later


def test_the_catalogue_is_valid_stac_and_its_pixels_are_the_scenes(scenes, catalog):
    stac = pystac.Catalog.from_file(str(catalog))
    items = {item.id: item for item in stac.get_items(recursive=True)}
    assert set(items) == {scene.id for scene in scenes}
    for scene in scenes:
        item = items[scene.id]
        assert item.collection_id == "sentinel-2-l2a"
        assert set(item.assets) == {*ASSETS.values(), "scl"}
        for name, pixels in (*scene.bands.items(), ("SCL", scene.scl)):
            asset = item.assets[ASSETS.get(name, "scl")]
            assert asset.href.startswith("./")
            with rasterio.open(asset.get_absolute_href()) as raster:
                assert raster.crs.to_epsg() == scene.epsg
                assert list(raster.transform)[:6] == asset.extra_fields["proj:transform"]
                assert list(raster.shape) == asset.extra_fields["proj:shape"]
                assert raster.transform.c % 60 == raster.transform.f % 60 == raster.nodata == 0
                assert np.array_equal(raster.read(1), pixels)


def test_an_items_outline_leaves_out_the_corner_without_pixels(scenes, catalog):
    outlines = {}
    for scene in scenes:
        item = json.loads((catalog.parent / "items" / scene.id / f"{scene.id}.json").read_text())
        outlines[scene.date, scene.tile] = shape(item["geometry"])
        assert shape(item["geometry"]).bounds == pytest.approx(item["bbox"])
    whole, cut = outlines[DATES[0][0], "32TMT"], outlines[DATES[1][0], "32TMT"]
    west, south, east, north = whole.bounds
    near_corner = Point(west + 0.05 * (east - west), north - 0.05 * (north - south))
    assert whole.contains(near_corner)
    assert not cut.contains(near_corner)
