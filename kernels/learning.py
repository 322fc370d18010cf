"""The arithmetic of training: losses, learning rate, averaging of weights, and starts that already enlarge.

Sentinel-2 is dark and of low contrast in the range of the networks, so our own losses are decibels relative to bicubic
enlargement: 0 is bicubic's, and a dark forest counts as much as a bright town. The published losses (reference
section 5) are here as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.bands import GROUPS, SCALE
from kernels.degradation_encoder import MomentumContrast
from kernels.diffusion import q_sample
from kernels.fusion import FusionNetwork, group_loss
from kernels.normalisation import FUSION, FUSION_RGB, to_stage1
from kernels.rrdb import RRDBNet
from kernels.stage1 import Stage1

#: "mixed": the residual blocks of the context encoder in bfloat16, all else in float32.
Precision = Literal["mixed", "float32", "bfloat16"]

#: By loss, what each of its terms counts in the sum.
LOSS_WEIGHTS: Final[dict[str, dict[str, float]]] = {
    "relative": {"sample": 1.0, "tail": 0.1, "contrast": 0.2},
    "published": {"sample": 1.0, "tail": 1.0, "contrast": 0.05},
}


def bicubic(lr: Tensor) -> Tensor:
    """What a network must beat: (B, C, h, w) enlarged by 4, bicubic, pixel centres at halves."""
    return F.interpolate(lr, scale_factor=SCALE, mode="bicubic", align_corners=False)


# --- losses of stage 1 ----------------------------------------------------------------------------------------------


def stage1_losses(
    stage1: Stage1,
    hr: Tensor,
    lr: Tensor,
    generator: torch.Generator,
    tail_samples: int = 1,
    precision: Precision = "mixed",
) -> dict[str, Tensor]:
    """The three losses of one step, scalars: "sample" (diffusion), "tail" (RGB of the context encoder), "contrast".

    The diffusion network is asked twice: at a high noise level, and at a lower one where mostly its own first answer
    has been noised again, as in sampling, not the truth. So it learns to end where the image alone leads, and does
    not count on hints of the truth that no sampler gives.

    Args:
        hr: (B, 3, 4h, 4w) reflectance.
        lr: (B, 2, 3, h, w) reflectance: the first of two patches that were degraded alike is `hr`'s.
        generator: on the CPU; noise and noise levels.
        tail_samples: how many samples the tail is computed for, which is dear.
    """
    hr = hr.contiguous(memory_format=torch.channels_last)
    x0, n, n_k = to_stage1(hr), to_stage1(lr[:, 0]), to_stage1(lr[:, 1])
    B = len(x0)

    ctx = context(stage1.encoder, n.contiguous(memory_format=torch.channels_last), precision)
    assert isinstance(stage1.E, MomentumContrast)
    k, logits, labels = stage1.E.contrast(n, n_k)
    reference = ((to_stage1(bicubic(lr[:, 0])) - x0) ** 2).mean((1, 2, 3))  # (B,)

    u = torch.rand(4, B, generator=generator)
    t_1, t_2 = (1000 * u[0].sqrt()).long(), (1000 * u[1] ** 2).long()
    noise = torch.randn((2, *x0.shape), generator=generator)
    estimate = _denoise(stage1, x0, t_1, u[2], noise[0], ctx, k)
    own = (torch.rand(B, generator=generator).view(-1, 1, 1, 1) < 0.8).to(x0.device)
    again = torch.where(own, estimate.detach().clamp(-1, 1), x0)
    estimate_2 = _denoise(stage1, again, t_2, u[3], noise[1], ctx, k)

    some = slice(0, tail_samples)
    rgb = tail_rgb(stage1.encoder, ctx[some])
    return {
        "sample": 0.5 * (relative(estimate, x0, reference) + relative(estimate_2, x0, reference)),
        "tail": relative(rgb, x0[some], reference[some]),
        "contrast": F.cross_entropy(logits, labels),
    }


def published_losses(
    stage1: Stage1, hr: Tensor, lr: Tensor, generator: torch.Generator, precision: Precision = "mixed"
) -> dict[str, Tensor]:
    """The published losses of one step (reference section 5), arguments as in `stage1_losses`.

    "tail": L1 of the context encoder's RGB; "sample": mean squared error of the denoised image at a continuous noise
    level; "contrast": cross-entropy of the momentum contrast. Images are normalised; 1 · 1 · 0.05 is their sum.
    """
    x0, n, n_k = to_stage1(hr), to_stage1(lr[:, 0]), to_stage1(lr[:, 1])
    ctx = context(stage1.encoder, n, precision)
    assert isinstance(stage1.E, MomentumContrast)
    k, logits, labels = stage1.E.contrast(n, n_k)
    u = torch.rand(2, len(x0), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    estimate = _denoise(stage1, x0, (1000 * u[0]).long(), u[1], noise, ctx, k)
    return {
        "sample": F.mse_loss(estimate, x0),
        "tail": F.l1_loss(tail_rgb(stage1.encoder, ctx), x0),
        "contrast": F.cross_entropy(logits, labels),
    }


def relative(x: Tensor, truth: Tensor, reference: Tensor) -> Tensor:
    """Decibels below bicubic enlargement, the mean over samples (of which `reference` (B,) is the mean squared error).

    The floor is the noise that the sampler itself leaves in the image, √(1 − ᾱ₀) = 0.0064: below it nothing is won.
    """
    floor = 0.0064**2
    ratio = (((x - truth) ** 2).mean((1, 2, 3)) + floor) / (reference + floor)
    return 10 * ratio.log10().mean()


def _denoise(stage1: Stage1, x0: Tensor, t: Tensor, u: Tensor, noise: Tensor, ctx: Tensor, k: Tensor) -> Tensor:
    schedule = stage1.schedule.to(x0.device)
    x_t, level = q_sample(x0, t.to(x0.device), u.to(x0.device), noise.to(x0.device), schedule)
    out: Tensor = stage1.model(x_t.contiguous(memory_format=torch.channels_last), level.flatten(1), ctx, k)
    return out.float()


def context(encoder: RRDBNet, n: Tensor, precision: Precision = "mixed") -> Tensor:
    """As `RRDBNet.context`, the residual blocks' convolutions in bfloat16 if "mixed": half the time, no harm there."""
    f0 = encoder.conv_first(n)
    inner: AbstractContextManager[object] = nullcontext()
    if precision == "mixed":
        inner = torch.autocast(n.device.type, torch.bfloat16)
    with inner:
        deep = encoder.body(f0)
    out: Tensor = f0 + encoder.conv_body(deep.float())
    return out


def tail_rgb(encoder: RRDBNet, ctx: Tensor) -> Tensor:
    """The context encoder's own RGB at ×4, as in `RRDBNet.forward`, from features already made."""
    y = ctx
    for conv in (encoder.conv_up1, encoder.conv_up2):
        y = F.leaky_relu(conv(F.interpolate(y, scale_factor=2, mode="nearest")), 0.2)
    out: Tensor = encoder.conv_last(F.leaky_relu(encoder.conv_hr(y), 0.2)).float()
    return out


# --- losses of the fusion -------------------------------------------------------------------------------------------


def fusion_loss(
    network: FusionNetwork, gsd: int, guide: Tensor, measured: Tensor, truth: Tensor, *, scaled: bool = True
) -> Tensor:
    """The loss of one group of bands, a scalar: L1 and L1 of the low frequencies, standardised (reference 2.3).

    Args:
        guide: (B, 3, S, S) reflectance of red, green, blue; `measured` (B, C, S / f, S / f), `truth` (B, C, S, S).
        scaled: by the contrast of the truth, so that a dark forest counts as much as a bright town.
    """
    out, target = fuse_standardised(network, gsd, guide, measured), FUSION.select(GROUPS[gsd]).apply(truth)
    loss = group_loss(out, target, gsd)
    return loss / (target.std((2, 3)).mean() + 0.02) if scaled else loss


def fuse_standardised(network: FusionNetwork, gsd: int, guide: Tensor, measured: Tensor) -> Tensor:
    """A group of bands on the guide's grid (B, C, S, S), standardised; guide and measured bands are reflectance."""
    return network.fuse_group(gsd, FUSION_RGB.apply(guide), FUSION.select(GROUPS[gsd]).apply(measured))


# --- rates and averages ---------------------------------------------------------------------------------------------


def warm_cosine(warm: float, done: float) -> float:
    """Learning rate relative to its peak: rises with `warm` up to 1, then half a cosine to 1 % as `done` goes to 1."""
    return min(1.0, warm + 0.01) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


@torch.no_grad()
def move_average(average: nn.Module, weights: Mapping[str, Tensor], rate: float) -> None:
    """average ← rate·average + (1 − rate)·weights, by name; counters are copied."""
    for name, slow in average.state_dict().items():
        if slow.is_floating_point():
            slow.lerp_(weights[name], 1 - rate)
        else:
            slow.copy_(weights[name])


def inference_weights(stage1: Stage1) -> dict[str, Tensor]:
    """The learning weights under the names that inference uses (`model` takes the place of `ema`)."""
    given = stage1.state_dict()
    kept = {key: value for key, value in given.items() if key.startswith(("encoder.", "E.encoder_q."))}
    return kept | {"ema." + key.removeprefix("model."): v for key, v in given.items() if key.startswith("model.")}


# --- starts that already enlarge ------------------------------------------------------------------------------------


@torch.no_grad()
def start_as_bilinear(stage1: Stage1) -> None:
    """Set the learning weights so that the first answer of the diffusion network is the bilinear enlargement.

    The image passes through the context encoder, the first skip connection and the last block in channels of its own.
    The last group norm would take away its level and contrast; two channels of ±8 in each group hold the norm's
    statistics fixed. The other two carry a signal and its negative, for swish(x) − swish(−x) = x. What is left to learn
    is the detail. Needs a `fold` of 4 and groups of 4 channels.
    """
    encoder = stage1.encoder
    unet: Any = stage1.model  # its layers are reached by name
    _pass_through(encoder.conv_first, range(3), range(3))
    encoder.conv_body.weight.mul_(0.1)
    for conv, bias in ((encoder.conv_up1, 1.2), (encoder.conv_up2, 0.0), (encoder.conv_hr, 0.0)):
        _pass_through(conv, range(3), range(3), bias)  # above 0: leaky ReLU passes it unchanged
    _pass_through(encoder.conv_last, range(3), range(3), -1.2)

    norm, last = unet.final_conv.block[0], unet.final_conv.block[3]
    n, fold, size = unet.inner_channels, unet.fold, unet.inner_channels // norm.num_groups
    if (fold, size) != (4, 4):
        raise ValueError(f"this start is for a fold of 4 and groups of 4 channels, got {fold} and {size}")
    plus, minus, high, low = (list(range(i, n, size)) for i in range(size))
    anchor, level = 8.0, 0.75  # signals are about 0 where reflectance is 0.125

    _pass_through(unet.first_conv_ctx, plus[:3], range(3), level)
    first = unet.downs[0]
    first.weight[:, :n].mul_(0.1)  # the noise
    _pass_through(first, plus[:3], [n + c for c in plus[:3]])
    for channels, value in ((high, anchor), (low, -anchor)):
        first.weight[channels] = 0
        first.bias[channels] = value

    block = unet.ups[-1].res_block
    skip, da_conv = block.res_conv, block.block2.da_conv
    skip.weight.mul_(0.1)
    skip.weight[[*plus[:3], *minus[:3], *high, *low]] = 0
    skip.weight[:, -n:, 0, 0] = torch.eye(n)
    skip.weight[minus, -n:, 0, 0] = -torch.eye(n)[plus]
    skip.bias.zero_()
    da_conv.conv.weight.mul_(0.1)
    da_conv.conv.weight[[*plus[:3], *minus[:3], *high, *low]] = 0
    da_conv.conv.bias.zero_()
    da_conv.kernel[2].weight.mul_(0.1)

    norm.weight.fill_(anchor / math.sqrt(2))  # the standard deviation of a group
    norm.weight[[*high, *low]] = 0
    last.weight.mul_(0.1)
    last.weight[:, [*plus[:3], *minus[:3]]] = 0
    taps = _bilinear_taps(fold)  # (16, 3, 3)
    for i, (p, m) in enumerate(zip(plus[:3], minus[:3], strict=True)):
        last.weight[16 * i : 16 * i + 16, p] = taps
        last.weight[16 * i : 16 * i + 16, m] = -taps
    last.bias.fill_(-level)
    stage1.ema.load_state_dict(unet.state_dict())


def _pass_through(conv: nn.Conv2d, to: Sequence[int], source: Sequence[int], bias: float = 0.0) -> None:
    """Make some output channels copies of input channels, plus a constant."""
    assert conv.bias is not None
    conv.weight[list(to)] = 0
    conv.weight[list(to), list(source), 1, 1] = 1
    conv.bias[list(to)] = bias


def _bilinear_taps(fold: int) -> Tensor:
    """Weights of the 3×3 coarse neighbours for each fine pixel of a coarse one: (fold², 3, 3), rows first."""
    offset = (torch.arange(fold) + 0.5) / fold - 0.5
    axis = torch.stack([(-offset).clamp(min=0), 1 - offset.abs(), offset.clamp(min=0)], 1)  # (fold, 3)
    return torch.einsum("yi,xj->yxij", axis, axis).flatten(0, 1)


@torch.no_grad()
def start_as_injection(network: FusionNetwork) -> None:
    """Let the network begin as plain injection of detail: what its last layers would add is nothing yet.

    For the second generation (learned MTF filters) only.
    """
    for gsd in GROUPS:
        branch = network.branch(gsd)
        for part in ("detail_net", "gain_estimator", "refinement"):
            last = branch.get_submodule(part)[-1]  # type: ignore[index]
            last.weight.mul_(0.05)
            last.bias.zero_()
