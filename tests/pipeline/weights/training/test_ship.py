"""Weights that ship are noted with what identifies them."""

from __future__ import annotations

import hashlib
import json

import pytest
from tiny_training import run

from difffusr.pipeline.weights.training.ship import ship

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_shipped_weights_are_noted_with_their_sha256(settings, tmp_path):
    run(settings, tmp_path / "a", steps=1)
    (tmp_path / "index.json").write_text('{"small": {"fusion": {"file": "small-fusion.safetensors", "sha256": "0"}}}')
    path = ship("stage1", tmp_path / "a" / "stage1.safetensors", tmp_path)
    noted = json.loads((tmp_path / "index.json").read_text())["small"]
    assert noted["stage1"] == {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert noted["fusion"]["sha256"] == "0"
