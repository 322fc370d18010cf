"""The fusion learns from Sentinel-2 itself."""

from __future__ import annotations

import pytest
from tiny_training import run

from difffusr.kernels.weights.checkpoints import load_weights
from difffusr.pipeline.weights.training.settings import FusionSettings

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_fusion_trains_on_scenes(scenes, tmp_path):
    settings = FusionSettings.model_validate(
        {
            "out": str(tmp_path / "out"),
            "data": [{"path": str(scenes), "held_out": ["three"]}],
            "steps": 20,
            "batch": 1,
            "truth_px": 48,
            "warm_up": 2,
            "samples_every": 100,
        }
    )
    lines = run(settings, tmp_path / "out")
    totals = [float(line.split(",")[1]) for line in lines[1:]]
    assert sum(totals[-5:]) < sum(totals[:5])
    assert load_weights(tmp_path / "out" / "fusion.safetensors").kind == "fusion_folded"
    assert (tmp_path / "out" / "samples" / "step-000020.png").exists()
