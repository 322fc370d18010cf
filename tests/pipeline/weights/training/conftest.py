"""What the trainings of these tests learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from tiny_training import TINY, write_image

from difffusr.pipeline.weights.training.imagery import HRImage
from difffusr.pipeline.weights.training.scenes import NativeScene
from difffusr.pipeline.weights.training.settings import SuperResolutionSettings


@pytest.fixture(scope="module")
def fields():
    """An aerial picture of fields: rectangles of some brightness with sharp edges."""
    rng = np.random.default_rng(0)
    pixels = np.full((3, 256, 256), 0.4, dtype=np.float32)
    for _ in range(150):
        row, col, height, width = rng.integers(4, 60, 4)
        row, col = rng.integers(0, 256, 2)
        pixels[:, row : row + height, col : col + width] = rng.uniform(0.2, 0.8, (3, 1, 1))
    return HRImage("fields", 2.5, pixels, np.ones((256, 256), dtype=bool), display=True)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    gsd = {"B01": 60, "B09": 60} | dict.fromkeys(("B02", "B03", "B04", "B08"), 10)
    gsd |= dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20)
    coarse = torch.from_numpy(rng.uniform(0.05, 0.4, (1, 1, 24, 24)).astype(np.float32))
    ground = F.interpolate(coarse, size=(144, 144), mode="nearest")
    return NativeScene("made up", {band: F.avg_pool2d(ground, g // 10)[0, 0] for band, g in gsd.items()})


@pytest.fixture
def settings(tmp_path) -> SuperResolutionSettings:
    for name in ("north", "south", "west"):
        write_image(tmp_path / "hr" / f"{name}.tif")
    return SuperResolutionSettings.model_validate(
        {
            "out": str(tmp_path / "out"),
            "root": str(tmp_path),
            "data": [{"path": "hr", "gsd_m": 2.5, "held_out": ["west*"]}],
            "network": TINY,
            "steps": 6,
            "batch": 2,
            "lr_px": 16,
            "warm_up": 2,
            "checkpoint_every": 4,
            "validation_px": 96,
        }
    )


@pytest.fixture
def scenes(scene, tmp_path) -> Path:
    """The made-up scene three times, as files."""
    for name in ("one", "two", "three"):
        folder = tmp_path / "s2" / name
        folder.mkdir(parents=True)
        for band, values in scene.bands.items():
            shape = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": "uint16"}
            with rasterio.open(folder / f"{band}.tif", "w", driver="GTiff", **shape) as file:
                file.write((values * 10_000).numpy().astype("uint16"), 1)
    return tmp_path / "s2"
