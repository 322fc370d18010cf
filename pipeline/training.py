"""Trains the small models: super-resolution on aerial imagery, fusion on Sentinel-2 itself (reference sections 2 to 5).

    python -m pipeline.training stage1 --hr DIR --out RUN --weights DIR
    python -m pipeline.training fusion --scenes DIR … --weights DIR
    python -m pipeline.training evaluate --hr DIR --scenes DIR …

Stage 1 learns from imagery at about 2.5 m that is degraded on the fly, half of the time as Sentinel-2's own sensor
would, half of the time blindly. Sentinel-2 is dark and of low contrast in the range of the networks, so the losses
are decibels relative to bicubic enlargement: 0 is bicubic's, and a dark forest counts as much as a bright town.
"""

from __future__ import annotations

import argparse
import copy
import csv
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from kernels.bands import GROUPS, MTF_NYQUIST, RGB, SCALE, TARGET_GSD_M, band_indices
from kernels.consistency import Sensor, back_project, sensor_for_group, sensor_matrix
from kernels.degradation import SIGMA_RANGE, bicubic_downsample, blur, gaussian_kernels
from kernels.degradation_encoder import MomentumContrast
from kernels.diffusion import q_sample
from kernels.fusion import SMALL as FUSION_SMALL
from kernels.fusion import FusionConfig, FusionNetwork, build_fusion, group_loss
from kernels.harmonisation import GAMMA_RGB, power_law
from kernels.metrics import psnr
from kernels.model import SuperResolution, load_model
from kernels.normalisation import FUSION, FUSION_RGB, to_stage1
from kernels.rrdb import RRDBNet
from kernels.stage1 import SMALL, Stage1, Stage1Config

log = logging.getLogger(__name__)

Images = NDArray[np.float32]


# --- imagery --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """How to read the images of one folder: their GSD, which channels are R, G, B, and what full scale means.

    `display`: 8-bit pictures made for the eye, which become reflectance by a power law; otherwise values divided by
    `full_scale` are reflectance. `nodata_at_ends`: pure white and pure black are no data.
    """

    gsd_m: float
    rgb: tuple[int, int, int] = (1, 2, 3)
    full_scale: float = 255.0
    display: bool = True
    nodata_at_ends: bool = False


#: By the name of the folder.
SOURCES: Final[dict[str, Source]] = {
    "naip_midwest": Source(2.25),  # 1.0 m where index.csv says so
    "planetscope_3m": Source(3.0, nodata_at_ends=True),
    "spacenet6_rotterdam": Source(1.0, rgb=(3, 2, 1), full_scale=2047.0, display=False),
    "satellogic_1m": Source(1.0, full_scale=10_000.0, display=False),
    "zurich_0.5m": Source(0.5),
    "netherlands_0.25m": Source(0.25),
}

#: Wholly kept out of training: these folders, and every fifth NAIP tile in the order of names.
HELD_OUT_SOURCES: Final = ("zurich_0.5m",)
HELD_OUT_EVERY: Final = 5


@dataclass(frozen=True)
class HRImage:
    """One image at one GSD: `pixels` float32 (3, H, W) in [0, 1], `valid` bool (H, W), see `Source` for `display`."""

    name: str
    gsd_m: float
    pixels: Images = field(repr=False)
    valid: NDArray[np.bool_] = field(repr=False)
    display: bool


def load_hr_images(folder: Path) -> tuple[list[HRImage], list[HRImage]]:
    """All images of the known sources under a folder: (for training, held out), at the GSD they came at.

    Raises FileNotFoundError where there are none.
    """
    training: list[HRImage] = []
    held_out: list[HRImage] = []
    for source_name, source in SOURCES.items():
        files = sorted(p for p in (folder / source_name).glob("*") if p.suffix in (".jpg", ".png", ".tif"))
        gsds = _stated_gsds(folder / source_name / "index.csv")
        for i, path in enumerate(files):
            image = _read_image(path, source, gsds.get(path.name, source.gsd_m))
            naip_turn = source_name == "naip_midwest" and i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
            (held_out if naip_turn or source_name in HELD_OUT_SOURCES else training).append(image)
    if not training:
        raise FileNotFoundError(f"{folder}: none of {', '.join(SOURCES)} with images in it")
    return training, held_out


def resample(image: HRImage, gsd_m: float) -> HRImage:
    """The image at a coarser GSD, antialiased; as it is where the ratio is below 1.3."""
    ratio = gsd_m / image.gsd_m
    if ratio < 1.3:
        return image
    h, w = (round(n / ratio) for n in image.valid.shape)
    pixels = _antialiased(torch.from_numpy(image.pixels)[None], (h, w))[0].clamp(0, 1)
    valid = _antialiased(torch.from_numpy(image.valid)[None, None].float(), (h, w))[0, 0] > 0.999
    return HRImage(image.name, gsd_m, pixels.numpy(), valid.numpy(), image.display)


def _antialiased(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)


def _stated_gsds(index: Path) -> dict[str, float]:
    """GSD by file name where an index states a number; estimates given as a range are left to the source."""
    if not index.exists():
        return {}
    with index.open(newline="") as file:
        stated = {row["file"]: row["gsd_m"] for row in csv.DictReader(file)}
    return {name: float(gsd) for name, gsd in stated.items() if gsd.replace(".", "", 1).isdigit()}


def _read_image(path: Path, source: Source, gsd_m: float) -> HRImage:
    with rasterio.open(path) as dataset:
        raw = dataset.read(source.rgb)
    valid = np.ones(raw.shape[1:], dtype=bool)
    if source.nodata_at_ends:
        valid = (raw.min(0) < 254) & (raw.max(0) > 0)
    return HRImage(path.name, gsd_m, np.clip(raw / np.float32(source.full_scale), 0, 1), valid, source.display)


@dataclass(frozen=True)
class PatchSource:
    """Draws patches of HR imagery in reflectance, at several GSDs and with the radiometry of many scenes."""

    images: Sequence[HRImage]
    weights: NDArray[np.float64]
    size_px: int

    @classmethod
    def build(cls, images: Iterable[HRImage], size_px: int) -> PatchSource:
        """A pyramid of each image at 2.5 m (preferred), 1.6 m and as it came; larger images are drawn more often."""
        levels: list[HRImage] = []
        weights: list[float] = []
        for image in images:
            for gsd, preference in ((TARGET_GSD_M, 1.0), (1.6, 0.35), (image.gsd_m, 0.35)):
                level = resample(image, gsd)
                if min(level.valid.shape) < size_px or any(level is other for other in levels):
                    continue
                levels.append(level)
                weights.append(preference * level.valid.sum() ** 0.5)
        share = np.array(weights)
        return cls(levels, share / share.sum(), size_px)

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Two patches of one image with the same radiometry: float32 (2, 3, size, size), reflectance in [0, 1]."""
        while True:
            image = self.images[rng.choice(len(self.images), p=self.weights)]
            windows = [self._window(image, rng) for _ in range(2)]
            if all(image.valid[window].all() for window in windows):
                break
        turn = _random_turn(rng)
        patches = np.stack([turn(image.pixels[(slice(None), *window)]) for window in windows])
        return random_radiometry(torch.from_numpy(patches), image.display, rng)

    def _window(self, image: HRImage, rng: np.random.Generator) -> tuple[slice, slice]:
        row, col = (int(rng.integers(n - self.size_px + 1)) for n in image.valid.shape)
        return slice(row, row + self.size_px), slice(col, col + self.size_px)


def _random_turn(rng: np.random.Generator) -> Callable[[Images], Images]:
    """One of the eight turns and flips of the last two axes."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))

    def turn(x: Images) -> Images:
        x = np.rot90(x, turns, axes=(-2, -1))
        return np.ascontiguousarray(x[..., ::-1] if flip else x)

    return turn


def random_radiometry(x: Tensor, display: bool, rng: np.random.Generator) -> Tensor:
    """Imagery in [0, 1] (..., 3, H, W) as the reflectance of some scene: mostly dark as Sentinel-2 is, some bright.

    Pictures for the eye go through the harmonisation's power law with an exponent that varies (from the published one
    to none at all); then everything gets a random gain and offset, a little different per band.
    """
    if display:
        kind = rng.random()
        exponent = 1.0 if kind < 0.15 else rng.uniform(1.0, 2.2) if kind < 0.4 else rng.uniform(2.2, 3.4)
        x = power_law(x, [1 / (exponent * rng.uniform(0.95, 1.05)) for _ in range(3)])
    if rng.random() < 0.8:
        gain = math.exp(rng.uniform(math.log(0.4), math.log(1.6)))
        offset = rng.uniform(0, 0.1) ** 1.5 if rng.random() < 0.7 else rng.uniform(0, 0.25)
        jitter = torch.from_numpy(rng.uniform(0.85, 1.15, (2, 3, 1, 1)).astype(np.float32))
        x = x * gain * jitter[0] + offset * jitter[1]
    return x.clamp(0, 1)


# --- degradation ----------------------------------------------------------------------------------------------------


def degrade(hr: Tensor, rng: np.random.Generator, margin: int = 2) -> Tensor:
    """LR images of HR patches, each sample with a degradation of its own shared by its patches.

    Half of the samples: the sensor of Sentinel-2 (detector box and Gaussian) with an MTF that varies by band and
    sample. The other half: the blind anisotropic Gaussian of the reference over its full range, turned freely, then
    bicubic reduction. Noise is mostly that of Sentinel-2 (below 0.01), sometimes up to the 0.1 of the reference.

    Args:
        hr: (B, P, 3, H, W) reflectance, H = W a multiple of 4.
        margin: LR pixels cut off each side, where the degradation has no neighbours.

    Returns:
        (B, P, 3, H / 4 − 2·margin, W / 4 − 2·margin) reflectance, not clamped.
    """
    lr = torch.stack([_sensor(x, rng) if rng.random() < 0.5 else _blind(x, rng) for x in hr])
    inner = slice(margin, lr.shape[-1] - margin)
    lr = lr[..., inner, inner]
    level = torch.tensor([_noise_level(rng) for _ in hr], dtype=torch.float32).view(-1, 1, 1, 1, 1)
    lr = lr + level * torch.from_numpy(rng.standard_normal(lr.shape, dtype=np.float32))
    step = 1 / 255 if rng.random() < 0.1 else 1e-4
    return (lr / step).round() * step


def _noise_level(rng: np.random.Generator) -> float:
    """Standard deviation of the noise in reflectance."""
    kind = rng.random()
    if kind < 0.5:
        return rng.uniform(0, 0.001)
    return math.exp(rng.uniform(math.log(0.001), math.log(0.01 if kind < 0.85 else 0.1)))


def _sensor(x: Tensor, rng: np.random.Generator) -> Tensor:
    shift = rng.uniform(-0.1, 0.15) if rng.random() < 0.8 else 0.33  # at times a sharp sensor, hardly more than a box
    mtf = tuple(round(float(np.clip(MTF_NYQUIST[band] + shift, 0.14, 0.6)), 2) for band in RGB)
    m = torch.stack([_sensor_axis(x.shape[-1] // SCALE, value) for value in mtf])  # (3, h, H)
    return m @ x @ m.transpose(-1, -2)


@lru_cache(maxsize=128)
def _sensor_axis(coarse: int, mtf: float) -> Tensor:
    return torch.from_numpy(sensor_matrix(coarse, SCALE, mtf)).float()


def _blind(x: Tensor, rng: np.random.Generator) -> Tensor:
    low, high = SIGMA_RANGE
    sigma = torch.tensor(rng.uniform(low, high if rng.random() < 0.6 else 2.2, 2))
    kernel = gaussian_kernels(sigma[:1], sigma[1:], torch.tensor([rng.uniform(0, math.pi)]))
    return bicubic_downsample(blur(x[None], kernel), SCALE)[0]


def bicubic(lr: Tensor) -> Tensor:
    """What a network must beat: (B, C, h, w) enlarged by 4, bicubic, pixel centres at halves."""
    return F.interpolate(lr, scale_factor=SCALE, mode="bicubic", align_corners=False)


# --- stage 1 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage1Settings:
    """One training run of stage 1. Patches are `lr_px` LR pixels; `margin` more are cut off after the degradation.

    The run ends after `steps` or `minutes`, whichever comes first; the learning rate falls accordingly. Without a
    limit on the minutes it depends on the seed alone.
    """

    steps: int = 4000
    minutes: float = math.inf
    batch: int = 8
    lr_px: int = 32
    margin: int = 2
    rate: float = 4e-4
    warm_up: int = 100
    tail_weight: float = 0.1
    tail_samples: int = 1
    contrast_weight: float = 0.2
    ema: float = 0.998
    clip: float = 50.0
    seed: int = 1
    log_every: int = 10
    validate_every: int = 150


def train_stage1(
    training: Sequence[HRImage],
    held_out: Sequence[HRImage],
    settings: Stage1Settings,
    out: Path | None = None,
    config: Stage1Config = SMALL,
) -> Stage1:
    """Train the networks of stage 1; returns them for inference, with averaged weights.

    With `out`, a folder, the run is written to `out/run.pt` at every validation, and continues from there.
    """
    torch.manual_seed(settings.seed)
    source = PatchSource.build(training, SCALE * (settings.lr_px + 2 * settings.margin))
    stage1 = Stage1(config, training=True)
    start_as_bilinear(stage1)
    stage1.train()
    learning = [*stage1.encoder.parameters(), *stage1.model.parameters(), *_query_encoder(stage1).parameters()]
    optimiser = torch.optim.AdamW(learning, lr=settings.rate, betas=(0.9, 0.98), weight_decay=1e-4)
    average = Stage1(config)
    average.load_state_dict(_inference_weights(stage1))
    step, spent = _resume(out, stage1, average, optimiser)
    checks = validation_pairs(held_out)
    started = time.monotonic() - spent
    sums: dict[str, float] = {}
    done = 0.0
    while done < 1:
        done = max((step + 1) / settings.steps, (time.monotonic() - started) / 60 / settings.minutes)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * warm_cosine(step / settings.warm_up, done)
        losses = stage1_losses(stage1, source, settings, np.random.default_rng((settings.seed, step)))
        total = losses["sample"] + settings.tail_weight * losses["tail"] + settings.contrast_weight * losses["contrast"]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        losses["norm"] = nn.utils.clip_grad_norm_(learning, settings.clip)
        optimiser.step()
        move_average(average, _inference_weights(stage1), min(settings.ema, (1 + step) / (10 + step)))
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + float(loss.detach()) / settings.log_every
        step += 1
        if step % settings.log_every == 0:
            said = ", ".join(f"{name} {value:.3f}" for name, value in sums.items())
            log.info("step %d, %.0f s: %s", step, time.monotonic() - started, said)
            sums = {}
        if step % settings.validate_every == 0 or done >= 1:
            for name, pairs in checks.items():
                log.info(
                    "step %d, %s: %s", step, name, _table(evaluate_stage1(average, pairs[:: 1 if done >= 1 else 3]))
                )
            if out is not None:
                _checkpoint(out, step, time.monotonic() - started, stage1, average, optimiser)
    return average


def stage1_losses(
    stage1: Stage1, source: PatchSource, settings: Stage1Settings, rng: np.random.Generator
) -> dict[str, Tensor]:
    """The three losses of one step, scalars: "sample" (diffusion), "tail" (RGB of the context encoder), "contrast".

    The diffusion network is asked twice: at a high noise level, and at a lower one where mostly its own first answer
    has been noised again, as in sampling, not the truth. So it learns to end where the image alone leads, and does
    not count on hints of the truth that no sampler gives.
    """
    patches = torch.stack([source.draw(rng) for _ in range(settings.batch)])  # (B, 2, 3, H, W)
    lr = degrade(patches, rng, settings.margin)
    m = SCALE * settings.margin
    hr = patches[:, 0, :, m:-m, m:-m].contiguous(memory_format=torch.channels_last)
    x0, n, n_k = to_stage1(hr), to_stage1(lr[:, 0]), to_stage1(lr[:, 1])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    B = len(x0)

    ctx = _context(stage1.encoder, n.contiguous(memory_format=torch.channels_last))
    assert isinstance(stage1.E, MomentumContrast)
    k, logits, labels = stage1.E.contrast(n, n_k)
    reference = ((to_stage1(bicubic(lr[:, 0])) - x0) ** 2).mean((1, 2, 3))  # (B,)

    u = torch.rand(4, B, generator=generator)
    t_1, t_2 = (1000 * u[0].sqrt()).long(), (1000 * u[1] ** 2).long()
    noise = torch.randn((2, *x0.shape), generator=generator)
    estimate = _denoise(stage1, x0, t_1, u[2], noise[0], ctx, k)
    own = torch.rand(B, generator=generator).view(-1, 1, 1, 1) < 0.8
    again = torch.where(own, estimate.detach().clamp(-1, 1), x0)
    estimate_2 = _denoise(stage1, again, t_2, u[3], noise[1], ctx, k)

    some = slice(0, settings.tail_samples)
    tail = _tail(stage1.encoder, ctx[some])
    return {
        "sample": 0.5 * (_relative(estimate, x0, reference) + _relative(estimate_2, x0, reference)),
        "tail": _relative(tail, x0[some], reference[some]),
        "contrast": F.cross_entropy(logits, labels),
    }


def _relative(x: Tensor, truth: Tensor, reference: Tensor) -> Tensor:
    """Decibels below bicubic enlargement, the mean over samples (of which `reference` (B,) is the mean squared error).

    The floor is the noise that the sampler itself leaves in the image, √(1 − ᾱ₀) = 0.0064: below it nothing is won.
    """
    floor = 0.0064**2
    ratio = (((x - truth) ** 2).mean((1, 2, 3)) + floor) / (reference + floor)
    return 10 * ratio.log10().mean()


def _denoise(stage1: Stage1, x0: Tensor, t: Tensor, u: Tensor, noise: Tensor, ctx: Tensor, k: Tensor) -> Tensor:
    x_t, level = q_sample(x0, t, u, noise, stage1.schedule)
    out: Tensor = stage1.model(x_t.contiguous(memory_format=torch.channels_last), level.flatten(1), ctx, k)
    return out


def _context(encoder: RRDBNet, n: Tensor) -> Tensor:
    """As `RRDBNet.context`, with the residual blocks' convolutions in bfloat16: half the time, and no harm there."""
    f0 = encoder.conv_first(n)
    with torch.autocast(n.device.type, torch.bfloat16):
        deep = encoder.body(f0)
    out: Tensor = f0 + encoder.conv_body(deep.float())
    return out


def _tail(encoder: RRDBNet, ctx: Tensor) -> Tensor:
    """The context encoder's own RGB at ×4, as in `RRDBNet.forward`, from features already made."""
    y = ctx
    for conv in (encoder.conv_up1, encoder.conv_up2):
        y = F.leaky_relu(conv(F.interpolate(y, scale_factor=2, mode="nearest")), 0.2)
    out: Tensor = encoder.conv_last(F.leaky_relu(encoder.conv_hr(y), 0.2))
    return out


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


def _inference_weights(stage1: Stage1) -> dict[str, Tensor]:
    """The learning weights under the names that inference uses (`model` takes the place of `ema`)."""
    given = stage1.state_dict()
    kept = {key: value for key, value in given.items() if key.startswith(("encoder.", "E.encoder_q."))}
    return kept | {"ema." + key.removeprefix("model."): v for key, v in given.items() if key.startswith("model.")}


def _query_encoder(stage1: Stage1) -> nn.Module:
    return stage1.E.get_submodule("encoder_q")


# --- a start that already enlarges ----------------------------------------------------------------------------------


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


# --- evaluation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """An HR patch (3, H, W) and its LR (3, H / 4, W / 4), reflectance."""

    name: str
    hr: Tensor = field(repr=False)
    lr: Tensor = field(repr=False)


def validation_pairs(images: Sequence[HRImage], per_image: int = 2, size_px: int = 192) -> dict[str, list[Pair]]:
    """Fixed patches of held-out images at 2.5 m, degraded without chance but for the noise, by degradation.

    "sensor": harmonised imagery through Sentinel-2's own MTF with noise of 0.001; "blind": a round Gaussian of 1.2
    pixels and bicubic reduction; "display": the picture as it is, not harmonised, through the sensor.
    """
    rng = np.random.default_rng(0)
    margin = 2
    window = size_px + 2 * margin * SCALE
    made: dict[str, list[Pair]] = {"sensor": [], "blind": [], "display": []}
    for image in (resample(image, TARGET_GSD_M) for image in images):
        if min(image.valid.shape) < window:
            image = HRImage(image.name, image.gsd_m, *_reflected(image, window), image.display)
        for i in range(per_image):
            row, col = (int(rng.integers(n - window + 1)) for n in image.valid.shape)
            raw = torch.from_numpy(image.pixels[:, row : row + window, col : col + window].copy())
            hr = power_law(raw, GAMMA_RGB) if image.display else raw
            m = torch.stack([_sensor_axis(window // SCALE, MTF_NYQUIST[band]) for band in RGB])
            noise = 0.001 * torch.from_numpy(rng.standard_normal((3, window // 4, window // 4), dtype=np.float32))
            kernel = gaussian_kernels(torch.tensor([1.2]), torch.tensor([1.2]), torch.zeros(1))
            degraded = {
                "sensor": (hr, m @ hr @ m.transpose(-1, -2) + noise),
                "blind": (hr, bicubic_downsample(blur(hr[None], kernel), SCALE)[0]),
                "display": (raw, m @ raw @ m.transpose(-1, -2)),
            }
            for kind, (fine, coarse) in degraded.items():
                fine = fine[:, margin * SCALE : -margin * SCALE, margin * SCALE : -margin * SCALE]
                coarse = coarse[:, margin:-margin, margin:-margin]
                made[kind].append(Pair(f"{image.name}#{i}", fine.contiguous(), coarse.contiguous()))
    return made


def _reflected(image: HRImage, size: int) -> tuple[Images, NDArray[np.bool_]]:
    """Pixels and validity continued by reflection to at least `size`."""
    more = [(0, max(0, size - n)) for n in image.valid.shape]
    return np.pad(image.pixels, [(0, 0), *more], "reflect"), np.pad(image.valid, more, "reflect")


@torch.no_grad()
def evaluate_stage1(stage1: Stage1, pairs: Sequence[Pair], seed: int = 0) -> dict[str, float]:
    """PSNR in decibels (range 1) of several ways to enlarge, the mean over pairs, and how often the product wins.

    "bicubic", "bicubic+bp", "tail" (the context encoder's own RGB), "sample", "sample+bp" (after back-projection),
    "wins": share of the pairs where "sample+bp" is above bicubic.
    """
    generator = torch.Generator().manual_seed(seed)
    scores: dict[str, list[float]] = {}
    for pair in pairs:
        lr = pair.lr[None]
        x_T = torch.randn((1, *pair.hr.shape), generator=generator)
        sample = stage1.sample(lr, x_T, skip_last=True)
        tail = _tail(stage1.encoder, stage1.encoder.context(to_stage1(lr))) * 0.5 + 0.5
        results = {
            "bicubic": bicubic(lr),
            "bicubic+bp": project_rgb(bicubic(lr), lr),
            "tail": tail,
            "sample": sample,
            "sample+bp": project_rgb(sample, lr),
        }
        values = {name: float(psnr(x[0], pair.hr)) for name, x in results.items()}
        values["wins"] = float(values["sample+bp"] > values["bicubic"])
        for name, value in values.items():
            scores.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in scores.items()}


def project_rgb(x: Tensor, lr: Tensor) -> Tensor:
    """Back-projection of RGB (B, 3, 4n, 4n) onto what was measured (B, 3, n, n), everywhere valid."""
    sensor = Sensor(*(part[:3] for part in sensor_for_group(10, lr.shape[-1])))
    return back_project(x, lr, torch.ones_like(lr[:, :1]), sensor)


def _table(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in scores.items())


# --- fusion ---------------------------------------------------------------------------------------------------------

#: What stands in for each group at the scale it is trained at: (bands in the group's order, GSD of the truth, metres).
#: Sentinel-2 has no truth at 2.5 m, so everything is learned some steps coarser. For the 60 m bands the published way
#: leaves a constant (24 pixels become one), so their nearest neighbours in wavelength stand in for them at 10 m.
_STAND_INS: Final[dict[int, tuple[tuple[str, ...], int]]] = {
    10: (GROUPS[10], 10),
    20: (GROUPS[20], 20),
    60: (("B02", "B08"), 10),
}

#: The folders of the 12-band patches that no training sees, by the start of their names.
HELD_OUT_PATCHES: Final = ("S2A_MSIL2A_20171221T112501", "S2B_MSIL2A_20180421T114349", "S2B_MSIL2A_20170924T93021")


@dataclass(frozen=True)
class NativeScene:
    """A 12-band image on native grids: `bands` maps names to float32 (n, n') reflectance."""

    name: str
    bands: Mapping[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class FusionSettings:
    """One training run of the fusion network; `truth_px` is the side of a patch in pixels of the truth."""

    steps: int = 1500
    minutes: float = math.inf
    batch: int = 6
    truth_px: int = 96
    rate: float = 1e-3
    warm_up: int = 50
    ema: float = 0.995
    clip: float = 1.0
    seed: int = 1
    log_every: int = 50


def load_native_scenes(folders: Sequence[Path]) -> tuple[list[NativeScene], list[NativeScene]]:
    """12-band images below some folders: (for training, held out).

    Two layouts are known: one GeoTIFF a band (B01.tif …), and DSen2's im10/im20/im60 stacks (L1C). Scenes with pixels
    without data are cut to nothing: they are left out. Raises FileNotFoundError where there are none.
    """
    training: list[NativeScene] = []
    held_out: list[NativeScene] = []
    for folder in folders:
        for path in sorted(p.parent for name in ("B12.tif", "im60.tif") for p in folder.rglob(name)):
            scene = _read_native(path)
            if all(bool((band > 0).all()) for band in scene.bands.values()):
                (held_out if scene.name.startswith(HELD_OUT_PATCHES) else training).append(scene)
    if not training:
        raise FileNotFoundError(f"{', '.join(map(str, folders))}: no 12-band scenes (B01.tif … or im10.tif …)")
    return training, held_out


def _read_native(folder: Path) -> NativeScene:
    stacks = {
        10: ("B04", "B03", "B02", "B08"), 20: ("B05", "B06", "B07", "B8A", "B11", "B12"), 60: ("B01", "B09"),
    }  # fmt: skip
    bands: dict[str, Tensor] = {}
    if (folder / "im60.tif").exists():
        for gsd, names in stacks.items():
            with rasterio.open(folder / f"im{gsd}.tif") as file:
                bands |= dict(zip(names, file.read().astype(np.float32), strict=True))
    else:
        for name in (band for names in GROUPS.values() for band in names):
            with rasterio.open(folder / f"{name}.tif") as file:
                bands[name] = file.read(1).astype(np.float32)
    return NativeScene(folder.name, {name: torch.as_tensor(values) / 10_000 for name, values in bands.items()})


def fusion_sample(scene: NativeScene, gsd: int, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Guide (3, S, S), measured (C, S/f, S/f) and truth (C, S, S) of a group, reflectance; f = 4, 8 or 24.

    S is `size` or what the scene holds of it, in whole measured pixels. At times the guide is a little blurred, as a
    super-resolved one is.
    """
    names, truth_gsd = _STAND_INS[gsd]
    factor = int(gsd / TARGET_GSD_M)
    rgb = torch.stack([scene.bands[band] for band in RGB])
    if truth_gsd > 10:
        rgb = F.avg_pool2d(rgb, truth_gsd // 10)
    truth = torch.stack([scene.bands[band] for band in names])
    height, width = min(rgb.shape[-2], truth.shape[-2]), min(rgb.shape[-1], truth.shape[-1])
    side = min(size, height, width) // factor * factor
    row, col = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    turn = _random_turn(rng)
    cut = (slice(None), slice(row, row + side), slice(col, col + side))
    both = torch.from_numpy(turn(torch.cat([rgb[cut], truth[cut]]).numpy()))
    guide, truth = both[:3], both[3:]
    if rng.random() < 0.5:
        m = _axis(side // 2, 2, 0.35)
        soft = F.interpolate((m @ guide @ m.T)[None], scale_factor=2, mode="bicubic")[0]
        guide = guide + rng.uniform(0, 0.7) * (soft - guide)
    measured = torch.stack(
        [
            m @ band @ m.T
            for band, m in (
                (x, _axis(side // factor, factor, MTF_NYQUIST[name]))
                for x, name in zip(truth, GROUPS[gsd], strict=True)
            )
        ]
    )
    return guide, measured, truth


@lru_cache(maxsize=64)
def _axis(coarse: int, factor: int, mtf: float) -> Tensor:
    return torch.from_numpy(sensor_matrix(coarse, factor, mtf)).float()


def train_fusion(
    training: Sequence[NativeScene],
    held_out: Sequence[NativeScene],
    settings: FusionSettings,
    config: FusionConfig = FUSION_SMALL,
) -> FusionNetwork:
    """Train the fusion network; returns it for inference, with averaged weights."""
    torch.manual_seed(settings.seed)
    network = build_fusion(config)
    _start_as_injection(network)
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=1e-4)
    share = np.array([float(s.bands["B04"].numel()) ** 0.5 for s in training])
    started, step, done = time.monotonic(), 0, 0.0
    sums = dict.fromkeys(GROUPS, 0.0)
    while done < 1:
        done = max((step + 1) / settings.steps, (time.monotonic() - started) / 60 / settings.minutes)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * warm_cosine(step / settings.warm_up, done)
        rng = np.random.default_rng((settings.seed, step))
        optimiser.zero_grad(set_to_none=True)
        for gsd in GROUPS:
            loss = torch.zeros(())
            for _ in range(settings.batch):
                scene = training[rng.choice(len(training), p=share / share.sum())]
                guide, measured, truth = (x[None] for x in fusion_sample(scene, gsd, settings.truth_px, rng))
                out, target = _fuse_standardised(network, gsd, guide, measured), FUSION.select(GROUPS[gsd]).apply(truth)
                scale = target.std((2, 3)).mean() + 0.02  # a dark forest counts as much as a bright town
                loss = loss + group_loss(out, target, gsd) / scale / settings.batch
            loss.backward()
            sums[gsd] += float(loss.detach()) / settings.log_every
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimiser.step()
        move_average(average, network.state_dict(), min(settings.ema, (1 + step) / (10 + step)))
        step += 1
        if step % settings.log_every == 0:
            said = ", ".join(f"{gsd} m {value:.3f}" for gsd, value in sums.items())
            log.info("step %d, %.0f s: %s", step, time.monotonic() - started, said)
            sums = dict.fromkeys(GROUPS, 0.0)
    for gsd, scores in evaluate_fusion(average, held_out).items():
        log.info("held out, %d m: %s", gsd, _table(scores))
    return average.eval()


def _start_as_injection(network: FusionNetwork) -> None:
    """Let the network begin as plain injection of detail: what its last layers would add is nothing yet."""
    with torch.no_grad():
        for gsd in GROUPS:
            branch = network.branch(gsd)
            for part in ("detail_net", "gain_estimator", "refinement"):
                last = branch.get_submodule(part)[-1]  # type: ignore[index]
                last.weight.mul_(0.05)
                last.bias.zero_()


def _fuse_standardised(network: FusionNetwork, gsd: int, guide: Tensor, measured: Tensor) -> Tensor:
    return network.fuse_group(gsd, FUSION_RGB.apply(guide), FUSION.select(GROUPS[gsd]).apply(measured))


@torch.no_grad()
def evaluate_fusion(network: FusionNetwork, scenes: Sequence[NativeScene]) -> dict[int, dict[str, float]]:
    """PSNR in decibels (range 1) by group: "bicubic", "fused", "fused+bp" (after back-projection), mean over scenes."""
    scores: dict[int, dict[str, list[float]]] = {}
    for gsd in GROUPS:
        for i, scene in enumerate(scenes):
            rng = np.random.default_rng(i)
            guide, measured, truth = (x[None] for x in fusion_sample(scene, gsd, 480, rng))
            fused = FUSION.select(GROUPS[gsd]).invert(_fuse_standardised(network, gsd, guide, measured))
            sensor = sensor_for_group(gsd, measured.shape[-1])
            results = {
                "bicubic": F.interpolate(measured, size=truth.shape[-2:], mode="bicubic", align_corners=False),
                "fused": fused,
                "fused+bp": back_project(fused, measured, torch.ones_like(measured[:, :1]), sensor),
            }
            for name, x in results.items():
                scores.setdefault(gsd, {}).setdefault(name, []).append(float(psnr(x, truth)))
    return {gsd: {name: float(np.mean(v)) for name, v in of.items()} for gsd, of in scores.items()}


# --- the product ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate_product(model: SuperResolution, scene: NativeScene, side_px: int = 48) -> dict[str, float]:
    """The whole product on a scene seen from four times as far: PSNR in decibels (range 1), mean over its chips.

    40, 80 and 240 m stand in for the native 10, 20 and 60 m, so that the scene's own 10 m bands are the truth.
    `side_px`: side of a chip in pixels of the 10 m stand-in, a multiple of 6. Names: "rgb …" and "nir …", each
    "bicubic" and "product". Raises ValueError where the scene is smaller than a chip.
    """
    generator = torch.Generator().manual_seed(0)
    fine = {gsd: side_px * SCALE * 10 // gsd for gsd in GROUPS}
    native = {gsd: torch.stack([scene.bands[band] for band in names]) for gsd, names in GROUPS.items()}
    rows, cols = (n // fine[60] for n in native[60].shape[-2:])
    if not rows * cols:
        raise ValueError(f"{scene.name}: smaller than a chip of {fine[60]} pixels of 60 m")
    scores: dict[str, list[float]] = {}
    for row, col in ((r, c) for r in range(rows) for c in range(cols)):
        chip = {g: native[g][None, :, row * n : (row + 1) * n, col * n : (col + 1) * n] for g, n in fine.items()}
        bands = {g: _seen_from_afar(g, x) for g, x in chip.items()}
        valid = {g: torch.ones_like(x[:, :1], dtype=torch.bool) for g, x in bands.items()}
        noise = torch.randn((1, 3, fine[10], fine[10]), generator=generator)
        ways = {"bicubic": bicubic(bands[10]), "product": model(bands, valid, noise)[:, band_indices(GROUPS[10])]}
        for way, x in ways.items():
            for name, channels in (("rgb", slice(0, 3)), ("nir", slice(3, 4))):
                value = float(psnr(x[:, channels], chip[10][:, channels]))
                scores.setdefault(f"{name} {way}", []).append(value)
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _seen_from_afar(gsd: int, x: Tensor) -> Tensor:
    m = torch.stack([_sensor_axis(x.shape[-1] // SCALE, MTF_NYQUIST[band]) for band in GROUPS[gsd]])
    return m @ x @ m.transpose(-1, -2)


@torch.no_grad()
def evaluate_fused_rgb(model: SuperResolution, pairs: Sequence[Pair]) -> float:
    """PSNR in decibels of RGB after fusion and back-projection on aerial pairs, the mean; green stands in for NIR."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for pair in pairs:
        lr = pair.lr[None]
        x_T = torch.randn((1, *pair.hr.shape), generator=generator)
        guide = project_rgb(model.stage1.sample(lr, x_T, skip_last=True), lr)
        measured = lr[:, [0, 1, 2, 1]]
        fused = FUSION.select(GROUPS[10]).invert(_fuse_standardised(model.fusion, 10, guide, measured))
        values.append(float(psnr(project_rgb(fused[:, :3], lr)[0], pair.hr)))
    return float(np.mean(values))


# --- runs on disk ---------------------------------------------------------------------------------------------------


def _checkpoint(
    out: Path, step: int, seconds: float, learning: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write all that `_resume` needs to `out/run.pt`; a run that is killed meanwhile keeps the one before."""
    out.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "seconds": seconds, "learning": learning.state_dict(), "average": average.state_dict()}
    torch.save(state | {"optimiser": optimiser.state_dict()}, out / "run.tmp")
    (out / "run.tmp").replace(out / "run.pt")


def _resume(
    out: Path | None, learning: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, float]:
    """Continue a run where its folder has one; returns steps and seconds done."""
    if out is None or not (out / "run.pt").exists():
        return 0, 0.0
    state = torch.load(out / "run.pt", weights_only=True)
    learning.load_state_dict(state["learning"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), float(state["seconds"])


def export_run(run: Path, folder: Path) -> None:
    """Write the averaged weights of a stage-1 run as half-precision safetensors to a folder of shipped weights."""
    state = torch.load(run / "run.pt", weights_only=True)
    stage1 = Stage1(SMALL)
    stage1.load_state_dict(state["average"])
    save_shipped(folder, "stage1", stage1, {"config": json.dumps(SMALL.to_dict()), "steps": str(state["step"])})


def save_shipped(folder: Path, stage: str, module: nn.Module, facts: Mapping[str, str]) -> None:
    """Write `small-<stage>.safetensors` in half precision, and its sha256 into ``index.json``."""
    tensors = {key: x.half() if x.is_floating_point() else x for key, x in module.state_dict().items()}
    path = folder / f"small-{stage}.safetensors"
    save_file({key: x.contiguous().clone() for key, x in tensors.items()}, path, dict(facts))
    index_path = folder / "index.json"
    index = json.loads(index_path.read_text()) if index_path.exists() else {"small": {}}
    index["small"][stage] = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    index_path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    commands = parser.add_subparsers(dest="command", required=True)
    stage1 = commands.add_parser("stage1", help="train stage 1")
    stage1.add_argument("--hr", type=Path, required=True, help="folder with the folders of imagery")
    stage1.add_argument("--out", type=Path, required=True, help="folder of the run; continued if it exists")
    fusion = commands.add_parser("fusion", help="train the fusion network")
    fusion.add_argument("--scenes", type=Path, nargs="+", required=True, help="folders with native 12-band scenes")
    for command, settings in ((stage1, Stage1Settings), (fusion, FusionSettings)):
        command.add_argument("--weights", type=Path, required=True, help="folder to write the weights and index to")
        command.add_argument("--steps", type=int, default=settings.steps)
        command.add_argument("--minutes", type=float, default=settings.minutes)
        command.add_argument("--rate", type=float, default=settings.rate)
    evaluate = commands.add_parser("evaluate", help="the shipped weights against bicubic enlargement")
    evaluate.add_argument("--hr", type=Path, required=True)
    evaluate.add_argument("--scenes", type=Path, nargs="*", default=[])
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    {"stage1": _run_stage1, "fusion": _run_fusion, "evaluate": _run_evaluation}[args.command](args)


def _run_stage1(args: argparse.Namespace) -> None:
    training, held_out = load_hr_images(args.hr)
    train_stage1(training, held_out, Stage1Settings(steps=args.steps, minutes=args.minutes, rate=args.rate), args.out)
    export_run(args.out, args.weights)


def _run_fusion(args: argparse.Namespace) -> None:
    training, held_out = load_native_scenes(args.scenes)
    settings = FusionSettings(steps=args.steps, minutes=args.minutes, rate=args.rate)
    network = train_fusion(training, held_out, settings)
    save_shipped(args.weights, "fusion", network, {"config": json.dumps(asdict(FUSION_SMALL))})


def _run_evaluation(args: argparse.Namespace) -> None:
    model = load_model("small")
    for name, pairs in validation_pairs(load_hr_images(args.hr)[1]).items():
        scores = evaluate_stage1(model.stage1, pairs) | {"after fusion": evaluate_fused_rgb(model, pairs)}
        log.info("%s: %s", name, _table(scores))
    if args.scenes:
        for scenes in load_native_scenes(args.scenes):
            for scene in scenes:
                log.info("%s: %s", scene.name, _table(evaluate_product(model, scene)))


if __name__ == "__main__":
    main()
