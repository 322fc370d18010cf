"""Training: degradation stays physical, a few steps teach something, and what ships beats bicubic enlargement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kernels.checkpoints import load_weights
from kernels.metrics import psnr
from kernels.model import shipped
from kernels.stage1 import SMALL, Stage1
from pipeline.training import (
    FusionSettings,
    HRImage,
    NativeScene,
    PatchSource,
    Stage1Settings,
    _inference_weights,
    degrade,
    evaluate_stage1,
    load_hr_images,
    random_radiometry,
    stage1_losses,
    start_as_bilinear,
    train_fusion,
    train_stage1,
    validation_pairs,
)

HR = (Path(__file__).resolve().parents[3] / "shared").resolve() / "data" / "hr"


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


def test_degradation_keeps_reflectance_and_brightness(fields):
    rng = np.random.default_rng(1)
    source = PatchSource.build([fields], 144)
    hr = torch.stack([source.draw(rng) for _ in range(16)])
    lr = degrade(hr, rng, margin=2)
    assert lr.shape == (16, 2, 3, 32, 32)
    assert torch.isfinite(lr).all()
    assert lr.min() > -0.6
    assert lr.max() < 1.6  # noise of 0.1 at most
    inner = hr[..., 8:-8, 8:-8].mean((1, 2, 3, 4))
    assert torch.allclose(lr.mean((1, 2, 3, 4)), inner, atol=0.02)


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


def test_training_starts_near_bilinear_enlargement():
    torch.manual_seed(0)
    learning = Stage1(SMALL, training=True)
    start_as_bilinear(learning)
    stage1 = Stage1(SMALL)
    stage1.load_state_dict(_inference_weights(learning))
    lr = torch.full((1, 3, 24, 24), 0.1)
    lr[..., 12:] = 0.2
    out = stage1.sample(lr, torch.randn(1, 3, 96, 96), skip=250, skip_last=True)
    bilinear = F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
    assert psnr(out, bilinear) > 26


@pytest.mark.slow
def test_a_few_steps_reduce_the_loss_and_a_run_continues(fields, tmp_path):
    settings = Stage1Settings(steps=12, batch=4, lr_px=16, warm_up=2, log_every=4, validate_every=100)
    torch.manual_seed(settings.seed)
    source = PatchSource.build([fields], 80)
    before = Stage1(SMALL, training=True)
    start_as_bilinear(before)
    start = stage1_losses(before, source, settings, np.random.default_rng(9))["sample"]
    train_stage1([fields], [fields], settings, tmp_path)
    longer = Stage1Settings(steps=24, batch=4, lr_px=16, warm_up=2, log_every=4, validate_every=100)
    train_stage1([fields], [fields], longer, tmp_path)
    run = torch.load(tmp_path / "run.pt", weights_only=True)
    assert run["step"] == 24
    after = Stage1(SMALL, training=True)
    after.load_state_dict(run["learning"])
    assert stage1_losses(after, source, settings, np.random.default_rng(9))["sample"] < start


def test_fusion_trains_on_a_scene(scene, caplog):
    caplog.set_level("INFO", logger="pipeline.training")
    train_fusion([scene], [scene], FusionSettings(steps=20, batch=1, truth_px=48, warm_up=2, log_every=10))
    first, last = (float(r.getMessage().split("10 m ")[1].split(",")[0]) for r in caplog.records[:2])
    assert last < first


def test_shipped_weights_beat_bicubic_on_places_never_trained_on():
    if not HR.exists():
        pytest.skip(f"no imagery at {HR}")
    stage1 = Stage1.from_weights(load_weights(shipped("small", "stage1")))
    images = load_hr_images(HR)[1][::3]
    for kind, pairs in validation_pairs(images, per_image=1, size_px=128).items():
        scores = evaluate_stage1(stage1, pairs)
        assert scores["sample"] > scores["bicubic"] + 0.2, kind
        assert scores["sample+bp"] > scores["bicubic"] + 0.4, kind
