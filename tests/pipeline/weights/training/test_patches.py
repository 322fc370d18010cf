"""Patches that a training draws: the same for the same seed, without gaps, as dark and as bright as scenes are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from held_image import Held

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.weights.training.draws import Seeds
from difffusr.pipeline.weights.training.imagery import HRImage
from difffusr.pipeline.weights.training.patches import patch_source, random_radiometry

CPU = torch.device("cpu")

#: Gigabytes that hold all images, or none.
MEMORY = pytest.mark.parametrize("memory_gb", [1, 1e-9], ids=["on the device", "from files"])


def source(images: list[HRImage], size: int, memory_gb: float, resample: str = "none"):
    return patch_source([Held(image, resample) for image in images], size, CPU, memory_gb)


@MEMORY
def test_the_same_seed_draws_the_same_patches(fields, memory_gb: float):
    of = source([fields], 144, memory_gb)
    one, again, later, elsewhere = (of.draw(Seeds(*at), 4)[0] for at in ((5, 1, 0), (5, 1, 0), (5, 2, 0), (5, 1, 1)))
    assert torch.equal(one, again)
    assert not torch.equal(one, later)
    assert not torch.equal(one, elsewhere)


@pytest.mark.parametrize("seed", range(3))
def test_images_from_files_give_the_patches_of_those_in_memory(fields, seed: int):
    dark = HRImage("dark", 1.25, fields.pixels[:, :200] / 3, fields.valid[:200], display=False)
    drawn = [source([fields, dark], 64, memory_gb, "pyramid").draw(Seeds(seed, 0, 0), 32) for memory_gb in (1, 1e-9)]
    for held, stored in zip(*drawn, strict=True):
        assert torch.equal(held, stored)
    assert drawn[0][1].unique().tolist() == [False, True]


@MEMORY
def test_patches_avoid_pixels_without_data(fields, memory_gb: float):
    valid = fields.valid.copy()
    valid[:100, :100] = False
    marked = fields.pixels.copy()
    marked[:, ~valid] = np.nan
    holed = HRImage("holed", 2.5, marked, valid, display=True)
    assert torch.isfinite(source([holed], 128, memory_gb).draw(Seeds(3, 0, 0), 64)[0]).all()


@MEMORY
def test_an_image_of_gaps_alone_is_named(fields, memory_gb: float):
    empty = HRImage("empty", 2.5, fields.pixels, np.zeros_like(fields.valid), display=True)
    with pytest.raises(ConfigError, match="no patch of 64 pixels without gaps"):
        source([empty], 64, memory_gb).draw(Seeds(0, 0, 0), 1)


@MEMORY
def test_images_smaller_than_a_patch_are_named(fields, memory_gb: float):
    with pytest.raises(ConfigError, match="lower lr_px"):
        source([fields], 300, memory_gb)


def test_radiometry_covers_dark_water_and_bright_desert():
    grey = torch.full((300, 1, 3, 8, 8), 0.45)
    draws = Seeds(2, 0, 0).draws(CPU)
    means = random_radiometry(grey, torch.ones(300, dtype=torch.bool), draws).mean((1, 2, 3, 4))
    assert means.min() < 0.04
    assert means.max() > 0.35
    assert means.median() < 0.2


def test_what_was_not_made_for_the_eye_keeps_its_contrast():
    """Without the power law, a gain alone lies between two pixels."""
    pair = torch.tensor([0.2, 0.4]).expand(200, 1, 3, 1, 2).clone()
    seen = random_radiometry(pair, torch.zeros(200, dtype=torch.bool), Seeds(0, 0, 0).draws(CPU))
    gain = (seen[..., 1] - seen[..., 0]) / 0.2
    assert gain.min() > 0.4 * 0.85 - 1e-3
    assert gain.max() < 1.6 * 1.15 + 1e-3
