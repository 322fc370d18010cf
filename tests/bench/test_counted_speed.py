"""What a chip costs a GPU, counted: the targets hold, and what must not be there is not."""

from __future__ import annotations

import counted_speed
import pytest
import torch
import torch.nn.functional as F
from model_speed import case_of


@pytest.fixture(scope="module")
def fast() -> counted_speed.Counter:
    """A batch of `fast`, published sizes, 144 px."""
    return counted_speed.counted(case_of("published", "fast", "bfloat16", "fused", 8, 144))


def milliseconds(counter: counted_speed.Counter, batch: int = 8) -> float:
    return 1e3 * sum(cost.seconds for cost in counter.parts.values()) / batch


def test_a_chip_of_fast_takes_fifteen_milliseconds(fast):
    assert 8 < milliseconds(fast) <= 15


@pytest.mark.slow
def test_a_chip_of_the_reference_takes_forty_five_milliseconds_and_a_fraction_of_eager():
    fused, eager = (
        counted_speed.counted(case_of("published", "reference", "bfloat16", execution, 8, 144))
        for execution in ("fused", "eager")
    )
    assert 26 < milliseconds(fused) <= 45  # 13 TFLOP alone are 26
    assert milliseconds(eager) > 1.5 * milliseconds(fused)


def test_the_diffusion_network_concatenates_copies_and_enlarges_nothing(fast):
    seen = {name.split(": ")[1] for name in fast.operators if name.startswith("diffusion network: ")}
    assert {"convolution", "difffusr::depthwise", "difffusr::normalise"} <= seen
    assert not {name for name in seen if name.startswith(("upsample", "native_group_norm", "contiguous", "clone"))}
    small = fast.operators["diffusion network: cat"]  # sine and cosine of the noise level
    assert small.bytes < 1e5
    assert fast.operators["diffusion network: copy_"].launches == 4  # the folded image, once a step


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["nhwc", "nchw"])
def test_a_convolution_is_one_launch_its_bias_another(layout):
    x = torch.empty(2, 8, 6, 4, device="meta").to(memory_format=layout)
    weight, bias = torch.empty(8, 8, 3, 3, device="meta"), torch.empty(8, device="meta")
    with torch.inference_mode(), counted_speed.Counter() as counter:
        F.relu(F.conv2d(x, weight, bias, padding=1) + 1)
    kinds = {kind: cost for (_, kind), cost in counter.parts.items()}
    image = x.numel() * 4
    conv = kinds["convolutions and products"]
    assert (conv.launches, conv.flop) == (1, 2 * 9 * 8 * x.numel())
    assert conv.bytes == 2 * image + weight.numel() * 4 + bias.numel() * 4
    assert (kinds["other kernels"].launches, kinds["other kernels"].bytes) == (3, 3 * 2 * image)
