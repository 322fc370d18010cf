"""Patches as a Ray dataset are those of the PyTorch dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_cubes import random_cube, window_around

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.readers import CubePatches, ray_patches
from difffusr.pipeline.storage.objects import Storage


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    windows = {zone: window_around(zone, 12.0, 48.0, (2, 4)) for zone in (32632, 32633)}
    storage = Storage(str(Path(tmp_path_factory.mktemp("cube")) / "cube.zarr"))
    random_cube(storage, windows, samples=4)
    return storage.url


@pytest.mark.usefixtures("_ray")
def test_a_ray_dataset_has_every_patch_once(url):
    wanted = {
        (item["zone"], item["period"], item["x"], item["y"]): item
        for item in CubePatches(url, 32, bands=["B08", "B02"], least=0.5, labels=["source"])
    }
    rows = ray_patches(url, 32, bands=["B08", "B02"], least=0.5, labels=["source"], shards_per_task=3).take_all()
    assert len(rows) == len(wanted)
    for row in rows:
        item = wanted.pop((row["zone"], row["period"], row["x"], row["y"]))
        for name in ("reflectance", "reflectance_std", "quality", "source"):
            np.testing.assert_array_equal(row[name], item[name])
        assert row["reflectance"].dtype == np.float32
    assert not wanted


def test_what_is_not_understood_is_said_before_any_task(url):
    with pytest.raises(ConfigError, match="found 48"):
        ray_patches(url, 48)
