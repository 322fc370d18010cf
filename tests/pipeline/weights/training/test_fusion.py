"""The fusion learns from Sentinel-2 itself."""

from __future__ import annotations

import math

import pytest
from tiny_training import losses_of, run

from difffusr.kernels.networks.fusion import fusion_from_weights
from difffusr.kernels.weights.checkpoints import load_weights
from difffusr.pipeline.weights.training.launch import train_here
from difffusr.pipeline.weights.training.settings import FusionSettings

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def settings(scenes, tmp_path):
    return {
        "out": str(tmp_path / "out"),
        "data": [{"path": str(scenes), "held_out": ["three"]}],
        "steps": 20,
        "batch": 1,
        "truth_px": 48,
        "warm_up": 2,
        "samples_every": 100,
    }


def test_fusion_trains_on_scenes(settings, tmp_path):
    lines = run(FusionSettings.model_validate(settings | {"network": "folded"}), tmp_path / "out")
    totals = [float(line.split(",")[1]) for line in lines[1:]]
    assert sum(totals[-5:]) < sum(totals[:5])
    assert load_weights(tmp_path / "out" / "fusion.safetensors").kind == "fusion_folded"
    assert (tmp_path / "out" / "samples" / "step-000020.png").exists()


def test_a_correction_of_the_classical_estimate_trains_on_varied_scenes(settings, tmp_path):
    network = {"generation": "corrected", "channels": 8, "blocks": 1, "growth": 4}
    settings = FusionSettings.model_validate(settings | {"network": network, "variation": "wide", "steps": 6})
    weights = load_weights(train_here(settings))
    lines = losses_of(tmp_path / "out")
    assert len(lines) == 7
    assert all(math.isfinite(float(value)) for value in lines[-1].split(","))
    assert weights.kind == "fusion_corrected"
    assert fusion_from_weights(weights).branch(20).last.weight.abs().max() > 0, "it has begun to correct"
