"""A chip can be recorded as a CUDA graph: from its second call on a model asks for no values, and moves none between
host and device. Seen without a GPU, on the meta device: its tensors have no values, those of the host are the CPU's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu.subject import tiny_networks
from model_speed import chips
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from difffusr.kernels.model import SuperResolution
from difffusr.kernels.networks import Stage1
from difffusr.kernels.networks.fusion.build import build_fusion
from difffusr.kernels.networks.fusion.frame import FOLDED, SMALL, FusionConfig
from difffusr.kernels.networks.stage1 import SMALL as STAGE1_SMALL
from difffusr.kernels.sampling.settings import SAMPLERS, Sampling

META = torch.device("meta")

FIRST = FusionConfig("v1", channels=8, blocks=1, growth=4)


class Moves(TorchDispatchMode):
    """Notes operators that take or give both tensors of the host, other than numbers, and tensors of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        on_host = any(x.device.type == "cpu" and x.dim() for x in tensors)
        if any(x.is_meta for x in tensors) and (on_host or "_local_scalar_dense" in str(func)):
            self.seen.append(str(func))
        return out


def networks(name: str) -> tuple[Any, Any]:
    with META:
        if name == "published kinds":
            return tiny_networks()
        fusion = {"shipped kinds": SMALL, "folded": FOLDED, "first generation": FIRST}[name]
        return Stage1(STAGE1_SMALL), build_fusion(fusion).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("kind", "preset", "precision"),
    [
        ("published kinds", "reference", "bfloat16"),
        ("published kinds", "fast", "float32"),
        ("shipped kinds", "reference", "float32"),
        ("shipped kinds", "fast", "bfloat16"),
        ("folded", "draft", "bfloat16"),
        ("first generation", "draft", "float32"),
    ],
)
def test_nothing_is_moved_or_asked_for_while_a_chip_is_recorded(kind, preset, precision):
    solver, steps = SAMPLERS[preset]
    stage1, fusion = networks(kind)
    sampling = Sampling(solver=solver, steps=min(steps, 2), precision=precision)
    model = SuperResolution(stage1, fusion, sampling, device=META, execution="fused")
    given = chips(2, 36, META)
    model(*given)
    with Moves() as moves:
        model(*given)
    assert moves.seen == []


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.ones(3),
        lambda x: x[:, torch.tensor([2, 0])],
        lambda x: x + torch.arange(3.0).to(META),
        lambda x: x.copy_(torch.zeros(3)),
        lambda x: x.sum().item(),
    ],
)
def test_what_is_moved_is_seen(function):
    with Moves() as moves:
        try:
            function(torch.empty(2, 3, device=META))
        except RuntimeError:
            return  # torch sees it itself
    assert moves.seen
