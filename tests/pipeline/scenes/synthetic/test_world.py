"""The made-up world: the same for the same seed, seen as the sensor sees, catalogued as an archive would."""

from __future__ import annotations

import json

import numpy as np
import pystac
import pytest
import rasterio
from PIL import Image
from shapely.geometry import Point, shape

from difffusr.kernels.bands import BANDS, GSD_M, MTF_NYQUIST, native_factor
from difffusr.pipeline.scenes.synthetic.archive import write_catalog
from difffusr.pipeline.scenes.synthetic.palette import ASSETS, DATES, LANDCOVER, LEFT_M, SIZE_M, TOP_M
from difffusr.pipeline.scenes.synthetic.picture import before_after_picture
from difffusr.pipeline.scenes.synthetic.sensor import observe, render_scenes
from difffusr.pipeline.scenes.synthetic.world import generate_world, write_demo_world

SMALL_M = (1200, 1800)


@pytest.fixture(scope="module")
def world():
    return generate_world(size_m=SMALL_M)


@pytest.fixture(scope="module")
def scenes(world):
    return render_scenes(world)


@pytest.fixture(scope="module")
def catalog(scenes, tmp_path_factory):
    return write_catalog(scenes, tmp_path_factory.mktemp("archive"))


def _by_name(scenes, date, tile):
    return next(scene for scene in scenes if scene.date == date and scene.tile == tile)


def test_the_same_seed_gives_the_same_world_and_another_seed_another(world):
    again, other = generate_world(size_m=SMALL_M), generate_world(seed=8, size_m=SMALL_M)
    assert np.array_equal(world.reflectance, again.reflectance)
    assert np.array_equal(world.later, again.later)
    assert np.array_equal(world.landcover, again.landcover)
    assert not np.array_equal(world.reflectance, other.reflectance)


def test_the_same_world_gives_the_same_scenes(world, scenes):
    for scene, again in zip(scenes, render_scenes(world), strict=True):
        assert scene.id == again.id
        assert all(np.array_equal(scene.bands[band], again.bands[band]) for band in BANDS)
        assert np.array_equal(scene.scl, again.scl)


def test_the_truth_is_reflectance_with_plausible_spectra(world):
    assert world.reflectance.shape == world.later.shape == (12, SMALL_M[0] * 2 // 5, SMALL_M[1] * 2 // 5)
    assert world.reflectance.dtype == np.float32
    assert 0 < world.reflectance.min() < world.reflectance.max() <= 1
    codes = {name: code for code, name in LANDCOVER.items()}
    mean = {name: world.reflectance[:, world.landcover == code].mean(1) for name, code in codes.items()}
    red, nir, swir = BANDS.index("B04"), BANDS.index("B08"), BANDS.index("B11")
    assert mean["forest"][nir] > 4 * mean["forest"][red]
    assert mean["water"][nir] < 0.05
    assert mean["bare soil"][swir] > mean["bare soil"][nir] > mean["bare soil"][red]
    assert {LANDCOVER[code] for code in np.unique(world.landcover)} == set(LANDCOVER.values())


def test_the_two_dates_differ_in_the_fields_and_hardly_in_the_woods(world):
    change = np.abs(world.later - world.reflectance)[BANDS.index("B08")]
    codes = {name: code for code, name in LANDCOVER.items()}
    assert change[world.landcover == codes["crop"]].mean() > 3 * change[world.landcover == codes["forest"]].mean()


def test_six_chips_cover_the_whole_world():
    """A chip is 1920 m with a step of 1680 m from (0, 0), rows counted southwards."""

    def touched(start_m, length_m):
        return [n for n in range(-4000, 4000) if n * 1680 < start_m + length_m and n * 1680 + 1920 > start_m]

    rows, columns = touched(-TOP_M, SIZE_M[0]), touched(LEFT_M, SIZE_M[1])
    assert (len(rows), len(columns)) == (2, 3)
    assert LEFT_M % 60 == TOP_M % 60 == 0
    assert LEFT_M % 1680 != 0
    assert TOP_M % 1680 != 0


@pytest.mark.parametrize("side", [{"size_m": (1200, 1830)}, {"size_m": (300, 1200)}])
def test_a_world_off_the_lattice_or_too_small_is_refused(side):
    with pytest.raises(ValueError, match="multiples of 60 m and at least 600 m"):
        generate_world(**side)


@pytest.mark.parametrize("band", BANDS)
def test_a_wave_at_the_nyquist_frequency_keeps_the_sensors_contrast(band):
    factor = native_factor(band)
    middle = np.arange(40 * factor) + 0.5
    wave = np.cos(np.pi * (middle / factor - 0.5))  # crests in the middle of the native pixels
    seen = observe(np.tile(wave, (40 * factor, 1)).astype(np.float32), band)
    contrast = np.abs(seen[20, 10:30])
    assert contrast == pytest.approx(MTF_NYQUIST[band], rel=0.04)  # 2.5 m samples of a continuous sensor


@pytest.mark.parametrize("band", ["B02", "B05", "B09"])
def test_the_sensor_keeps_level_ground_and_the_mean(world, band):
    image = world.reflectance[BANDS.index(band)]
    assert observe(np.full_like(image, 0.3), band) == pytest.approx(0.3, abs=1e-6)
    assert observe(image, band).mean() == pytest.approx(image.mean(), rel=0.01)


def test_clear_pixels_are_the_truth_through_the_sensor_with_little_noise(world, scenes):
    scene = _by_name(scenes, DATES[1][0], "32TNT")
    for band in BANDS:
        expected = observe(world.later[BANDS.index(band)], band)[:, -scene.bands[band].shape[1] :]
        found = (scene.bands[band].astype(np.float32) - 1000) / 10_000
        assert np.abs(found - expected).max() < 0.015
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.01 * expected.mean() + 0.0005


def test_both_tiles_of_a_date_agree_where_they_overlap(scenes):
    west, east = (_by_name(scenes, DATES[0][0], tile) for tile in ("32TMT", "32TNT"))
    shared_m = west.left_m + west.scl.shape[1] * 20 - east.left_m
    assert shared_m >= 300
    for band in BANDS:
        columns = round(shared_m / GSD_M[band])
        assert np.array_equal(west.bands[band][:, -columns:], east.bands[band][:, :columns])


def test_the_later_pixels_carry_the_offset_and_the_item_says_so(scenes, catalog):
    for scene in scenes:
        item = json.loads((catalog.parent / "items" / scene.id / f"{scene.id}.json").read_text())
        later = scene.date == DATES[1][0]
        water = scene.bands["B11"][scene.scl == 6]
        assert (scene.offset_dn, item["properties"]["earthsearch:boa_offset_applied"]) == (1000 * later, not later)
        assert item["assets"]["swir16"]["raster:bands"][0]["offset"] == (-0.1 if later else 0)
        if scene.tile == "32TMT":
            assert (np.median(water) > 1000) == later


def test_the_swath_ends_in_a_slanted_corner_of_no_data(scenes):
    scene = _by_name(scenes, DATES[1][0], "32TMT")
    empty = scene.bands["B02"] == 0
    per_row = empty.sum(1)
    assert (np.diff(per_row) <= 0).all()
    assert per_row[0] > 10 > per_row[-1] == 0
    assert np.array_equal(scene.scl == 0, scene.bands["B05"] == 0)
    others = [other for other in scenes if other is not scene]
    assert all((pixels > 0).all() for other in others for pixels in other.bands.values())


def test_the_cloud_is_in_the_classes_of_both_tiles_on_the_first_date_only(world, scenes):
    for scene in scenes:
        cloudy = scene.date == DATES[0][0]
        assert ({3, 8, 9} <= set(np.unique(scene.scl).tolist())) == cloudy
        assert (scene.cloud_cover > 1) == cloudy
        if cloudy:
            bright = scene.bands["B02"].reshape(scene.scl.shape[0], 2, -1, 2).mean((1, 3))
            assert bright[scene.scl == 9].mean() > 2 * bright[(scene.scl == 4)].mean()


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


def test_a_written_world_can_be_asked_for_and_compared_with_its_truth(tmp_path, world):
    demo = write_demo_world(tmp_path / "demo", size_m=SMALL_M)
    assert demo.catalog.is_file()
    assert list(demo.truth) == [date for date, _ in DATES]
    assert demo.bbox == pytest.approx(world.bbox)
    assert demo.period[0] <= DATES[0][0] < DATES[1][0] <= demo.period[1]
    for date, path in demo.truth.items():
        with rasterio.open(path) as raster:
            assert raster.descriptions == BANDS
            assert raster.transform == world.transform
            assert np.abs(raster.read() / 10_000 - world.on(date)).max() <= 0.51e-4
    with rasterio.open(demo.landcover) as raster:
        assert np.array_equal(raster.read(1), world.landcover)
        assert {int(code): name for code, name in raster.tags(1).items() if code.isdigit()} == LANDCOVER


def test_the_picture_shows_the_same_ground_in_every_panel(tmp_path, world):
    low = np.stack([observe(band, "B02") for band in world.reflectance])[:, 40:60, 60:84]
    fine = world.reflectance[:, 160:240, 240:336]
    with_truth = Image.open(before_after_picture(tmp_path / "four.png", low, fine, truth=fine))
    without = Image.open(before_after_picture(tmp_path / "three.png", low, fine))
    assert with_truth.width > without.width > without.height * 0.9
    assert len(np.unique(np.asarray(with_truth).reshape(-1, 3), axis=0)) > 1000
    with pytest.raises(ValueError, match="truth must have shape"):
        before_after_picture(tmp_path / "wrong.png", low, fine, truth=fine[:, 1:])


def test_another_seed_moves_cloud_and_noise_only(world, scenes):
    other = render_scenes(world, seed=99)
    assert not np.array_equal(other[0].scl, scenes[0].scl)
    assert np.abs(other[2].bands["B02"].astype(int) - scenes[2].bands["B02"]).max() < 100
