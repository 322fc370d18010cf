"""Tiles show the pixels that lie there, across levels and zones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from mapped_cubes import BORDER, EPSG, LAT, LON, SQUARE, WINDOW, client_of, drawn, places, tile_over
from numpy.typing import NDArray

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine


def test_tile_shows_the_pixels_that_lie_there(client, stored):
    zxy = tile_over(LON, LAT, 17)
    picture = drawn(client, "true-colour", zxy, low=0.1, high=0.5)
    row, col, sure = places(zxy)
    assert sure.sum() > 40_000
    dn = stored.reflectance.sel(band=["B04", "B03", "B02"]).values[:, row, col]
    expected = np.clip((dn * 1e-4 - 0.1) / 0.4, 0, 1) * 255
    seen = dn.min(axis=0) > 0
    np.testing.assert_array_equal(picture[sure][:, 3] > 0, seen[sure])
    difference = picture[..., :3].transpose(2, 0, 1) - expected
    assert np.abs(difference[:, sure & seen]).max() <= 0.51


def test_outside_of_the_cube_and_where_nothing_was_seen_is_transparent(client, stored):
    zxy = tile_over(LON, LAT, 15)
    picture = drawn(client, "true-colour", zxy)
    assert (picture[..., 3] == 0).any()
    assert (picture[..., 3] == 255).any()
    assert client.get("/tiles/true-colour/2023-02/15/3/5.png").status_code == 204


@pytest.mark.parametrize("overviews", [True, False])
def test_ten_metres_are_means_of_sixteen_pixels(storage, flat, overviews):
    place, window = (storage, WINDOW) if overviews else (flat, SQUARE)
    client, zxy = client_of(place), tile_over(LON, LAT, 17)
    picture = drawn(client, "B8A", zxy, low=0, high=0.6, averaged=True)
    row, col, sure = places(zxy, 4, window=window)
    dn = xr.open_zarr(place.url, group=f"{EPSG}/0", mask_and_scale=False).reflectance.sel(band="B8A")[-1].values
    blocks = np.where(dn == 0, np.nan, dn).reshape(window.height // 4, 4, window.width // 4, 4)
    mean = _mean(blocks)
    expected = (np.nan_to_num(mean) * 1e-4 / 0.6 * 255)[row, col]
    seen = sure & np.isfinite(mean)[row, col]
    assert np.abs(picture[..., 0] - expected)[seen].max() <= 0.55
    own = drawn(client, "B8A", zxy, low=0, high=0.6)
    assert own[..., 0][seen].std() > 2 * picture[..., 0][seen].std()


def _mean(blocks: NDArray[Any]) -> NDArray[Any]:
    count = np.isfinite(blocks).sum(axis=(1, 3))
    return np.divide(np.nansum(blocks, axis=(1, 3)), count, out=np.full(count.shape, np.nan), where=count > 0)


def test_every_layer_can_be_drawn_and_every_period_is_another(client):
    said = client.get("/cube.json").json()
    assert [period["label"] for period in said["periods"]] == ["2023-01", "2023-02"]
    zxy = tile_over(LON, LAT, said["zooms"][0])
    pictures = {layer["name"]: drawn(client, layer["name"], zxy).tobytes() for layer in said["layers"]}
    assert len(pictures) == len(set(pictures.values())) == 27
    assert drawn(client, "true-colour", zxy, "2023-01").tobytes() != pictures["true-colour"]


def test_zones_meet_in_one_map(two_zones):
    client = client_of(two_zones)
    zxy = tile_over(102.0, LAT, 15)
    picture = drawn(client, "B05", zxy, "2023-01", low=0, high=0.6)
    shown, found = picture[..., 0].astype(float), {}
    for epsg, window in BORDER.items():
        row, col, sure = places(zxy, epsg=epsg, window=window)
        dn = xr.open_zarr(two_zones.url, group=f"{epsg}/0", mask_and_scale=False).reflectance.sel(band="B05")[0].values
        own = np.abs(shown - dn[row, col] * 1e-4 / 0.6 * 255) <= 0.51
        found[epsg] = sure & (dn[row, col] > 0), own
    (in_47, own_47), (in_48, own_48) = found.values()
    assert (own_47 | own_48)[in_47 & in_48].all()
    for here, own, there in ((in_47, own_47, in_48), (in_48, own_48, in_47)):
        alone = here & ~_reached(there)
        assert alone.sum() > 500
        assert own[alone].all()


def _reached(sure: NDArray[Any]) -> NDArray[Any]:
    """The box of what a zone reaches of a tile, with a margin."""
    rows, cols = np.flatnonzero(sure.any(axis=1)), np.flatnonzero(sure.any(axis=0))
    box = np.zeros_like(sure)
    box[max(rows[0] - 8, 0) : rows[-1] + 8, max(cols[0] - 8, 0) : cols[-1] + 8] = True
    return box


def test_range_holds_what_the_view_shows_but_for_its_extremes(client, stored):
    west, south, east, north = client.get("/cube.json").json()["zones"][0]["extent"]
    answer = client.get(
        "/range/B11/2023-02", params={"west": west, "south": south, "east": east, "north": north}
    ).json()
    dn = stored.reflectance.sel(band="B11").values
    low, high = np.percentile(dn[dn > 0] * 1e-4, (2, 98))
    assert answer["low"] == pytest.approx(low, abs=0.01)
    assert answer["high"] == pytest.approx(high, abs=0.01)
