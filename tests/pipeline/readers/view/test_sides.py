"""Both sides of the map, by value: what is drawn is what a plain reading of the cube says, for every kind of layer."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from mapped_cubes import EPSG, LAT, LON, SQUARE, WINDOW, client_of, drawn, places, tile_over
from numpy.typing import NDArray
from random_cubes import random_cube

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.ground.pixels import STD_FILL
from difffusr.pipeline.readers.view.blocks import block_means, block_modes
from difffusr.pipeline.readers.view.layers import ramp, rgb
from difffusr.pipeline.storage.objects import Storage

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine

#: 2.3 m of ground a pixel at 15, 1.15 at 16, 0.57 at 17, 0.29 at 18; 4.6 at 14; 9.2 at 13, which is made of the level
#: of 5 m; 18.4 at 12.
FINE, MIDDLING, COARSE, FAR = (15, 16, 17, 18), 14, 13, 12


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A cube of two months whose labels change from pixel to pixel."""
    place = Storage(str(tmp_path_factory.mktemp("mixed") / "cube.zarr"))
    random_cube(place, {EPSG: WINDOW})
    rng = np.random.default_rng(8)
    for name, high in (("quality", 7), ("source", 5)):
        array = zarr.open_array(f"{place.url}/{EPSG}/0/{name}", mode="r+")
        labels = rng.integers(1, high, array.shape)
        clumps = np.repeat(np.repeat(rng.integers(1, high, (2, *(side // 4 for side in array.shape[1:]))), 4, 1), 4, 2)
        values = np.where(rng.random(array.shape) < 0.4, clumps, labels)
        values[..., :20, :20] = 0
        array[...] = values.astype(array.dtype)
    return place


def _most_frequent(block: NDArray[Any]) -> int:
    """One by one: the most frequent number other than 0, the smallest of those as frequent."""
    counts = Counter(int(value) for value in block.ravel() if value)
    return min(counts, key=lambda value: (-counts[value], value)) if counts else 0


def _by_blocks(values: NDArray[Any], of_block: Any) -> NDArray[Any]:
    rows, cols = (side // 4 for side in values.shape)
    return np.array(
        [[of_block(values[r * 4 : r * 4 + 4, c * 4 : c * 4 + 4]) for c in range(cols)] for r in range(rows)]
    )


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("averaged", [False, True], ids=["2.5 m", "10 m"])
@pytest.mark.parametrize("layer", ["quality", "source"])
def test_labels_of_both_sides_are_the_cube_s_and_the_most_frequent_of_sixteen(mixed, layer, averaged):
    client = client_of(mixed)
    own, halved = (
        xr.open_zarr(mixed.url, group=f"{EPSG}/{level}", mask_and_scale=False)[layer].isel(time=1).values
        for level in (0, 1)
    )
    modes = _by_blocks(own, _most_frequent)
    described = next(one for one in client.get("/cube.json").json()["layers"] if one["name"] == layer)
    legend = {label["value"]: rgb([label["colour"]])[0] for label in described["labels"]}
    for zoom in (*FINE, MIDDLING, COARSE):
        zxy = tile_over(LON, LAT, zoom)
        picture = drawn(client, layer, zxy, averaged=averaged)
        expected, size = (modes, 4) if averaged else (halved, 2) if zoom == COARSE else (own, 1)
        row, col, sure = places(zxy, size)
        assert sure.sum() > 50
        value = expected[row, col]
        np.testing.assert_array_equal(picture[sure][:, 3] > 0, value[sure] > 0)
        for number in np.unique(value[sure & (value > 0)]):
            here = picture[sure & (value == number)][:, :3]
            assert (here == legend[int(number)]).all(), (zoom, number)
    # So far out that a pixel of the map is larger than 10 m, both sides are the same.
    far = tile_over(LON, LAT, FAR)
    assert (drawn(client, layer, far) == drawn(client, layer, far, averaged=True)).all()


def _dn(mixed: Storage, band: str, averaged: bool) -> NDArray[np.float64]:
    own = xr.open_zarr(mixed.url, group=f"{EPSG}/0", mask_and_scale=False).reflectance.sel(band=band)[1].values
    if not averaged:
        return np.where(own == 0, np.nan, own)
    return _by_blocks(own, lambda block: block[block > 0].mean() if block.any() else np.nan)


@pytest.mark.parametrize("averaged", [False, True], ids=["2.5 m", "10 m"])
@pytest.mark.parametrize("layer", ["true-colour", "B11", "ndvi", "nbr"])
def test_colours_and_indices_of_both_sides_are_of_the_pixel_and_of_means_of_sixteen(mixed, layer, averaged):
    client = client_of(mixed)
    described = next(one for one in client.get("/cube.json").json()["layers"] if one["name"] == layer)
    bands = {band: _dn(mixed, band, averaged) * 1e-4 for band in described["bands"]}
    low, high = (-0.5, 0.5) if described["index"] else (0.1, 0.6)
    for zoom in FINE:
        zxy = tile_over(LON, LAT, zoom)
        picture = drawn(client, layer, zxy, low=low, high=high, averaged=averaged)
        row, col, sure = places(zxy, 4 if averaged else 1)
        values = [bands[band][row, col] for band in described["bands"]]
        seen = sure & np.isfinite(values[0])
        if described["index"]:
            index = (values[0] - values[1]) / (values[0] + values[1])
            step = np.clip((index[seen] - low) / (high - low), 0, 1) * 255
            colours = ramp(described["colours"]).astype(int)
            nearby = [colours[np.clip(np.round(step + off).astype(int), 0, 255)] for off in (-0.55, 0, 0.55)]
            found = picture[seen][:, :3].astype(int)
            assert np.min([np.abs(found - one).max(axis=1) for one in nearby], axis=0).max() <= 1, zoom
        else:
            expected = np.clip((np.stack(values, -1)[seen] - low) / (high - low), 0, 1) * 255
            assert np.abs(picture[seen][:, :3] - expected).max() <= 0.6, zoom
    far = tile_over(LON, LAT, FAR)
    assert (drawn(client, layer, far) == drawn(client, layer, far, averaged=True)).all()


@pytest.mark.parametrize(
    ("shape", "factor"), [((8, 12), 4), ((9, 10), 4), ((300, 7), 3), ((6, 6), 2), ((5, 5), 1), ((3, 2), 8)]
)
def test_blocks_hold_what_counting_one_by_one_finds(shape, factor):
    rng = np.random.default_rng(sum(shape))
    values = rng.integers(0, 4, shape).astype(np.uint16)
    modes, means = block_modes(values, factor, 0), block_means(np.stack([values, values * 9]), factor, 0)
    assert modes.shape == means.shape[1:] == tuple(-(-side // factor) for side in shape)
    for row, col in np.ndindex(modes.shape):
        block = values[row * factor : (row + 1) * factor, col * factor : (col + 1) * factor]
        assert modes[row, col] == _most_frequent(block)
        data = block[block > 0]
        assert means[:, row, col].tolist() == [round(k * data.mean()) if data.size else 0 for k in (1, 9)]


def test_blocks_of_another_fill_value_leave_it_out():
    values = np.full((4, 4), 65535, np.uint16)
    assert block_means(values, 4, 65535).tolist() == block_modes(values, 4, 65535).tolist() == [[65535]]
    values[1, 2] = 0
    assert block_means(values, 4, 65535).tolist() == block_modes(values, 4, 65535).tolist() == [[0]]


def test_every_layer_says_whether_a_scene_has_it(client):
    for layer in client.get("/cube.json").json()["layers"]:
        assert layer["scene"] == (layer["name"] in BANDS or layer["kind"] == "colour" or layer["index"])


@pytest.mark.parametrize("averaged", [False, True], ids=["2.5 m", "10 m"])
def test_uncertainty_of_both_sides_is_of_the_pixel_and_the_mean_of_sixteen(tmp_path, averaged):
    place = Storage(str(tmp_path / "cube.zarr"))
    random_cube(place, {EPSG: SQUARE}, months=(2,), samples=3)
    client = client_of(place)
    std = xr.open_zarr(place.url, group=f"{EPSG}/0", mask_and_scale=False).reflectance_std.sel(
        band=["B04", "B03", "B02"]
    )
    own = np.where(std[0].values == STD_FILL, np.nan, std[0].values * std.attrs["scale_factor"])
    whole = np.isfinite(own).all(axis=0)
    if averaged:
        own = own.reshape(3, SQUARE.height // 4, 4, SQUARE.width // 4, 4).mean(axis=(2, 4))
        whole = np.isfinite(own).all(axis=0)
    described = next(one for one in client.get("/cube.json").json()["layers"] if one["name"] == "uncertainty")
    colours, high = ramp(described["colours"]).astype(int), float(np.nanmax(own))
    for zoom in (15, 17):
        zxy = tile_over(LON, LAT, zoom)
        picture = drawn(client, "uncertainty", zxy, low=0, high=high, averaged=averaged)
        row, col, sure = places(zxy, 4 if averaged else 1, window=SQUARE)
        here = sure & whole[row, col]
        assert here.sum() > 5_000
        step = own.mean(axis=0)[row, col][here] / high * 255
        nearby = [colours[np.clip(np.round(step + off).astype(int), 0, 255)] for off in (-0.6, 0, 0.6)]
        found = picture[here][:, :3].astype(int)
        assert np.min([np.abs(found - one).max(axis=1) for one in nearby], axis=0).max() <= 1, zoom
