"""The networks that are measured: the published sizes and those that ship; in a dry run, tiny ones."""

from __future__ import annotations

from typing import Any

import model_speed
import torch

from difffusr.kernels.networks.fusion import FusionConfig
from difffusr.kernels.networks.fusion.build import build_fusion
from difffusr.kernels.networks.stage1 import EncoderConfig, RRDBConfig, Stage1, Stage1Config, UNetConfig
from gpu.parts import Setting

#: Networks that learnt nothing, with every kind of layer that the published ones have.
TINY = Stage1Config(
    rrdb=RRDBConfig(channels=8, blocks=1, growth=4),
    encoder=EncoderConfig(widths=(4, 4, 8, 8, 8, 8)),
    unet=UNetConfig(
        inner_channels=16, channel_mults=(1, 2), res_blocks=1, attn_strides=(2,), fold=2, norm_groups=4, kernel_dim=8
    ),
)
TINY_FUSION = FusionConfig("v2", channels=8, blocks=2, growth=4)


def tiny_networks(seed: int = 0) -> tuple[Stage1, Any]:
    """As `model_speed.published_networks`, quickly."""
    torch.manual_seed(seed)
    return Stage1(TINY), build_fusion(TINY_FUSION).eval().requires_grad_(False)


def maker(setting: Setting) -> Any:
    """What makes the networks of published sizes, or what stands for them in a dry run."""
    return tiny_networks if setting.dry else model_speed.published_networks


def device_of(setting: Setting) -> torch.device:
    """The device, on which float32 is float32 from now on."""
    model_speed.exact()
    return torch.device(setting.device)
