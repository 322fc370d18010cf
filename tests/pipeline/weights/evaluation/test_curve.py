"""What a faster sampler costs in quality."""

from __future__ import annotations

import pytest
from beside import SHARED

from difffusr.kernels.networks.stage1 import Stage1
from difffusr.kernels.weights.checkpoints import load_weights
from difffusr.kernels.weights.packaged import shipped, shipped_sampling
from difffusr.pipeline.weights.evaluation.card import held_out_pairs
from difffusr.pipeline.weights.evaluation.curve import DISTANCES, MOST_DISTANCE, MOST_PSNR_DB, costs, point

DATA = SHARED / "data"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"no real data: {DATA} is not there")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_fast_costs_next_to_nothing_against_reference():
    stage1 = Stage1.from_weights(load_weights(shipped("small", "stage1")))
    pairs = held_out_pairs(DATA, "sensor")[1::6]
    fast, reference = (point(stage1, pairs, shipped_sampling(sampler=sampler)) for sampler in ("fast", "reference"))
    cost = costs(fast, reference)
    assert cost["psnr"] <= MOST_PSNR_DB
    assert all(cost[name] <= MOST_DISTANCE for name in DISTANCES)
