"""The spectrum of a place is what the cube has there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from mapped_cubes import EPSG, LAT, LON, WINDOW, client_of
from pyproj import Transformer
from random_cubes import random_cube

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.spectrum import spectrum
from difffusr.pipeline.storage.objects import Storage

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine


def test_place_belongs_to_the_zone_of_its_territory(two_zones):
    client = client_of(two_zones)
    for lon, epsg in ((101.9995, 32647), (102.0005, 32648)):
        assert client.get("/spectrum", params={"lon": lon, "lat": LAT}).json()["epsg"] == epsg
    assert [zone["name"] for zone in client.get("/cube.json").json()["zones"]] == ["47N", "48N"]


@pytest.fixture(params=["folder", "object store", "icechunk"])
def anywhere(request: pytest.FixtureRequest, storage: Storage, tmp_path: Path) -> Storage:
    """The same cube wherever cubes may be."""
    if request.param == "folder":
        return storage
    if request.param == "icechunk":
        place = Storage(f"icechunk+{tmp_path}/cube")
    else:
        place = Storage(f"s3://{request.getfixturevalue('bucket')}/cube.zarr", request.getfixturevalue("s3_options"))
    random_cube(place, {EPSG: WINDOW})
    return place


def test_spectrum_is_what_xarray_reads_there(anywhere, storage):
    said = client_of(anywhere).get("/spectrum", params={"lon": LON, "lat": LAT}).json()
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{EPSG}", always_xy=True).transform(LON, LAT)
    here = xr.open_zarr(storage.url, group=f"{EPSG}/0").sel(x=x, y=y, method="nearest")
    assert (said["epsg"], said["easting"], said["northing"]) == (EPSG, float(here.x), float(here.y))
    for step, (label, period) in enumerate(zip(("2023-01", "2023-02"), said["periods"], strict=True)):
        now = here.isel(time=step)
        assert period["label"] == label
        np.testing.assert_allclose(period["reflectance"], now.reflectance, atol=1e-6)
        red, infrared = (float(now.reflectance.sel(band=band)) for band in ("B04", "B08"))
        assert period["indices"]["ndvi"] == pytest.approx((infrared - red) / (infrared + red), abs=1e-6)
        flag = int(now.quality)
        assert period["quality"] == {"value": flag, "meaning": {1: "clear", 2: "filled", 3: "cloudy"}[flag]}
        assert period["scene"]["number"] == int(now.source)
        assert period["scene"]["id"] == f"scene-{step + 1}-{int(now.source) - 2 * step}"
    block = xr.open_zarr(storage.url, group=f"{EPSG}/0").reflectance.isel(time=0).coarsen(x=4, y=4).mean()
    np.testing.assert_allclose(said["periods"][0]["averaged"], block.sel(x=x, y=y, method="nearest"), atol=1e-6)
    ring = np.array(said["outline"])
    assert ring[:, 0].min() < LON < ring[:, 0].max()
    assert ring[:, 1].min() < LAT < ring[:, 1].max()


def test_where_nothing_was_seen_nothing_is_said(client):
    left, _, _, top = WINDOW.bounds_m(EPSG)
    back = Transformer.from_crs(f"EPSG:{EPSG}", "EPSG:4326", always_xy=True)
    lon, lat = back.transform(left + 5, top - 5)
    now = client.get("/spectrum", params={"lon": lon, "lat": lat}).json()["periods"][0]
    assert now["reflectance"] == [None] * len(BANDS)
    assert (now["quality"]["meaning"], now["scene"], now["indices"]["ndvi"]) == ("no_data", None, None)
    # The hole ends after 20 pixels, in the middle of no block of 4: all that is seen counts for the mean.
    assert now["averaged"] == [None] * len(BANDS)


@pytest.mark.parametrize(
    ("balance", "told"),
    [
        (None, None),
        ({"shift": [10, -126, 0, 8, *[0] * 3, 41, *[0] * 4]}, {"B02": -0.0126, "B04": 0.0008, "B08": 0.0041}),
        ({"shift": [0.0] * 12}, None),
        ({"gain": [1.0] * 12}, None),
        ({"shift": []}, None),
    ],
    ids=["as measured", "moved", "to nadir alone", "of an earlier table", "empty"],
)
def test_a_balanced_scene_says_by_how_much(storage, balance, told):
    cube = map_cube(Cube(storage))
    facts = {number: {**one, **({"balance": balance} if balance else {})} for number, one in cube.scenes.items()}
    for period in spectrum(replace(cube, scenes=facts), LON, LAT)["periods"]:
        assert period["scene"].get("shift") == told
