"""Indices and labels have the colours of their legend."""

from __future__ import annotations

import numpy as np
import pytest
from mapped_cubes import LAT, LON, drawn, places, tile_over

from difffusr.pipeline.readers.view.layers import ramp, rgb

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine


def test_index_is_coloured_by_its_ramp(client, stored):
    zxy = tile_over(LON, LAT, 17)
    picture = drawn(client, "ndvi", zxy, low=-0.5, high=0.5)
    row, col, sure = places(zxy)
    infrared, red = (stored.reflectance.sel(band=band).values.astype(float)[row, col] for band in ("B08", "B04"))
    seen = sure & (red > 0)
    ndvi = (infrared - red)[seen] / (infrared + red)[seen]
    described = next(one for one in client.get("/cube.json").json()["layers"] if one["name"] == "ndvi")
    expected = ramp(described["colours"])[np.round(np.clip(ndvi + 0.5, 0, 1) * 255).astype(int)]
    assert np.abs(picture[seen][:, :3].astype(int) - expected).max() <= 3  # a step of the ramp beside, by rounding
    assert described["formula"] == "(B08 − B04) / (B08 + B04)"


@pytest.mark.parametrize("layer", ["quality", "source"])
def test_labels_have_the_colours_of_their_legend(client, stored, layer):
    zxy = tile_over(LON, LAT, 17)
    picture = drawn(client, layer, zxy)
    row, col, sure = places(zxy)
    value = stored[layer].values[row, col]
    described = next(one for one in client.get("/cube.json").json()["layers"] if one["name"] == layer)
    legend = {label["value"]: rgb([label["colour"]])[0] for label in described["labels"]}
    numbers = {"quality": {1, 2, 3}, "source": {3, 4}}[layer]
    assert numbers <= set(np.unique(value[sure]).tolist())
    for number in numbers:
        assert (picture[sure & (value == number)][:, :3] == legend[number]).all()
    assert (picture[sure & (value == 0)][:, 3] == 0).all()
    if layer == "source":
        assert [label["name"] for label in described["labels"]] == ["scene-1-1", "scene-1-2", "scene-2-1", "scene-2-2"]
        assert described["labels"][2]["day"] == "2023-02-01"
