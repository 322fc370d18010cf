"""Stage 2 gives the published numbers: both generations of fusion, and Gram-Schmidt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from difffusr.kernels.bands import GROUPS, RGB, band_indices
from difffusr.kernels.images.degradation import wald_downsample
from difffusr.kernels.images.normalisation import FUSION, FUSION_RGB, to_uint8
from difffusr.kernels.measures.pansharpen import LUMA, gram_schmidt, gram_schmidt_by_resolution, pan_from_rgb
from difffusr.kernels.networks.fused import fuse
from difffusr.kernels.networks.fusion.build import build_fusion, fusion_from_weights
from difffusr.kernels.networks.fusion.frame import (
    PUBLISHED_V1,
    PUBLISHED_V2,
    FusionConfig,
    FusionNetwork,
    merge_groups,
    resize_bilinear,
    split_groups,
)
from difffusr.kernels.networks.stage1 import Stage1
from difffusr.kernels.weights.checkpoints import load_weights

if TYPE_CHECKING:
    from published_numbers import Conformance, Fixture

PUBLISHED = {"08_fusion_rrdb_v1": PUBLISHED_V1, "09_fusion_mtf_v2": PUBLISHED_V2}
NARROW = {
    "08_fusion_rrdb_v1": FusionConfig("v1", channels=8, blocks=1, growth=4),
    "09_fusion_mtf_v2": FusionConfig("v2", channels=8, blocks=3, growth=4),
}
both_generations = pytest.mark.parametrize("name", list(NARROW))


def narrow_network(fixture: Fixture, name: str) -> FusionNetwork:
    network = build_fusion(NARROW[name]).eval()
    network.load_state_dict(fixture.weights())
    return network


def check_groups(fixture: Fixture, outputs: Mapping[int, Tensor], prefix: str) -> None:
    for gsd, out in outputs.items():
        fixture.check(out, f"{prefix}{gsd}")


@pytest.mark.parametrize(
    ("layout", "config"), [("fusion_rrdb_v1", PUBLISHED_V1), ("fusion_mtf_v2", PUBLISHED_V2)], ids=["v1", "v2"]
)
def test_a_published_fusion_has_the_published_keys_shapes_and_types(
    conformance: Conformance, layout: str, config: FusionConfig
) -> None:
    stated = conformance.layout()[layout]
    with torch.device("meta"):
        network = build_fusion(config)
    ours = {k: (list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in network.state_dict().items()}
    assert ours == {e["key"]: (e["shape"], e["dtype"]) for e in stated["entries"]}
    parameters = {key for key, _ in network.named_parameters()}
    assert parameters == {e["key"] for e in stated["entries"] if e["kind"] == "parameter"}
    assert FusionConfig.from_state_dict(network.state_dict()) == config


@both_generations
@pytest.mark.parametrize("way", ["plain", "fused"])
@torch.no_grad()
def test_each_branch_on_the_guides_grid(conformance: Conformance, name: str, way: str) -> None:
    fixture = conformance(name)
    network = narrow_network(fixture, name)
    if way == "fused":
        fuse(network)
    for gsd in GROUPS:
        out = network.branch(gsd)(fixture.tensor(f"branch{gsd}/rgb"), fixture.tensor(f"branch{gsd}/ms"))
        fixture.check(out, f"branch{gsd}/out")


@both_generations
@torch.no_grad()
def test_twelve_bands_on_the_10_m_grid(conformance: Conformance, name: str) -> None:
    fixture = conformance(name)
    network = narrow_network(fixture, name)
    bands = fixture.tensor("eval/ms12")
    check_groups(fixture, network(bands, fixture.tensor("eval/fusion_signal")), "eval/out")
    check_groups(fixture, network(bands), "eval_no_signal/out")
    check_groups(fixture, split_groups(bands), "eval/gt")


@torch.no_grad()
def test_bands_on_native_grids_under_their_reference_names(conformance: Conformance) -> None:
    fixture = conformance("09_fusion_mtf_v2")
    network = narrow_network(fixture, "09_fusion_mtf_v2")
    bands = {f"S2:{name}": value for name, value in fixture.under("eval_native/S2:").items()}
    check_groups(fixture, network(bands, fixture.tensor("eval_native/fusion_signal")), "eval_native/out")


@both_generations
@torch.no_grad()
def test_the_forward_pass_of_walds_protocol(conformance: Conformance, name: str) -> None:
    fixture = conformance(name)
    network = narrow_network(fixture, name)
    bands = {f"S2:{band}": value for band, value in fixture.under("train/S2:").items()}
    out = network.wald_forward(bands)
    check_groups(fixture, out, "train/out")
    truth = split_groups(bands)
    losses = [(out[gsd] - truth[gsd]).abs().mean() for gsd in GROUPS]
    fixture.check(torch.stack([*losses, torch.stack(losses).sum()]), "train/l1_10_20_60_sum")
    if name.startswith("08"):
        fixture.check(resize_bilinear(wald_downsample(truth[10], 4), truth[10].shape[-2:]), "train/ms10")
        fixture.check(wald_downsample(truth[10][:, :3], 2), "train/sig20")
        fixture.check(wald_downsample(truth[10][:, :3], 6), "train/sig60")


def test_a_fresh_v2_starts_from_the_published_filters_and_pan(conformance: Conformance) -> None:
    fixture = conformance("09_fusion_mtf_v2")
    fresh = build_fusion(NARROW["09_fusion_mtf_v2"]).state_dict()
    for key in fixture.under("init/"):
        fixture.check(fresh[key], f"init/{key}")


@torch.no_grad()
def test_bands_come_out_the_same_one_by_one_or_together(conformance: Conformance, monkeypatch) -> None:
    fixture = conformance("09_fusion_mtf_v2")
    network = narrow_network(fixture, "09_fusion_mtf_v2")
    monkeypatch.setattr("difffusr.kernels.networks.fusion.mtf.ACTIVATION_BUDGET_BYTES", 0)
    check_groups(fixture, network(fixture.tensor("eval/ms12"), fixture.tensor("eval/fusion_signal")), "eval/out")


@both_generations
@torch.no_grad()
def test_fusion_of_reflectance_from_a_given_super_resolved_rgb(conformance: Conformance, name: str) -> None:
    fixture = conformance("10_end_to_end")
    network = narrow_network(conformance(name), name)
    bands, guide = FUSION.apply(fixture.tensor("lr12")), FUSION_RGB.apply(fixture.tensor("given_sr_rgb"))
    fixture.check(bands, "lr12_norm")
    fused = FUSION.invert(merge_groups(network(bands, guide)))
    output = "given_fused_rrdb_v1" if name.startswith("08") else "given_fused_mtf_v2"
    fixture.check(fused, output, fixture.tolerance("given_*"))
    if name.startswith("08"):
        counts = to_uint8(fused)[0].permute(1, 2, 0)
        fixture.check(counts, "given_fused_rrdb_v1_uint8_hwc", 1)  # one count where a float is at a rounding boundary


@torch.no_grad()
def test_twelve_bands_through_both_stages(conformance: Conformance) -> None:
    fixture = conformance("10_end_to_end")
    stage1 = Stage1.from_weights(load_weights(conformance("07_stage1_tiny").folder / "stage1_tiny.ckpt"))
    lr = fixture.tensor("lr12")
    sr = stage1.sample(lr[:, band_indices(RGB)], fixture.tensor("x_T"))
    fixture.check(sr, "sr_rgb")
    guide = FUSION_RGB.apply(sr)
    fixture.check(guide, "sr_rgb_norm")
    for name, output in (("08_fusion_rrdb_v1", "fused_rrdb_v1"), ("09_fusion_mtf_v2", "fused_mtf_v2")):
        network = fusion_from_weights(load_weights(conformance(name).folder / "weights.safetensors"))
        fixture.check(FUSION.invert(merge_groups(network(FUSION.apply(lr), guide))), output)
    fixture.check(gram_schmidt_by_resolution(lr, sr), "fused_gram_schmidt")


def test_gram_schmidt_from_a_given_super_resolved_rgb(conformance: Conformance) -> None:
    fixture = conformance("10_end_to_end")
    fused = gram_schmidt_by_resolution(fixture.tensor("lr12"), fixture.tensor("given_sr_rgb"))
    fixture.check(fused, "given_fused_gram_schmidt", fixture.tolerance("given_*"))


@pytest.mark.parametrize("i", [0, 1])
def test_gram_schmidt(conformance: Conformance, i: int) -> None:
    fixture = conformance("11_gram_schmidt")
    ms, rgb = fixture.tensor(f"ms{i}"), fixture.tensor(f"pan{i}")
    fixture.check(gram_schmidt_by_resolution(ms, rgb), f"by_resolution{i}")
    group = ms[:, band_indices(["B02", "B03", "B04", "B08"])]
    fixture.check(gram_schmidt(group, pan_from_rgb(rgb)), f"single_group_10m{i}")
    first_four = ms[:, :4]  # what these numbers were made of, though not the bands of one resolution
    luma = pan_from_rgb(rgb, LUMA)
    fixture.check(gram_schmidt(resize_bilinear(first_four, rgb.shape[-2:]), luma), f"luma_same_grid{i}")
    fixture.check(gram_schmidt(first_four, resize_bilinear(luma, first_four.shape[-2:])), f"luma_pan_resized{i}")


@pytest.mark.parametrize(
    ("name", "config"), [("18_full_fusion_rrdb_v1", PUBLISHED_V1), ("19_full_fusion_mtf_v2", PUBLISHED_V2)]
)
@torch.no_grad()
def test_a_fusion_of_published_size(conformance: Conformance, name: str, config: FusionConfig) -> None:
    fixture = conformance(name)
    network = build_fusion(config).eval()
    conformance.fill(network, fixture)
    check_groups(fixture, network(fixture.tensor("ms12"), fixture.tensor("fusion_signal")), "out")


def test_the_rgb_of_the_guide_is_that_of_the_bands(conformance: Conformance) -> None:
    fixture = conformance("10_end_to_end")
    rgb = fixture.tensor("lr12")[:, band_indices(RGB)]
    assert torch.equal(FUSION_RGB.apply(rgb), FUSION.apply(fixture.tensor("lr12"))[:, band_indices(RGB)])
