"""Which chips are spared the networks, what they come out as, and what that does to their keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from repeating_model import PX, actor, read

from difffusr.kernels.bands import BANDS, GROUPS, SCALE
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.pixels import CLOUD_CLASSES, WATER_CLASSES, Quality
from difffusr.pipeline.plan.keys import ContentKeys
from difffusr.pipeline.scenes.chip import Chip


def chip_of(scl: int, quality: Quality = Quality.CLEAR) -> Chip:
    """A chip of one class, its first two columns without data."""
    flags = np.full((PX, PX), quality, np.uint8)
    flags[:, :2] = Quality.NO_DATA
    classes = np.full((PX // 2, PX // 2), scl, np.uint8)
    classes[:, 0] = 0
    return Chip({}, {}, flags, (flags > 0).astype(np.uint16), classes)


def test_a_chip_shows_only_water_where_every_pixel_with_data_is_water():
    chip = chip_of(6)
    assert chip.shows_only(WATER_CLASSES)
    assert not chip.shows_only(CLOUD_CLASSES)
    assert not chip.shows_only(())
    chip.scl[3, 3] = 4  # an island
    assert not chip.shows_only(WATER_CLASSES)


def test_water_below_clouds_needs_both():
    chip = chip_of(9, Quality.CLOUDY)
    chip.scl[2:] = 6
    assert not chip.shows_only(WATER_CLASSES)
    assert not chip.shows_only(CLOUD_CLASSES)
    assert chip.shows_only(WATER_CLASSES + CLOUD_CLASSES)


def test_without_data_or_a_classification_there_is_nothing_to_skip():
    assert not chip_of(6, Quality.NO_DATA).shows_only(WATER_CLASSES)
    assert not chip_of(0).shows_only(WATER_CLASSES)


def test_a_skipped_chip_is_enlarged_and_the_others_of_its_batch_are_not():
    resolver, batch = actor(2), read(3)
    batch["skipped"] = np.array([False, True, False])
    for gsd in GROUPS:
        batch[f"dn{gsd}"] = batch[f"dn{gsd}"] // 4 + 1  # so that none is clipped on the way in
    out = resolver(batch)
    assert [len(bands[10]) for bands in resolver.model.given] == [2]
    for gsd, bands in GROUPS.items():
        plain = F.interpolate(
            torch.from_numpy(batch[f"dn{gsd}"][[1]].astype(np.float64)), scale_factor=SCALE * gsd // 10, mode="bicubic"
        )
        for i, band in enumerate(bands):
            expected = plain[0, i].clamp(1, 65535).numpy()
            assert np.abs(out["dn"][1, BANDS.index(band)] - expected).max() <= 0.51, band
    assert out["dn"][1].min() == 1  # bicubic overshoots; 0 would be no data
    for i in (0, 2):
        assert np.array_equal(out["dn"][i, 5], batch["dn10"][i, 0].repeat(SCALE, axis=0).repeat(SCALE, axis=1))


def test_what_is_under_a_skipped_chips_gaps_does_not_reach_its_pixels():
    resolver, batch = actor(1), read(1)
    batch["skipped"] = np.array([True])
    for gsd in GROUPS:
        n = PX * 10 // gsd
        batch[f"dn{gsd}"][:] = 900
        batch[f"dn{gsd}"][..., : n // 2] = 0
        batch[f"valid{gsd}"][..., : n // 2] = 0
    assert (resolver(batch)["dn"] == 900).all()


def key(of: RunConfig) -> bytes:
    places, scenes = np.array([[32632, -3, 7]], np.int32), np.array([[-1]], np.int32)
    return ContentKeys.of(of, [], "model").table(places, scenes).tobytes()


def test_a_chip_has_another_key_for_each_way_of_skipping_and_its_old_one_without(loaded):
    plain = key(loaded())
    ways = [{"water": True}, {"cloud": True}, {"water": True, "cloud": True}]
    assert len({plain, *(key(loaded(skip=way)) for way in ways)}) == 4
    assert key(loaded(skip={"water": False, "cloud": False})) == plain
    assert "skip" not in loaded().canonical()


@pytest.mark.parametrize("quality", list(Quality))
def test_every_flag_has_a_name_of_its_own_without_blanks(quality):
    assert " " not in quality.name
