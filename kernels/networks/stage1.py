"""Stage 1: super-resolves red, green, blue by 4 with a blind diffusion model (reference section 1)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any, Final, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difffusr.kernels.images import from_stage1, local_moments, signal_share, to_stage1
from difffusr.kernels.networks.degradation_encoder import DegradationEncoder, MomentumContrast
from difffusr.kernels.networks.rrdb import RRDBNet
from difffusr.kernels.networks.unet import DiffusionUNet
from difffusr.kernels.sampling import Schedule, cosine_schedule, ddim_sample, multistep_levels, multistep_sample
from difffusr.kernels.weights import Weights, WeightsError, load_into

#: Keys of a training checkpoint that inference does not use.
TRAINING_ONLY = ("model.", "E.encoder_k.", "E.queue", "diffusion.")


#: Channels or blocks, and levels, that a file may ask for: the published networks have 256, and 6.
_LARGEST_SIZE, _MOST_LEVELS = 1024, 16


@dataclass(frozen=True)
class RRDBConfig:
    """Sizes of the context encoder."""

    channels: int = 64
    blocks: int = 23
    growth: int = 32


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the degradation encoder."""

    widths: tuple[int, ...] = (64, 64, 128, 128, 256, 256)
    mlp: bool = True


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the diffusion network."""

    inner_channels: int = 64
    channel_mults: tuple[int, ...] = (1, 2, 2, 4, 8)
    res_blocks: int = 5
    attn_strides: tuple[int, ...] = (16,)
    fold: int = 2
    norm_groups: int = 32
    kernel_dim: int = 64
    mid_attention: bool = True
    even_phases: bool = False


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion network's target and prediction.

    Attributes:
        prediction: "x0", the clean image, as published; "v", the velocity ℓ·noise − √(1 − ℓ²)·x0 (Salimans and Ho
            2022), which weighs all noise levels equally and needs no capacity to reproduce its input.
        residual: 0: the image itself, as published. Above 0: the image's difference to the context encoder's own RGB,
            in units of `residual` times the local contrast of the low-resolution image (see `local_contrast`).
            Details of a dark, smooth scene are then as large to the network as those of a town, and nothing can be
            invented where the image is flat.
        clip: limit of the estimates of the clean image.
        chroma: the share that stays of a residual's colour, its deviation from the mean of the three channels. What is
            invented is mostly brightness: noise that differs by channel would sprinkle grey roofs with colours.
    """

    prediction: Literal["x0", "v"] = "x0"
    residual: float = 0.0
    clip: float = 1.0
    chroma: float = 1.0


@dataclass(frozen=True)
class Stage1Config:
    """Sizes of the three networks of stage 1; by default those of the published system."""

    rrdb: RRDBConfig = field(default_factory=RRDBConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers, as JSON knows them; `from_dict` is the way back."""
        return {
            part: {name: list(value) if isinstance(value, tuple) else value for name, value in sizes.items()}
            for part, sizes in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, sizes: Mapping[str, Mapping[str, Any]]) -> Self:
        """A configuration from plain dictionaries; missing sizes as published. Raises ValueError for unknown ones."""
        parts = {"rrdb": RRDBConfig, "encoder": EncoderConfig, "unet": UNetConfig, "diffusion": DiffusionConfig}
        made: dict[str, Any] = {}
        for part, given in sizes.items():
            known = {entry.name for entry in fields(parts[part])} if part in parts else set()
            if unknown := set(given) - known:
                raise ValueError(f"no size of stage 1 is called {part}.{min(unknown)}")
            if given:
                values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
                made[part] = parts[part](**values)
        return cls(**made)

    def check_sizes(self) -> None:
        """Raise ValueError for sizes that no network has: one would take all memory before its weights were seen not to
        fit."""
        for part, sizes in asdict(self).items():
            for name, value in sizes.items():
                several = value if isinstance(value, tuple) else (value,)
                numbers = [one for one in several if part != "diffusion" or name != "prediction"]
                if len(several) > _MOST_LEVELS or not all(0 <= number <= _LARGEST_SIZE for number in numbers):
                    raise ValueError(f"{part}.{name} of stage 1 is {str(value)[:60]}, at most {_LARGEST_SIZE} is built")

    @classmethod
    def from_hyper_parameters(cls, hyper_parameters: Mapping[str, Any]) -> Self:
        """The sizes that a published Lightning checkpoint states. Raises ValueError if it states none."""
        try:
            args = hyper_parameters["lit_model"]["args"]
            rrdb, unet = args["encoder"]["args"], args["diffusion_model"]["args"]
            return cls(
                rrdb=RRDBConfig(rrdb["num_feat"], rrdb["num_block"], rrdb["num_grow_ch"]),
                unet=UNetConfig(
                    inner_channels=unet["inner_channel"],
                    channel_mults=tuple(unet["channel_mults"]),
                    res_blocks=unet["res_blocks"],
                    attn_strides=tuple(unet["attn_strides"]),
                    fold=unet["fold"],
                    norm_groups=unet["norm_groups"],
                ),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the hyper-parameters do not state the sizes of stage 1: {error} is not there") from error


#: The published system: 147 million parameters at inference.
PUBLISHED = Stage1Config()

#: A configuration for CPUs: the diffusion network works on the low-resolution grid, on the residual.
SMALL = Stage1Config(
    rrdb=RRDBConfig(channels=32, blocks=4, growth=16),
    encoder=EncoderConfig(widths=(16, 16, 32, 32, 64, 64)),
    unet=UNetConfig(
        inner_channels=64,
        channel_mults=(1, 2),
        res_blocks=1,
        attn_strides=(),
        fold=4,
        norm_groups=8,
        kernel_dim=32,
        mid_attention=False,
        even_phases=True,
    ),
    diffusion=DiffusionConfig(prediction="v", residual=1.25, clip=6.0, chroma=0.5),
)

#: A configuration for small GPUs, and for CPUs with patience: the diffusion network works on a grid of 5 m.
BASE = Stage1Config(
    rrdb=RRDBConfig(channels=48, blocks=7, growth=24),
    encoder=EncoderConfig(widths=(24, 24, 48, 48, 96, 96)),
    unet=replace(SMALL.unet, res_blocks=2, fold=2, kernel_dim=48),
    diffusion=SMALL.diffusion,
)

#: `local_contrast`: its floor, reflectance.
CONTRAST_FLOOR: Final = 0.002


class Stage1(nn.Module):
    """The networks of stage 1 under their published names, and the sampling of an image.

    `encoder` (RRDBNet) encodes the image, `E.encoder_q` its degradation, `ema` (DiffusionUNet, averaged weights)
    samples. With `training` there are also `model` (the learning network, which `ema` averages), the key encoder and
    queue of `E`, and the schedule's buffers: the full layout of a published checkpoint. Without, the module is in
    evaluation mode and needs no gradients.
    """

    def __init__(self, config: Stage1Config = PUBLISHED, training: bool = False) -> None:
        super().__init__()
        self.config = config
        self.schedule = cosine_schedule()
        self.encoder = RRDBNet(**asdict(config.rrdb))
        encoder_q = DegradationEncoder(**asdict(config.encoder))
        self.ema = self._unet()
        self.E: nn.Module
        if training:
            self.E = MomentumContrast(encoder_q, copy.deepcopy(encoder_q), dim=config.encoder.widths[-1])
            self.model = self._unet()
            self.model.reset_parameters()
            self.ema.reset_parameters()  # the average has its own start
            self.ema.requires_grad_(False)
            self.diffusion = _Buffers(self.schedule)
        else:
            self.E = nn.ModuleDict({"encoder_q": encoder_q})
            self.eval().requires_grad_(False)

    @classmethod
    def from_weights(cls, weights: Weights, config: Stage1Config | None = None) -> Stage1:
        """The networks for inference, with loaded weights; weights that only training needs are ignored.

        Sizes come from `config`, or else from a safetensors header's "config" (JSON of `Stage1Config.to_dict`), or else
        from a checkpoint's hyper-parameters, or else are the published ones.
        Raises WeightsError if the file holds no stage 1, or one of other sizes.
        """
        if weights.kind != "stage1":
            raise WeightsError(f"{weights.source}: holds no stage 1 (recognised as {weights.kind})")
        if config is None:
            try:
                config = _stated_config(weights)
                config.check_sizes()
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise WeightsError(f"{weights.source}: {error}") from error
        with torch.device("meta"):  # no memory, no random numbers: the weights take the place of these tensors
            stage1 = cls(config)
        load_into(stage1, weights, ignore=TRAINING_ONLY)
        return stage1

    def encode(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Low-resolution RGB (B, 3, h, w), reflectance → context (B, channels, h, w), degradation vector (B, dim)."""
        n = to_stage1(lr)
        encoder_q = self.E.get_submodule("encoder_q")
        assert isinstance(encoder_q, DegradationEncoder)
        return self.encoder.context(n), encoder_q.features(n)

    @torch.no_grad()
    def sample(
        self, lr: Tensor, x_T: Tensor, skip: int = 50, skip_last: bool = False, denoised: bool = False
    ) -> Tensor:
        """Super-resolved RGB (B, 3, 4h, 4w), reflectance, not clamped, by the published sampler.

        `lr` (B, 3, h, w): bands R, G, B (B04, B03, B02), reflectance; `x_T` (B, 3, 4h, 4w): standard normal noise. The
        same `lr` and `x_T` give the same image. `skip`, `skip_last`, `denoised`: see `ddim_sample`. The module must
        be in evaluation mode.
        """
        ddim = partial(ddim_sample, schedule=self.schedule, skip=skip, skip_last=skip_last, denoised=denoised)
        return self._solved(ddim, lr, x_T)

    @torch.no_grad()
    def sample_multistep(self, lr: Tensor, x_T: Tensor, steps: int) -> Tensor:
        """As `sample`, in `steps` evaluations of the network by the solver of second order, `multistep_sample`."""
        multistep = partial(multistep_sample, levels=multistep_levels(self.schedule, steps))
        return self._solved(multistep, lr, x_T)

    def _solved(self, solve: Callable[..., Tensor], lr: Tensor, x_T: Tensor) -> Tensor:
        """The image that a sampler makes from noise, with the networks conditioned on `lr`."""
        h, w = lr.shape[-2:]
        if x_T.shape != (len(lr), 3, 4 * h, 4 * w):
            raise ValueError(
                f"noise for {tuple(lr.shape)} must be {(len(lr), 3, 4 * h, 4 * w)}, got {tuple(x_T.shape)}"
            )
        ctx, k = self.encode(lr)
        conditioning = self.ema.prepare(ctx, k, (4 * h, 4 * w))
        x = solve(
            lambda x, level: self.clean(x, level, self.ema.denoise(x, level[:1], conditioning)),
            x_T,
            clip=self.config.diffusion.clip,
        )
        diffusion = self.config.diffusion
        if not diffusion.residual:
            return from_stage1(x)
        if diffusion.chroma != 1:
            x = x.mean(1, keepdim=True).lerp(x, diffusion.chroma)
        return self._above_noise(from_stage1(self.encoder.tail(ctx)) + self.unit(lr) * x, lr)

    def lower(self, dtype: torch.dtype) -> None:
        """Run the features of the context encoder and of the diffusion network in a lower precision.

        The image, noise levels, degradation vectors and everything outside the networks stay float32.
        """
        self.encoder.lower(dtype)
        self.ema.lower(dtype)

    def clean(self, x: Tensor, level: Tensor, predicted: Tensor) -> Tensor:
        """The clean image x̂0 (B, 3, H, W) implied by the network's prediction at x and noise level ℓ (B, 1)."""
        if self.config.diffusion.prediction == "x0":
            return predicted
        level = level.view(-1, 1, 1, 1)
        return level * x - ((1 - level) * (1 + level)).sqrt() * predicted  # x̂0 = ℓ x − √(1 − ℓ²) v

    def unit(self, lr: Tensor) -> Tensor:
        """Size in reflectance of one unit of the residual: (B, 3, h, w) → (B, 1, 4h, 4w)."""
        contrast = self.config.diffusion.residual * local_contrast(lr)
        return F.interpolate(contrast, scale_factor=4, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def deterministic(self, lr: Tensor) -> Tensor:
        """The context encoder's own RGB, no diffusion: (B, 3, h, w) → (B, 3, 4h, 4w), reflectance, not clamped."""
        return self._above_noise(from_stage1(self.encoder.tail(self.encoder.context(to_stage1(lr)))), lr)

    def _above_noise(self, x: Tensor, lr: Tensor) -> Tensor:
        """An image (B, 3, 4h, 4w) where `lr` has contrast; its enlargement where that is none but noise.

        Only for the residual: what was published is left as it is.
        """
        if not self.config.diffusion.residual:
            return x
        plain = F.interpolate(lr, scale_factor=4, mode="bicubic", align_corners=False)
        share = F.interpolate(signal_share(lr), scale_factor=4, mode="bilinear", align_corners=False)
        return plain + share * (x - plain)

    def _unet(self) -> DiffusionUNet:
        config = self.config
        return DiffusionUNet(
            ctx_channels=config.rrdb.channels, degradation_dim=config.encoder.widths[-1], **asdict(config.unet)
        )


def local_contrast(lr: Tensor) -> Tensor:
    """Standard deviation of an image around each pixel, over its channels: (B, C, h, w) → (B, 1, h, w), same units."""
    _, variance = local_moments(lr)
    return (variance.mean(1, keepdim=True) + CONTRAST_FLOOR**2).sqrt()


def _stated_config(weights: Weights) -> Stage1Config:
    """The sizes that a file states, or the published ones if it states none."""
    if "config" in weights.metadata:
        return Stage1Config.from_dict(json.loads(weights.metadata["config"]))
    if weights.hyper_parameters:
        return Stage1Config.from_hyper_parameters(weights.hyper_parameters)
    return PUBLISHED


class _Buffers(nn.Module):
    """The schedule's tensors as in published checkpoints."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        for name, tensor in schedule.buffers().items():
            self.register_buffer(name, tensor)
