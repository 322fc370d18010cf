"""Both stages as one model: the same in every precision and execution, and as sure as its samples agree."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from fresh_python import loaded_by
from smooth_chips import chips
from torch import Tensor

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.model import SuperResolution, load_model
from difffusr.kernels.networks.fusion.build import build_fusion
from difffusr.kernels.networks.fusion.frame import FOLDED, FusionConfig
from difffusr.kernels.networks.fusion.frame import SMALL as SMALL_FUSION
from difffusr.kernels.networks.stage1 import SMALL, DiffusionConfig, Stage1
from difffusr.kernels.sampling.noise import ground_noise
from difffusr.kernels.sampling.settings import Sampling
from difffusr.kernels.weights.packaged import shipped_sampling


def test_bfloat16_changes_a_chip_by_less_than_its_noise():
    bands, valid, noise = chips()
    sampling = shipped_sampling()
    exact = load_model("small", sampling=sampling)(bands, valid, noise)
    lowered = load_model("small", sampling=Sampling(**{**vars(sampling), "precision": "bfloat16"}))(bands, valid, noise)
    assert lowered.dtype == torch.float32
    assert (lowered - exact).abs().mean() < 0.0002  # reflectance; a chip's noise is about 0.002


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("generation", ["v1", "v2", "folded", "corrected"])
def test_fused_networks_compute_the_same(generation, precision):
    torch.manual_seed(0)
    stage1 = Stage1(replace(SMALL, diffusion=DiffusionConfig()))
    fusion = build_fusion(FusionConfig(generation, 8, 3, 4)).eval().requires_grad_(False)
    for parameter in fusion.parameters():
        if not parameter.any():  # what training begins with
            parameter.normal_(std=0.05)
    bands, valid, noise = chips(side_m=240)
    sampling = Sampling(steps=2, precision=precision)
    eager = SuperResolution(copy.deepcopy(stage1), copy.deepcopy(fusion), sampling)(bands, valid, noise)
    fused = SuperResolution(stage1, fusion, sampling, execution="fused")(bands, valid, noise)
    assert not torch.equal(fused, eager), "another way of computing rounds in other places"
    # a few pixels differ by more: corrections are in units of a contrast that may be small
    torch.testing.assert_close(fused, eager, atol=1e-3 if precision == "float32" else 0.05, rtol=1e-3)
    assert (fused - eager).abs().mean() < (1e-5 if precision == "float32" else 1e-2)


@pytest.mark.parametrize("fusion", [SMALL_FUSION, FOLDED], ids=lambda config: config.generation)
def test_after_the_first_chip_nothing_is_made_on_the_cpu_and_no_value_is_looked_at(monkeypatch, fusion):
    """What a recording of the device's work must not hold: copies from lists, and questions to tensors."""
    model = SuperResolution(Stage1(SMALL).to("meta"), build_fusion(fusion).to("meta"), Sampling(steps=2),
                            device="meta", execution="fused")  # fmt: skip
    inputs = chips(2)
    bands, valid = ({gsd: x.to("meta") for gsd, x in part.items()} for part in inputs[:2])
    noise = inputs[2].to("meta")
    model(bands, valid, noise)

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("made on the CPU")

    index = Tensor.__getitem__

    def by_slices(x: Tensor, item: Any) -> Tensor:
        parts = item if isinstance(item, tuple) else (item,)
        assert not any(isinstance(part, list | Tensor) for part in parts), "an index made on the CPU"
        return index(x, item)

    for name in ("tensor", "as_tensor", "from_numpy"):
        monkeypatch.setattr(torch, name, refused)
    monkeypatch.setattr(Tensor, "new_tensor", refused)
    monkeypatch.setattr(Tensor, "__getitem__", by_slices)
    assert model(bands, valid, noise).shape == (2, 12, 384, 384)  # a value looked at raises on this device


def test_draft_needs_neither_noise_nor_the_diffusion_network():
    model = load_model("small", sampling=shipped_sampling().by("draft"))
    del model.stage1.ema
    reflectance = torch.Generator().manual_seed(0)
    bands = {
        gsd: 0.3 * torch.rand((1, len(GROUPS[gsd]), 360 // gsd, 360 // gsd), generator=reflectance) for gsd in GROUPS
    }
    valid = {gsd: torch.ones_like(x[:, :1], dtype=torch.bool) for gsd, x in bands.items()}
    assert model(bands, valid, None).shape == (1, 12, 144, 144)
    model.sampling = shipped_sampling().by("fast")
    with pytest.raises(ValueError, match="starts from noise"):
        model(bands, valid, None)


def test_the_model_is_called_once_a_sample_and_its_first_is_the_result():
    model = load_model("small", sampling=Sampling(steps=2))
    bands, valid, _ = chips(side_m=240)
    noises = [ground_noise(0, 32648, 0, 0, 96, 96, stream=i)[None] for i in range(3)]
    results = torch.stack([model(bands, valid, noise) for noise in noises])
    calls = iter(noises)
    result, std = model.with_spread(bands, valid, calls)
    assert next(calls, None) is None
    assert torch.equal(result, results[0])
    torch.testing.assert_close(std, results.std(dim=0), rtol=1e-3, atol=1e-6)
    assert float(std.median()) > 1e-5


def test_without_chance_there_is_no_spread():
    model = load_model("small", sampling=Sampling(steps=2, temperature=0.0))
    bands, valid, _ = chips(side_m=240)
    noises = (ground_noise(0, 32648, 0, 0, 96, 96, stream=i)[None] for i in range(2))
    assert not model.with_spread(bands, valid, noises)[1].any()


def test_loading_a_network_imports_no_compiler():
    """It takes longer than all else of an actor's start."""
    load = "from difffusr.kernels.model import load_model; load_model('small')"
    assert loaded_by(load, ("torch", "torch._dynamo", "torch._inductor", "sympy", "triton")) == ["torch"]
