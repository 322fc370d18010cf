"""What the shipped models must be worth, on places that their training never saw."""

from __future__ import annotations

import pytest
import torch
from beside import SHARED

from difffusr.kernels.bands import BANDS
from difffusr.kernels.model import load_model
from difffusr.kernels.networks.fusion.build import fusion_from_weights
from difffusr.kernels.networks.stage1 import Stage1
from difffusr.kernels.weights.checkpoints import load_weights
from difffusr.kernels.weights.packaged import shipped, shipped_sampling
from difffusr.pipeline.weights.evaluation.card import CARD, filled, held_out_pairs, unseen_scenes
from difffusr.pipeline.weights.evaluation.flatness import evaluate_flatness
from difffusr.pipeline.weights.evaluation.fusion import evaluate_fusion
from difffusr.pipeline.weights.evaluation.super_resolution import CONTEXT, SAMPLE, evaluate_super_resolution

DATA = SHARED / "data"

pytestmark = [
    pytest.mark.slow,  # the shipped weights are known by their sha256: what they are worth changes with them alone
    pytest.mark.skipif(not DATA.exists(), reason=f"no real data: {DATA} is not there"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]


@pytest.fixture(scope="module")
def super_resolution():
    torch.manual_seed(0)
    stage1 = Stage1.from_weights(load_weights(shipped("small", "stage1"))).eval()
    pairs = held_out_pairs(DATA, "sensor")[::4]
    found = evaluate_super_resolution(stage1, pairs, shipped_sampling(), {}, samples=0, crops=0, timed=False)
    return found.tables[0].mean


def test_the_context_encoder_is_half_a_decibel_above_bicubic(super_resolution):
    assert super_resolution[CONTEXT]["psnr"] > super_resolution["bicubic"]["psnr"] + 0.5


def test_a_sample_is_a_quarter_nearer_to_the_truth_in_texture_than_bicubic(super_resolution):
    for measure in ("swd", "swd_scaled"):
        assert super_resolution[f"{SAMPLE} + bp"][measure] < 0.75 * super_resolution["bicubic"][measure]


def test_a_sample_seen_through_the_sensor_is_its_input(super_resolution):
    assert super_resolution[f"{SAMPLE} + bp"]["residual"] <= 0.002


def test_fusion_beats_every_classical_method():
    network = fusion_from_weights(load_weights(shipped("small", "fusion")))
    margins = evaluate_fusion(network, unseen_scenes(DATA), {}, crops=0).extra["against_the_best"]
    for bands, least in (("20 m bands", 0.20), ("60 m bands", 0.10)):
        margin = margins[bands]["guided by RGB"]
        assert margin["ergas_relative"] <= -least
        assert margin["sam_difference"] <= 0


def test_open_sea_stays_flat():
    model = load_model("small", sampling=shipped_sampling())
    energies = evaluate_flatness(model, DATA / "l2a_patches" / "hydro_water" / "patch_10.tif", side_px=96)
    for band in BANDS:
        assert energies[band]["product"] <= energies[band]["input"], band


def test_the_card_has_a_place_for_every_table_and_every_place_is_filled():
    card = CARD.read_text()
    names = [line.split()[2] for line in card.splitlines() if line.startswith("<!-- begin")]
    assert len(names) == 13
    again = filled(card, {name: f"table of {name}" for name in names})
    assert all(f"<!-- begin {name} -->\ntable of {name}\n<!-- end {name} -->" in again for name in names)
    assert all(f"<!-- begin {name} -->\n<!-- end" not in card for name in names)  # none is empty as shipped
