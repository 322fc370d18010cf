"""Both sides of the map of a cube of one CRS, in metres and in degrees: labels of blocks that stand for 10 m."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from continental import continent_config, publish_continent
from mapped_cubes import LAT, LON, client_of, drawn, tile_over
from numpy.typing import NDArray
from pyproj import Transformer
from scened_cubes import scened_cube

from difffusr.pipeline.readers.view.blocks import block_means, block_modes
from difffusr.pipeline.readers.view.layers import rgb
from difffusr.pipeline.storage.objects import Storage

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return scened_cube(tmp_path_factory.mktemp("source"))[0]


@pytest.fixture(
    scope="module", params=[("EPSG:3857", None), ("EPSG:4326", None), ("EPSG:32647", 5.0)], ids=lambda one: one[0]
)
def derived(request: pytest.FixtureRequest, source: Storage, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    crs, resolution = request.param
    target = str(tmp_path_factory.mktemp("derived") / "cube.zarr")
    more = {} if resolution is None else {"resolution": resolution}
    publish_continent(
        continent_config(source.url, target, crs, period="2023-02", staging=f"{source.url}.staging", **more)
    )
    return Storage(target)


def looked_up(data: xr.DataArray, values: NDArray[Any], factor: int, zxy: tuple[int, int, int], crs: str) -> Any:
    """Of every pixel of a tile the value of the block that it lies in, and whether it lies well inside of that."""
    zoom, col, row = zxy
    side = 40_075_016.685578488 / 2**zoom
    x = -20_037_508.342789244 + col * side + (np.arange(512) + 0.5) * side / 512
    y = 20_037_508.342789244 - row * side - (np.arange(512) + 0.5) * side / 512
    east, north = Transformer.from_crs("EPSG:3857", crs, always_xy=True).transform(*np.meshgrid(x, y))
    step = float(data.x[1] - data.x[0])
    c = (east - float(data.x[0]) + step / 2) / (step * factor)
    r = (float(data.y[0]) + step / 2 - north) / (step * factor)
    reaches = (r >= 0) & (c >= 0) & (r < values.shape[-2]) & (c < values.shape[-1])
    sure = reaches & (abs(r % 1 - 0.5) < 0.3) & (abs(c % 1 - 0.5) < 0.3)
    at = np.clip(r, 0, values.shape[-2] - 1).astype(int), np.clip(c, 0, values.shape[-1] - 1).astype(int)
    return values[..., at[0], at[1]], sure


@pytest.mark.parametrize("layer", ["quality", "source", "B04"])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_both_sides_are_of_the_cube_s_own_pixels(derived, layer):
    client = client_of(derived)
    told = client.get("/cube.json").json()
    (group,) = [path.name for path in Path(derived.url).iterdir() if path.name.isdigit() or path.name.startswith("crs")]
    data = xr.open_zarr(derived.url, group=f"{group}/0", mask_and_scale=False)
    crs = data.spatial_ref.attrs["crs_wkt"]
    variable = "reflectance" if layer == "B04" else layer
    own = data[variable].sel(band="B04")[-1] if layer == "B04" else data[variable][-1]
    factor = round(10 / told["zones"][0]["gsd_m"][0])
    assert factor == {"EPSG:3857": 4, "EPSG:4326": 4, "EPSG:32647": 2}[told["zones"][0]["name"]]
    brought = block_means if layer == "B04" else block_modes
    zxy = tile_over(LON, LAT, 17)
    for averaged, size in ((False, 1), (True, factor)):
        picture = drawn(client, layer, zxy, averaged=averaged, low=0, high=0.6)
        values, sure = looked_up(own, brought(own.values, size, 0), size, zxy, crs)
        assert sure.sum() > 10_000
        here = sure & (values > 0)
        if layer == "B04":
            # Levels are means of means: at the edge of what was seen they weigh pixels in another way.
            whole = block_means(((own.values > 0) * 999 + 1).astype(np.uint16), size, 0) == 1000
            here &= looked_up(own, whole, size, zxy, crs)[0]
            assert np.abs(picture[here][:, 0] - np.clip(values[here] * 1e-4 / 0.6, 0, 1) * 255).max() <= 0.6
            continue
        described = next(one for one in told["layers"] if one["name"] == layer)
        legend = {label["value"]: rgb([label["colour"]])[0] for label in described["labels"]}
        for number in np.unique(values[here]):
            assert (picture[here & (values == number)][:, :3] == legend[int(number)]).all()
