"""Scenes of the made-up world are what the sensor sees of it."""

from __future__ import annotations

import numpy as np
import pytest
from small_world import scene_on

from difffusr.kernels.bands import BANDS, GSD_M, MTF_NYQUIST, native_factor
from difffusr.pipeline.scenes.synthetic.palette import DATES
from difffusr.pipeline.scenes.synthetic.sensor import observe, render_scenes


def test_the_same_world_gives_the_same_scenes(world, scenes):
    for scene, again in zip(scenes, render_scenes(world), strict=True):
        assert scene.id == again.id
        assert all(np.array_equal(scene.bands[band], again.bands[band]) for band in BANDS)
        assert np.array_equal(scene.scl, again.scl)


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
    scene = scene_on(scenes, DATES[1][0], "32TNT")
    for band in BANDS:
        expected = observe(world.later[BANDS.index(band)], band)[:, -scene.bands[band].shape[1] :]
        found = (scene.bands[band].astype(np.float32) - 1000) / 10_000
        assert np.abs(found - expected).max() < 0.015
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.01 * expected.mean() + 0.0005


def test_both_tiles_of_a_date_agree_where_they_overlap(scenes):
    west, east = (scene_on(scenes, DATES[0][0], tile) for tile in ("32TMT", "32TNT"))
    shared_m = west.left_m + west.scl.shape[1] * 20 - east.left_m
    assert shared_m >= 300
    for band in BANDS:
        columns = round(shared_m / GSD_M[band])
        assert np.array_equal(west.bands[band][:, -columns:], east.bands[band][:, :columns])


def test_the_swath_ends_in_a_slanted_corner_of_no_data(scenes):
    scene = scene_on(scenes, DATES[1][0], "32TMT")
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


def test_another_seed_moves_cloud_and_noise_only(world, scenes):
    other = render_scenes(world, seed=99)
    assert not np.array_equal(other[0].scl, scenes[0].scl)
    assert np.abs(other[2].bands["B02"].astype(int) - scenes[2].bands["B02"]).max() < 100


#: Sums of DN by band, and of classes, of the scenes of the small world.
SUMS = [
    {"B02": 9_499_362, "B08": 37_536_143, "B11": 7_751_763, "SCL": 16_078},
    {"B02": 10_041_259, "B08": 45_159_583, "B11": 8_169_576, "SCL": 16_592},
    {"B02": 17_733_397, "B08": 47_037_554, "B11": 9_557_924, "SCL": 13_120},
    {"B02": 21_769_638, "B08": 60_146_762, "B11": 12_032_405, "SCL": 15_203},
]


def test_the_default_world_stays_what_it_was(scenes):
    """Measurements of other days were made on it. Processors round differently: hence not to the bit."""
    for scene, sums in zip(scenes, SUMS, strict=True):
        found = {**{band: int(scene.bands[band].sum()) for band in ("B02", "B08", "B11")}, "SCL": int(scene.scl.sum())}
        assert found == pytest.approx(sums, rel=2e-5)
        assert scene.look is None
