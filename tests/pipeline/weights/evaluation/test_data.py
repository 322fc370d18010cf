"""Data come as their files say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.weights.evaluation.data import ImageOptions, find_images, find_scenes, image_pairs


def test_a_file_says_its_own_gsd_radiometry_and_place(folder):
    png, tif = find_images(folder, ImageOptions())
    assert (png.gsd_m, png.full_scale, png.display) == (2.5, 255.0, True)
    assert (tif.gsd_m, tif.full_scale, tif.display) == (1.25, 10_000.0, False)
    assert [file.place for file in find_images(folder, ImageOptions(held_out=("town*",)))] == ["town"]


def test_an_image_that_does_not_say_its_gsd_is_refused_in_one_line(folder):
    (folder / "index.csv").unlink()
    with pytest.raises(ConfigError, match=r"fields.png: how many metres a pixel\? State it with --gsd"):
        find_images(folder, ImageOptions())
    assert find_images(folder, ImageOptions(gsd_m=2.0))[0].gsd_m == 2.0


def test_folders_without_images_and_broken_images_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        find_images(tmp_path / "none", ImageOptions())
    with pytest.raises(ConfigError, match="no image to evaluate on"):
        find_images(tmp_path, ImageOptions())
    (tmp_path / "broken.tif").write_bytes(b"II*\0 no more than that")
    with pytest.raises(ReadError, match=r"broken.tif: cannot be read"):
        find_images(tmp_path, ImageOptions())


@pytest.mark.parametrize("degradation", ["sensor", "gaussian"])
def test_pairs_show_the_same_ground_at_both_scales(folder, degradation):
    pairs = image_pairs(find_images(folder, ImageOptions()), 96, 2, degradation)
    assert {pair.place for pair in pairs} == {"fields", "town"}
    for pair in pairs:
        assert pair.hr.shape[-1] == 4 * pair.lr.shape[-1]
        inner = slice(2, -2)
        mean = F.avg_pool2d(pair.hr, 4)[:, inner, inner]
        shifts = {
            (dy, dx): float((pair.lr.roll((dy, dx), (1, 2))[:, inner, inner] - mean).abs().mean())
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        }
        assert min(shifts, key=shifts.__getitem__) == (0, 0)
    again = image_pairs(find_images(folder, ImageOptions()), 96, 2, degradation)
    assert all(torch.equal(a.lr, b.lr) for a, b in zip(pairs, again, strict=True))


def test_a_folder_without_scenes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no 12-band scene"):
        find_scenes([tmp_path])
