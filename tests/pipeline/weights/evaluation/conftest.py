"""What the evaluations of these tests are about: a picture of fields, and a scene of three materials."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from mixed_scene import mixed_scene
from PIL import Image
from rasterio.transform import from_origin

from difffusr.pipeline.weights.training.scenes import NativeScene


@pytest.fixture(scope="module")
def ground():
    """Fields of some brightness with sharp edges, 8 bits, (160, 200, 3)."""
    rng = np.random.default_rng(0)
    pixels = np.full((160, 200, 3), 110, dtype=np.uint8)
    for _ in range(80):
        row, col, height, width = rng.integers(0, 160), rng.integers(0, 200), *rng.integers(6, 40, 2)
        pixels[row : row + height, col : col + width] = rng.integers(60, 220, 3)
    return pixels


@pytest.fixture
def folder(tmp_path, ground):
    Image.fromarray(ground).save(tmp_path / "fields.png")
    (tmp_path / "index.csv").write_text("file,gsd_m\nfields.png,2.0-3.0 (estimated)\n")
    with rasterio.open(
        tmp_path / "town.tif", "w", driver="GTiff", width=300, height=240, count=4, dtype="uint16", crs="EPSG:32631",
        transform=from_origin(5e5, 5e6, 1.25, 1.25),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(1).integers(300, 3000, (4, 240, 300)).astype("uint16"))
    return tmp_path


@pytest.fixture(scope="module")
def scene() -> NativeScene:
    return mixed_scene()
