"""What all fusion networks have in common."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from smooth_chips import chips

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.networks.fusion.build import build_fusion
from difffusr.kernels.networks.fusion.frame import FOLDED, PUBLISHED_V1, PUBLISHED_V2, SMALL, FusionConfig


@pytest.mark.parametrize("config", [SMALL, FOLDED, PUBLISHED_V1, PUBLISHED_V2], ids=lambda c: c.generation)
def test_lowered_features_leave_a_fusion_networks_output_float32(config: FusionConfig):
    torch.manual_seed(0)
    network = build_fusion(FusionConfig(config.generation, 16, 2, 8)).eval().requires_grad_(False)
    bands = chips(side_m=480)[0]
    if config.generation in ("v1", "v2"):
        bands = {gsd: F.interpolate(x, size=48) for gsd, x in bands.items()}
    exact = network(bands)
    network.lower(torch.bfloat16)
    lowered = network(bands)
    for gsd in GROUPS:
        assert lowered[gsd].dtype == torch.float32
        values = lowered[gsd].unique().numel() / lowered[gsd].numel()
        assert values > 0.1  # not the few values that bfloat16 has
        torch.testing.assert_close(lowered[gsd], exact[gsd], atol=0.05, rtol=0.05)
