"""Networks whose modules compute as `fused` has it, under the names and with the parameters that they have."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import cast

import torch
from torch import Tensor, nn

from difffusr.kernels.networks.convolutions import ConvActivation
from difffusr.kernels.networks.fused.dense import Activated, Residual, Tower
from difffusr.kernels.networks.fused.unet import FusedUNet
from difffusr.kernels.networks.fusion import ConvBlock, ResidualBlock
from difffusr.kernels.networks.rrdb import RRDB
from difffusr.kernels.networks.unet import DiffusionUNet


@torch.no_grad()
def fuse(network: nn.Module) -> None:
    """Let the modules of a network compute fused, for inference.

    The network must be on its device and in its precision: what is derived of its parameters is made here, and does
    not follow them when they change or move. A copy of the network computes with the parameters of the original.

    Raises:
        ImportError: it is on a GPU, and Triton is not installed.
    """
    if any(parameter.is_cuda for parameter in network.parameters()):
        import triton  # noqa: F401
    for module in list(network.modules()):
        if isinstance(module, DiffusionUNet):
            fused = FusedUNet(module)
            module.prepare, module.denoise = fused.prepare, fused.denoise  # type: ignore[assignment, method-assign]
        elif isinstance(module, nn.Sequential):
            _fuse_sequence(list(module))
        elif (forward := _fused_forward(module)) is not None:
            module.forward = forward


def _fuse_sequence(modules: list[nn.Module]) -> None:
    """Convolutions with the activations that follow them, and dense blocks in a row with the convolution before them.

    The first module computes for all of them, and the others pass its result on.
    """
    forwards: dict[int, Callable[[Tensor], Tensor]] = {}
    first: Activated | None = None  # of the module before
    i = 0
    while i < len(modules):
        conv, rest = modules[i], modules[i + 1 :]
        if isinstance(conv, nn.Conv2d) and rest and isinstance(rest[0], nn.LeakyReLU):
            first = Activated(conv, rest[0].negative_slope)
            forwards |= {i: first, i + 1: _unchanged}
            i += 2
            continue
        rrdbs = [cast(RRDB, module) for module in takewhile(lambda module: isinstance(module, RRDB), modules[i:])]
        if rrdbs:
            begin = i if first is None else i - 2
            forwards |= {at: _unchanged for at in range(begin, i + len(rrdbs))}
            forwards[begin] = Tower(rrdbs, first)
        first = None
        i += max(len(rrdbs), 1)
    for at, forward in forwards.items():
        modules[at].forward = forward


def _fused_forward(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    if isinstance(module, ConvActivation):
        return Activated(module, module.slope)
    if isinstance(module, ConvBlock):
        return Residual(module.conv0, module.conv1)
    if isinstance(module, ResidualBlock):
        return Residual(module.conv20, module.conv21)
    return None


def _unchanged(x: Tensor) -> Tensor:
    return x
