"""The arithmetic of training: losses, learning rate, averaging of weights, and where networks start.

Sentinel-2 is dark and of low contrast in the range of the networks, so our own losses are relative: to bicubic
enlargement, to local contrast, to a band's own error: a dark forest counts as much as a bright town. The published
losses (reference section 5) are here as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.kernels.images import FUSION, FUSION_RGB, Sensor, back_project, sensor_for_group, to_stage1
from difffusr.kernels.networks import MomentumContrast, RRDBNet, Stage1
from difffusr.kernels.networks.fusion import FusionNetwork, group_loss
from difffusr.kernels.sampling import q_sample

#: "mixed": the networks' convolutions in bfloat16, the rest (first features, statistics, losses) in float32.
Precision = Literal["mixed", "float32", "bfloat16"]

#: Errors below this, reflectance, need no further lowering: the measurement itself has about as much.
ERROR_FLOOR: Final = 0.002

#: By loss, the weight of each term in the sum.
LOSS_WEIGHTS: Final[dict[str, dict[str, float]]] = {
    "relative": {"sample": 1.0, "tail": 0.1, "contrast": 0.05},
    "published": {"sample": 1.0, "tail": 1.0, "contrast": 0.05},
}


def bicubic(lr: Tensor) -> Tensor:
    """The baseline to beat: (B, C, h, w) enlarged by 4, bicubic, pixel centres at halves."""
    return F.interpolate(lr, scale_factor=SCALE, mode="bicubic", align_corners=False)


# --- losses of stage 1 ----------------------------------------------------------------------------------------------


def stage1_losses(
    stage1: Stage1, hr: Tensor, lr: Tensor, generator: torch.Generator, precision: Precision = "mixed"
) -> dict[str, Tensor]:
    """The three losses of one step, scalars: "sample" (diffusion), "tail" (RGB of the context encoder), "contrast".

    "sample" is the mean squared error of what the network predicts (`DiffusionConfig.prediction`) at a continuous noise
    level, of the image or of its residual; "tail" is in decibels relative to bicubic enlargement.

    Args:
        hr: (B, 3, 4h, 4w) reflectance.
        lr: (B, 2, 3, h, w) reflectance: two patches degraded in the same way, the first belongs to `hr`.
        generator: of noise and noise levels, on any device.
    """
    hr = hr.contiguous(memory_format=torch.channels_last)
    sample, rgb, contrast = _stage1_terms(stage1, hr, lr, generator, precision)
    reference = ((bicubic(lr[:, 0]) - hr) ** 2).mean((1, 2, 3))  # (B,)
    return {"sample": sample, "tail": relative(rgb * 0.5 + 0.5, hr, reference), "contrast": contrast}


def published_losses(
    stage1: Stage1, hr: Tensor, lr: Tensor, generator: torch.Generator, precision: Precision = "mixed"
) -> dict[str, Tensor]:
    """The published losses of one step (reference section 5), arguments as in `stage1_losses`.

    "tail" is the L1 of the context encoder's RGB; "sample", for a network that predicts the image itself, the mean
    squared error of the denoised image. Images are normalised; 1 · 1 · 0.05 is their sum.
    """
    sample, rgb, contrast = _stage1_terms(stage1, hr, lr, generator, precision)
    return {"sample": sample, "tail": F.l1_loss(rgb, to_stage1(hr)), "contrast": contrast}


def _stage1_terms(
    stage1: Stage1, hr: Tensor, lr: Tensor, generator: torch.Generator, precision: Precision
) -> tuple[Tensor, Tensor, Tensor]:
    """Diffusion loss, normalised RGB of the context encoder (B, 3, H, W), contrastive loss."""
    n, n_k = to_stage1(lr[:, 0]), to_stage1(lr[:, 1])
    assert isinstance(stage1.E, MomentumContrast)
    k, logits, labels = stage1.E.contrast(n, n_k)
    ctx = context(stage1.encoder, n.contiguous(memory_format=torch.channels_last), precision)
    with _reduced(n.device, precision):
        rgb = stage1.encoder.tail(ctx).float()

    clean = _clean(stage1, hr, rgb.detach(), lr[:, 0])
    u = torch.rand(2, len(hr), generator=generator, device=generator.device).to(hr.device)
    noise = torch.randn(hr.shape, generator=generator, device=generator.device).to(hr.device)
    x_t, level = q_sample(clean, (1000 * u[0]).long(), u[1], noise, stage1.schedule.to(hr.device))
    with _reduced(n.device, precision):
        predicted = stage1.model(x_t.contiguous(memory_format=torch.channels_last), level.flatten(1), ctx, k).float()
    velocity = level * noise - ((1 - level) * (1 + level)).sqrt() * clean
    target = velocity if stage1.config.diffusion.prediction == "v" else clean
    return F.mse_loss(predicted, target), rgb, F.cross_entropy(logits, labels)


def _clean(stage1: Stage1, hr: Tensor, rgb: Tensor, lr: Tensor) -> Tensor:
    """The target of the diffusion: the normalised image, or its residual against the context encoder's `rgb`."""
    diffusion = stage1.config.diffusion
    if not diffusion.residual:
        return to_stage1(hr)
    return ((hr - (rgb * 0.5 + 0.5)) / stage1.unit(lr)).clamp(-diffusion.clip, diffusion.clip)


def relative(x: Tensor, truth: Tensor, reference: Tensor) -> Tensor:
    """Decibels relative to bicubic enlargement, mean over samples; `reference` (B,) is bicubic's mean squared error.

    Reflectance. The floor is the noise that the published sampler leaves in an image: smaller errors do not count.
    """
    floor = 0.0032**2
    ratio = (((x - truth) ** 2).mean((1, 2, 3)) + floor) / (reference + floor)
    return 10 * ratio.log10().mean()


def context(encoder: RRDBNet, n: Tensor, precision: Precision = "mixed") -> Tensor:
    """As `RRDBNet.context`, with the residual blocks in bfloat16 if "mixed": half the time, no loss of quality."""
    f0 = encoder.conv_first(n)
    with _reduced(n.device, precision):
        deep = encoder.body(f0)
    out: Tensor = f0 + encoder.conv_body(deep.float())
    return out


def _reduced(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Convolutions in bfloat16 if "mixed"; "bfloat16" is set around the whole step, "float32" changes nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "mixed" else nullcontext()


@torch.no_grad()
def start_at_nothing(stage1: Stage1) -> None:
    """Make the diffusion network predict 0 at first: its orthogonal start is ten times too large for a velocity."""
    unet: Any = stage1.model  # its layers are reached by name
    unet.final_conv.block[3].weight.zero_()
    unet.final_conv.block[3].bias.zero_()


# --- losses of the fusion -------------------------------------------------------------------------------------------


def fusion_loss(
    network: FusionNetwork,
    gsd: int,
    guide: Tensor,
    measured: Tensor,
    truth: Tensor,
    others: Mapping[int, Tensor],
    *,
    published: bool = False,
) -> Tensor:
    """The loss of one group of bands, a scalar.

    Ours is the log of the mean squared error after back-projection, mean over bands and samples: every band of every
    scene counts the same, and the network learns what back-projection cannot recover. The published one is L1 plus L1
    of the low frequencies, standardised (reference 2.3).

    Args:
        guide: (B, 3, S, S) reflectance of red, green, blue; `measured` (B, C, S / f, S / f), `truth` (B, C, S, S).
        others: by native GSD, the finer groups' bands over the same ground, (B, C', s, s).
    """
    fused = fuse(network, gsd, guide, measured, others)
    if published:
        standard = FUSION.select(GROUPS[gsd])
        return group_loss(standard.apply(fused), standard.apply(truth), gsd)
    sensor = _sensor(gsd, measured.shape[-1]).to(measured.device)
    projected = back_project(fused.float(), measured, torch.ones_like(measured[:, :1]), sensor)
    return (((projected - truth) ** 2).mean((2, 3)) + ERROR_FLOOR**2).log().mean()


def fuse(network: FusionNetwork, gsd: int, guide: Tensor, measured: Tensor, others: Mapping[int, Tensor]) -> Tensor:
    """A group of bands on the guide's grid (B, C, S, S); everything is reflectance, arguments as in `fusion_loss`."""
    native = {gsd: measured, **others}
    given = [FUSION.select(GROUPS[g]).apply(native[g]) for g in network.sources[gsd]]
    out = network.fuse_group(gsd, FUSION_RGB.apply(guide), *given)
    return FUSION.select(GROUPS[gsd]).invert(out)


@lru_cache(maxsize=32)
def _sensor(gsd: int, size: int) -> Sensor:
    return sensor_for_group(gsd, size)


# --- rates and averages ---------------------------------------------------------------------------------------------


def warm_cosine(warm: float, done: float) -> float:
    """Learning rate relative to its peak: rises with `warm` up to 1, then half a cosine to 1 % as `done` goes to 1."""
    return min(1.0, warm + 0.01) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


@torch.no_grad()
def move_average(average: nn.Module, weights: Mapping[str, Tensor], rate: float) -> None:
    """average ← rate·average + (1 − rate)·weights, by name; counters are copied."""
    named = average.state_dict()
    moving = [name for name, slow in named.items() if slow.is_floating_point()]
    get_ema_multi_avg_fn(rate)([named[name] for name in moving], [weights[name] for name in moving], 0)
    for name in named.keys() - moving:
        named[name].copy_(weights[name])


def inference_weights(stage1: Stage1) -> dict[str, Tensor]:
    """The learning weights under the names that inference uses (`model` takes the place of `ema`)."""
    given = stage1.state_dict()
    kept = {key: value for key, value in given.items() if key.startswith(("encoder.", "E.encoder_q."))}
    return kept | {"ema." + key.removeprefix("model."): v for key, v in given.items() if key.startswith("model.")}


# --- starts -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def start_as_injection(network: FusionNetwork) -> None:
    """Make the network start as plain injection of detail: its last layers add almost nothing yet.

    For the second generation (learned MTF filters) only.
    """
    for gsd in GROUPS:
        branch = network.branch(gsd)
        for part in ("detail_net", "gain_estimator", "refinement"):
            last = branch.get_submodule(part)[-1]  # type: ignore[index]
            last.weight.mul_(0.05)
            last.bias.zero_()
