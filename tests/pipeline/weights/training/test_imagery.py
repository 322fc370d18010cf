"""Patches that a training draws: the same for the same seed, without gaps, as dark and as bright as scenes are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import write_image

from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.weights.training.imagery import HRImage
from difffusr.pipeline.weights.training.patches import PatchSource, random_radiometry
from difffusr.pipeline.weights.training.reading import find_all
from difffusr.pipeline.weights.training.settings import ImageSource

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_the_same_seed_draws_the_same_patches(fields):
    source = PatchSource.build([fields], 144)
    assert torch.equal(source.draw(np.random.default_rng(5)), source.draw(np.random.default_rng(5)))


def test_radiometry_covers_dark_water_and_bright_desert():
    rng = np.random.default_rng(2)
    means = [float(random_radiometry(torch.full((3, 8, 8), 0.45), True, rng).mean()) for _ in range(300)]
    assert min(means) < 0.04
    assert max(means) > 0.35
    assert np.median(means) < 0.2


def test_patches_avoid_pixels_without_data(fields):
    valid = fields.valid.copy()
    valid[:100, :100] = False
    marked = fields.pixels.copy()
    marked[:, ~valid] = np.nan
    source = PatchSource.build([HRImage("holed", 2.5, marked, valid, display=True)], 128)
    rng = np.random.default_rng(3)
    assert all(torch.isfinite(source.draw(rng)).all() for _ in range(10))


@pytest.mark.parametrize(
    ("make", "source", "kind", "said"),
    [
        ("nothing", {}, ConfigError, "no such folder"),
        ("text", {}, ConfigError, "no images there"),
        ("damaged", {}, ReadError, "a.tif: cannot be read"),
        ("grey", {}, ConfigError, r"data\[0\]\.rgb: .*1 band"),
        ("image", {"held_out": ("*",)}, ConfigError, "every image is held out"),
        ("image", {"index": "hr/index.csv"}, ConfigError, "index"),
        ("image", {"layout": "sen2naip"}, ConfigError, "ROI_"),
        ("image", {"layout": "worldstrat"}, ConfigError, "_ps.tiff"),
    ],
)
def test_unusable_data_are_named(tmp_path, make, source, kind, said):
    if make == "text":
        (tmp_path / "hr").mkdir()
        (tmp_path / "hr" / "read.me").write_text("no image")
    elif make == "damaged":
        (tmp_path / "hr").mkdir()
        (tmp_path / "hr" / "a.tif").write_bytes(b"II*\0 no tiff at all")
    elif make != "nothing":
        write_image(tmp_path / "hr" / "a.tif", bands=1 if make == "grey" else 3)
    with pytest.raises(kind, match=said):
        find_all([ImageSource(path="hr", gsd_m=2.5, **source)], tmp_path)
