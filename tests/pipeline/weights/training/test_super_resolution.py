"""Stage 1 learns the same from images on disk as from images in memory, and continues from weights."""

from __future__ import annotations

import pytest
import torch
from tiny_training import run

from difffusr.kernels.weights.checkpoints import load_weights
from difffusr.pipeline.weights.training.super_resolution import SuperResolutionTask

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_images_too_many_for_memory_are_read_when_drawn(settings, tmp_path):
    whole = run(settings, tmp_path / "a", steps=2)
    assert run(settings, tmp_path / "b", steps=2, memory_gb=1e-9) == whole


def test_training_goes_on_from_weights(settings, tmp_path):
    run(settings, tmp_path / "a", steps=1)
    task = SuperResolutionTask(
        settings.model_copy(update={"start": str(tmp_path / "a" / "stage1.safetensors")}), torch.device("cpu")
    )
    task.build()
    exported = load_weights(tmp_path / "a" / "stage1.safetensors").state_dict
    assert torch.equal(task.learning.model.state_dict()["first_conv_x.weight"], exported["ema.first_conv_x.weight"])
