"""The networks run the same whichever way: lowered precision, compiled forms, recordings."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.model import SuperResolution, load_model
from difffusr.kernels.networks.execution import compiled
from difffusr.kernels.networks.fused import depthwise, depthwise_by_shifts, norm_swish, norm_swish_by_moments
from difffusr.kernels.networks.fusion.build import build_fusion
from difffusr.kernels.networks.fusion.frame import PUBLISHED_V1, PUBLISHED_V2, FusionConfig
from difffusr.kernels.networks.fusion.frame import SMALL as SMALL_FUSION
from difffusr.kernels.networks.stage1 import SMALL, Stage1
from difffusr.kernels.sampling.settings import Sampling
from difffusr.kernels.weights.shipped import shipped_sampling
from difffusr.pipeline.chips.actor import SuperResolver
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.ground.errors import DifffusrError

#: Side of the test chips in metres.
SIDE_M = 960


def chips(count: int = 1, side_m: int = SIDE_M) -> tuple[Mapping[int, Tensor], Mapping[int, Tensor], Tensor]:
    """Smooth reflectance with some texture, a hole, and noise."""
    generator = torch.Generator().manual_seed(3)
    ground = F.interpolate(torch.rand(count, 1, 12, 12, generator=generator), size=side_m // 10, mode="bicubic")
    bands, valid = {}, {}
    for gsd, names in GROUPS.items():
        side = side_m // gsd
        level = 0.05 + 0.2 * torch.rand(1, len(names), 1, 1, generator=generator)
        texture = 0.01 * torch.randn(count, len(names), side, side, generator=generator)
        bands[gsd] = level * (0.5 + F.interpolate(ground, size=side, mode="area")) + texture
        valid[gsd] = torch.ones(count, 1, side, side, dtype=torch.bool)
        valid[gsd][:, :, : side // 4, side // 2 :] = False
    return bands, valid, torch.randn(count, 3, 4 * side_m // 10, 4 * side_m // 10, generator=generator)


def test_a_norm_by_moments_is_the_librarys():
    x = (torch.randn(2, 24, 17, 13) * 3 + 1).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(24), torch.randn(24)
    for groups in (8, 24):
        torch.testing.assert_close(
            norm_swish_by_moments(x, groups, weight, bias), norm_swish(x, groups, weight, bias), atol=1e-5, rtol=1e-5
        )


def test_a_depthwise_convolution_by_shifts_is_the_librarys():
    x, kernels = torch.randn(2, 5, 9, 12), torch.randn(2, 5, 1, 3, 3)
    torch.testing.assert_close(depthwise_by_shifts(x, kernels), depthwise(x, kernels), atol=1e-5, rtol=1e-5)
    one = F.conv2d(x[1:], kernels[1], padding=1, groups=5)
    torch.testing.assert_close(depthwise_by_shifts(x, kernels)[1:], one, atol=1e-5, rtol=1e-5)


def test_one_noise_level_for_all_is_as_good_as_one_each():
    unet = Stage1(SMALL).ema
    x, ctx, vector = torch.randn(3, 3, 32, 32), torch.randn(3, 32, 8, 8), torch.randn(3, 64)
    each = unet(x, torch.full((3, 1), 0.4), ctx, vector)
    torch.testing.assert_close(unet(x, torch.full((1, 1), 0.4), ctx, vector), each, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [SMALL_FUSION, PUBLISHED_V1, PUBLISHED_V2], ids=lambda c: c.generation)
def test_lowered_features_leave_a_fusion_networks_output_float32(config: FusionConfig):
    torch.manual_seed(0)
    network = build_fusion(FusionConfig(config.generation, 16, 2, 8)).eval().requires_grad_(False)
    bands = chips(side_m=480)[0]
    if config.generation != "folded":
        bands = {gsd: F.interpolate(x, size=48) for gsd, x in bands.items()}
    exact = network(bands)
    network.lower(torch.bfloat16)
    lowered = network(bands)
    for gsd in GROUPS:
        assert lowered[gsd].dtype == torch.float32
        values = lowered[gsd].unique().numel() / lowered[gsd].numel()
        assert values > 0.1  # not the few values that bfloat16 has
        torch.testing.assert_close(lowered[gsd], exact[gsd], atol=0.05, rtol=0.05)


def test_bfloat16_changes_a_chip_by_less_than_its_noise():
    bands, valid, noise = chips()
    sampling = shipped_sampling()
    exact = load_model("small", sampling=sampling)(bands, valid, noise)
    lowered = load_model("small", sampling=Sampling(**{**vars(sampling), "precision": "bfloat16"}))(bands, valid, noise)
    assert lowered.dtype == torch.float32
    assert (lowered - exact).abs().mean() < 0.0002  # reflectance; a chip's noise is about 0.002


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("generation", ["v1", "v2", "folded"])
def test_whatever_is_compiled_is_one_graph_each(monkeypatch, generation, precision):
    """Traced as for a GPU, and then run operation by operation: where Python had to step in, tracing would fail."""

    def traced(function: Any) -> Any:
        compiled(function)  # knows its options
        return torch.compile(function, dynamic=False, fullgraph=True, backend="eager")

    torch.manual_seed(0)
    stage1, fusion = Stage1(SMALL), build_fusion(FusionConfig(generation, 8, 2, 4)).eval().requires_grad_(False)
    bands, valid, noise = chips(side_m=240)
    sampling = Sampling(steps=2, precision=precision)
    eager = SuperResolution(copy.deepcopy(stage1), copy.deepcopy(fusion), sampling)(bands, valid, noise)
    monkeypatch.setattr("difffusr.kernels.model.compiled", traced)
    one_graph = SuperResolution(stage1, fusion, sampling, execution="compiled")(bands, valid, noise)
    torch.testing.assert_close(one_graph, eager, atol=1e-3 if precision == "float32" else 0.05, rtol=0.01)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
def test_compiled_networks_compute_the_same():
    bands, valid, noise = chips()
    sampling = Sampling(steps=2)
    eager = load_model("small", sampling=sampling)(bands, valid, noise)
    fused = load_model("small", sampling=sampling, execution="compiled")(bands, valid, noise)
    torch.testing.assert_close(fused, eager, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_the_noise_kernel_gives_the_ground_the_same_noise():
    """In Triton's interpreter: what the kernel computes is seen without a GPU."""
    program = """
import torch
from difffusr.kernels.sampling.noise import ground_noise
for seed, zone, row, col, stream in ((7, 32632, -2119680, 160, 0), ((1 << 61) + (1 << 35) + 5, 32748, 12, -40, 3)):
    kernel = ground_noise(seed, zone, row, col, 41, 53, stream=stream, kernel=True)
    assert torch.equal(kernel, ground_noise(seed, zone, row, col, 41, 53, stream=stream)), (seed, zone)
print("same")
"""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "same", done.stderr[-2000:]


def test_after_the_first_chip_nothing_is_made_on_the_cpu_and_no_value_is_looked_at(monkeypatch):
    """What a recording of the device's work must not hold: copies from lists, and questions to tensors."""
    model = SuperResolution(Stage1(SMALL).to("meta"), build_fusion(SMALL_FUSION).to("meta"), Sampling(steps=2),
                            device="meta")  # fmt: skip
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


def test_networks_that_cannot_be_compiled_run_as_they_are_unless_compiling_is_asked_for(monkeypatch, tmp_path):
    def without_compiler(function: Any) -> Any:
        raise RuntimeError("no compiler\nfound here")

    monkeypatch.setattr("difffusr.kernels.model.compiled", without_compiler)
    path = tmp_path / "run.yaml"
    path.write_text(
        "area: {bbox: [5, 49, 6, 50]}\nperiod: {start: 2024-06-01, end: 2024-06-30}\n"
        "source: {static_catalog: catalog.json}\nstore: {url: cube.zarr}\ngrid: {chip_px: 48, overlap_px: 12}\n"
    )
    config = load_config(path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert SuperResolver(config).model.execution == "eager"
    asked = config.model_copy(update={"compute": config.compute.model_copy(update={"execution": "compiled"})})
    with pytest.raises(
        DifffusrError, match=r"cannot be compiled here \(no compiler\); set compute.execution to 'eager'"
    ):
        SuperResolver(asked)
