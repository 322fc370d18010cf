"""What a cube of one CRS is made of: all shards that have a part in its pixels, no more; and what changes when."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import shapely
from continental import EVERYWHERE, continent_config, publish_continent
from pyproj import Transformer
from two_zones import GRID, publish_zones, waves, windows_at

from difffusr.pipeline.assemble.continent.planning import plan_continent, with_source
from difffusr.pipeline.assemble.continent.sources import SourcePeriod, touching
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.grid import PixelWindow, ShardIndex
from difffusr.pipeline.geo.lattice import Lattice
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.run.context import Places
from difffusr.pipeline.storage.objects import Storage

LON, LAT, ZONES = 12.0, 48.0, (32632, 32633)


@pytest.fixture(scope="module")
def zones(tmp_path_factory) -> Storage:
    """A cube on both sides of 12° E, published once."""
    storage = Storage(f"{tmp_path_factory.mktemp('zones')}/zones.zarr")
    windows = windows_at(LON, LAT, ZONES, (3, 4))
    publish_zones(storage, windows, dict.fromkeys(windows, waves(LON, LAT)))
    return storage


@pytest.mark.parametrize("crs", ["EPSG:3035", "EPSG:4326", "EPSG:3857", "EPSG:2154", "ESRI:102013"])
@pytest.mark.parametrize("epsg", [32632, 32733, 32601])
@pytest.mark.parametrize("side", [64, 96])
def test_shards_meet_where_their_ground_does(crs, epsg, side):
    """By brute force: the outline of each shard, with many points, against squares grown by the kernel's reach."""
    lattice = Lattice.asked_for(crs, None)
    lon = 6.0 * (epsg % 100) - 183.0
    lat = 47.0 if epsg // 100 == 326 else -12.0
    if epsg == 32601:
        lattice = dataclasses.replace(lattice, west=-180.0)
    window = windows_at(lon, lat, (epsg,), (2, 3))[epsg]
    shards = list(GRID.shards_touching(window))
    row, col = (np.array(values, np.int32) for values in zip(*shards, strict=True))
    rows, cols, members = touching(lattice, side, np.full(len(row), epsg, np.int32), row, col, GRID.shard_px)
    found = set(zip(rows.tolist(), cols.tolist(), members.tolist(), strict=True))
    assert len(found) == len(rows)
    to_lattice = Transformer.from_crs(f"EPSG:{epsg}", lattice.crs, always_xy=True)
    for at, shard in enumerate(shards):
        ring = shapely.segmentize(GRID.shard_window(shard).box(epsg), 5.0)
        ground = shapely.transform(ring, to_lattice.transform, interleaved=False)
        pixels = shapely.transform(ground, lambda xy: xy * [1, -1] / lattice.pixel)
        left, top, right, bottom = (int(np.floor(edge / side)) for edge in pixels.bounds)
        for r in range(top - 1, bottom + 2):
            for c in range(left - 1, right + 2):
                square = shapely.box(c * side, r * side, (c + 1) * side, (r + 1) * side)
                gap = square.distance(pixels)
                if gap == 0:
                    assert (r, c, at) in found
                if gap > 12 * max(1, 2.5 / (lattice.pixel * lattice.unit_m)):
                    assert (r, c, at) not in found


def test_a_plan_is_the_same_again_and_covers_the_zones(zones, tmp_path):
    config = continent_config(zones.url, f"{tmp_path}/laea.zarr")
    plan, again = plan_continent(config), plan_continent(config)
    assert np.array_equal(plan.shards.key, again.shards.key)
    assert plan.window == again.window
    assert plan.zones() == [3035]
    assert {int(n) for n in plan.zones_of.sum(axis=1)} == {1, 2}
    assert len(np.unique(plan.shards.key, axis=0)) == len(plan.shards)


@pytest.mark.parametrize("changed", [{32632: [0]}, {32633: [5]}, {32632: [3, 7], 32633: [4]}])
def test_only_what_shows_a_changed_shard_is_made_anew(zones, tmp_path, changed):
    config = continent_config(zones.url, f"{tmp_path}/laea.zarr")
    source = SourcePeriod.of(config)
    before = plan_continent(config)
    touched = [at for epsg, some in changed.items() for at in np.flatnonzero(source.epsg == epsg)[some].tolist()]
    digests = [f"{digest}x" if at in touched else digest for at, digest in enumerate(source.digests)]
    other = dataclasses.replace(source, digests=digests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SourcePeriod, "of", classmethod(lambda cls, _: other))
        after = plan_continent(config)
    different = (before.shards.key != after.shards.key).any(axis=1)
    wanted = np.zeros(len(before.shards), bool)
    rows, cols, members = touching(before.lattice, 64, source.epsg, source.row, source.col, 64)
    places = {
        place: i for i, place in enumerate(zip(before.shards.row.tolist(), before.shards.col.tolist(), strict=True))
    }
    for row, col, member in zip(rows.tolist(), cols.tolist(), members.tolist(), strict=True):
        wanted[places[row, col]] |= member in touched
    assert np.array_equal(different, wanted)
    assert 0 < different.sum() < len(different)


def test_the_extent_is_that_of_the_zones_whatever_a_month_has(zones, tmp_path):
    """A month of which some shards are missing has the same arrays."""
    config = continent_config(zones.url, f"{tmp_path}/laea.zarr")
    whole = plan_continent(config)
    source = SourcePeriod.of(config)
    some = {name: getattr(source, name)[::3] for name in ("epsg", "row", "col")}
    part = dataclasses.replace(source, digests=list(source.digests)[::3], **some)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SourcePeriod, "of", classmethod(lambda cls, _: part))
        found = plan_continent(config)
    assert found.window == whole.window
    assert len(found.shards) < len(whole.shards)


@pytest.mark.parametrize(
    ("area", "count"), [(EVERYWHERE, None), ([11.999, 47.999, 12.001, 48.001], 12), ([11.9, 47.9, 11.99, 47.99], 0)]
)
def test_an_area_takes_the_shards_that_it_touches(zones, tmp_path, area, count):
    config = continent_config(zones.url, f"{tmp_path}/laea.zarr", area=area)
    if count == 0:
        with pytest.raises(ConfigError, match=r"^area: nothing of .*zones.zarr lies in it; choose another area$"):
            plan_continent(config)
        return
    plan = plan_continent(config)
    assert len(plan.shards) <= count if count else len(plan.shards) > 20


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"period": "2023-07"}, r"^period: .*zones.zarr has no 2023-07; it has 2023-06$"),
        ({"crs": "EPSG:99999"}, r"^crs: found 'EPSG:99999', expected a CRS such as EPSG:3035"),
        ({"crs": "EPSG:4979"}, r"^crs: found 'EPSG:4979', WGS 84, expected one with two axes on the ground"),
        ({"crs": "EPSG:5773"}, r"^crs: found 'EPSG:5773', EGM96 height, expected"),
        ({"resolution": 0.001}, r"^resolution: found 0.001, expected a pixel's side in metres, such as 2.5$"),
        ({"crs": "EPSG:4326", "resolution": 2.5}, r"^resolution: found 2.5, expected a pixel's side in degrees"),
        ({"staging": "/nowhere/staging"}, r"^source.staging: /nowhere/staging does not say what .* has of 2023-06"),
    ],
)
def test_what_cannot_be_made_is_one_line(zones, tmp_path, more, said):
    with pytest.raises(ConfigError, match=said) as caught:
        plan_continent(continent_config(zones.url, f"{tmp_path}/out.zarr", **more))
    assert "\n" not in str(caught.value)


def test_a_cube_of_one_crs_is_no_source_and_has_no_other_beside_it(zones, tmp_path):
    config = continent_config(zones.url, f"{tmp_path}/laea.zarr", area=[11.999, 47.999, 12.001, 48.001])
    publish_continent(config)
    cube = Cube(Places.of(config).cube)
    assert cube.lattice(3035) == Lattice("EPSG:3035")
    assert cube.of_crs(3035) == Lattice("EPSG:3035")
    assert cube.scenes == Cube(zones).scenes
    again = continent_config(config.store.url, f"{tmp_path}/more.zarr")
    with pytest.raises(ConfigError, match="is itself a cube of one CRS; give the one that it is made of"):
        plan_continent(again)
    for more in ({"crs": "EPSG:4326"}, {"resolution": 5.0}):
        with pytest.raises(ConfigError, match="already holds"):
            publish_continent(continent_config(zones.url, config.store.url, **more))


def test_degrees_are_counted_on_where_zones_cross_180():
    from difffusr.pipeline.assemble.continent.planning import _cut
    from difffusr.pipeline.assemble.continent.warping import ZoneView

    def cut(lon: float, zones: tuple[int, ...], lat: float = -16.9) -> Lattice:
        windows = windows_at(lon, lat, zones, (4, 8))
        views = {epsg: ZoneView(epsg, 0, window) for epsg, window in windows.items()}
        none = np.zeros(0, np.int32)
        source = SourcePeriod(None, "2023-06", views, none, none, none, [], 64, 220.0)  # type: ignore[arg-type]
        return _cut(Lattice("EPSG:4326", 2.25e-5), source)

    assert cut(12.0, (32632, 32633), 48.0).west == -180.0
    assert cut(179.0, (32760,)).west == -180.0
    across = cut(180.0, (32760, 32701))
    assert -10 < across.west < 10
    assert float(across.unrolled(np.array(-179.5))) == 180.5


def test_what_the_source_decides_is_taken_from_it(zones, tmp_path):
    config = continent_config(zones.url, f"{tmp_path}/laea.zarr")
    told = config.model_copy(update={"model": config.model.model_copy(update={"uncertainty_samples": 4})})
    assert with_source(told).model.uncertainty_samples == 0
    assert with_source(told).scenes.composite == "none"


def test_a_shard_of_a_lattice_is_where_its_number_says():
    lattice, shard = Lattice("EPSG:3035", 10.0), ShardIndex(-3, 4)
    window = GRID.shard_window(shard)
    assert window == PixelWindow(-192, 256, 64, 64)
    assert lattice.bounds(window) == (2560.0, 1280.0, 3200.0, 1920.0)
    assert lattice.geobox(window).transform.c == 2560.0
    assert lattice.geobox(window, 1).shape == (32, 32)
