"""12-band scenes are read whole or left out."""

from __future__ import annotations

import pytest
import rasterio

from difffusr.pipeline.weights.training.scenes import load_scenes
from difffusr.pipeline.weights.training.settings import SceneSource

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_a_scene_with_gaps_is_left_out(scenes, tmp_path):
    with rasterio.open(scenes / "one" / "B05.tif", "r+") as file:
        values = file.read(1)
        values[3, 3] = 0
        file.write(values, 1)
    training, held_out = load_scenes([SceneSource(path="s2", held_out_every=2)], tmp_path)
    assert {scene.name for scene in (*training, *held_out)} == {"three", "two"}
