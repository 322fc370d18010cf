"""The picture of a result beside its input."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from difffusr.pipeline.scenes.synthetic.picture import before_after_picture
from difffusr.pipeline.scenes.synthetic.sensor import observe


def test_the_picture_shows_the_same_ground_in_every_panel(tmp_path, world):
    low = np.stack([observe(band, "B02") for band in world.reflectance])[:, 40:60, 60:84]
    fine = world.reflectance[:, 160:240, 240:336]
    with_truth = Image.open(before_after_picture(tmp_path / "four.png", low, fine, truth=fine))
    without = Image.open(before_after_picture(tmp_path / "three.png", low, fine))
    assert with_truth.width > without.width > without.height * 0.9
    assert len(np.unique(np.asarray(with_truth).reshape(-1, 3), axis=0)) > 1000
    with pytest.raises(ValueError, match="truth must have shape"):
        before_after_picture(tmp_path / "wrong.png", low, fine, truth=fine[:, 1:])
