"""A pack gives the images and scenes that it was made of, and the settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import TINY, write_image

from difffusr.kernels.networks.fusion.frame import FusionConfig
from difffusr.kernels.networks.stage1 import Stage1Config
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.weights.training.packing import pack, read_pack
from difffusr.pipeline.weights.training.reading import find_all, read_image
from difffusr.pipeline.weights.training.scenes import load_scenes
from difffusr.pipeline.weights.training.settings import FusionSettings, SuperResolutionSettings

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SOURCES = [
    {"path": "hr", "gsd_m": 2.5, "held_out": ["b.png"]},
    {"path": "sixteen", "gsd_m": 1.0, "rgb": [3, 2, 1], "full_scale": 4000, "display": False},
    {"path": "halves", "gsd_m": 2.5, "rows": [0, 0.6]},
    {"path": "halves", "gsd_m": 2.5, "rows": [0.65, 1], "held_out": ["*"]},
    {"path": "gaps", "gsd_m": 3.0, "nodata_at_ends": True, "resample": "target"},
]


@pytest.fixture
def packed(tmp_path: Path, scenes: Path) -> tuple[SuperResolutionSettings, FusionSettings, Path]:
    write_image(tmp_path / "hr" / "a.tif")
    write_image(tmp_path / "hr" / "b.png")
    write_image(tmp_path / "sixteen" / "c.tif", bands=4, dtype="uint16", high=5000)
    write_image(tmp_path / "halves" / "d.png")
    (tmp_path / "gaps").mkdir()
    picture = np.full((64, 80, 3), 120, np.uint8)
    picture[:20, :30], picture[40:] = 255, np.arange(80, dtype=np.uint8)[:, None]
    Image.fromarray(picture).save(tmp_path / "gaps" / "e.jpg", quality=95)
    grey = Image.fromarray(picture[..., 0])
    Image.merge("RGBA", [grey] * 4).save(tmp_path / "gaps" / "f.png")
    given = {"out": str(tmp_path / "out"), "root": str(tmp_path)}
    sr = SuperResolutionSettings.model_validate(given | {"data": SOURCES, "network": TINY, "lr_px": 16})
    network = {"generation": "corrected", "channels": 8, "blocks": 1, "growth": 4}
    fusion = FusionSettings.model_validate(
        given | {"data": [{"path": str(scenes), "held_out": ["three"]}], "network": network}
    )
    pack(sr, fusion, tmp_path / "base.zip")
    return sr, fusion, tmp_path / "base.zip"


def test_images_come_back_as_they_are_read_from_their_files(packed):
    sr, _, path = packed
    kept = read_pack(path)
    for ours, files in zip(kept.images, find_all(sr.data, Path(sr.root)), strict=True):
        assert len(ours) == len(files)
        for image, file in zip(ours, files, strict=True):
            read, expected = image.read(), read_image(file)
            assert image.size == expected.valid.shape == read.valid.shape
            assert (image.gsd_m, read.display, image.resample) == (expected.gsd_m, expected.display, file.resample)
            two_counts = 2 / 255 if file.path.suffix == ".jpg" else 0
            np.testing.assert_allclose(read.pixels, expected.pixels, atol=two_counts)
            assert (read.valid == expected.valid).mean() > 0.99


def test_a_file_of_two_sources_is_packed_once(packed):
    _, _, path = packed
    training, held_out = read_pack(path).images
    assert len({image.member for image in (*training, *held_out)}) == len(training) + len(held_out) - 1


def test_scenes_and_settings_come_back(packed):
    sr, fusion, path = packed
    kept = read_pack(path)
    for ours, theirs in zip(kept.scenes, load_scenes(fusion.data, Path(fusion.root)), strict=True):
        assert [scene.name for scene in ours] == [scene.name for scene in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert all(torch.equal(one.bands[band], other.bands[band]) for band in other.bands)
    assert kept.stage1.network == sr.network == Stage1Config.from_dict(TINY)
    assert kept.fusion.network == fusion.network == FusionConfig("corrected", 8, 1, 4)
    assert (kept.stage1.lr_px, kept.stage1.rate, kept.fusion.truth_px) == (16, sr.rate, fusion.truth_px)


@pytest.mark.parametrize("content", [b"", b"no zip", None, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_pack_is_named(tmp_path: Path, content: bytes | None):
    path = tmp_path / "base.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"base.zip: is no pack of training data"):
        read_pack(path)
