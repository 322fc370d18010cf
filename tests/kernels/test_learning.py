"""Losses teach every network, and a network starts where its training expects it."""

from __future__ import annotations

import pytest
import torch
from tiny_training import TINY

from difffusr.kernels.learning import inference_weights, published_losses, start_at_nothing
from difffusr.kernels.networks.stage1 import Stage1, Stage1Config
from difffusr.pipeline.weights.training.degrading import published_degrade
from difffusr.pipeline.weights.training.draws import Seeds


def test_a_velocity_network_starts_by_predicting_nothing():
    torch.manual_seed(0)
    config = Stage1Config.from_dict(TINY | {"diffusion": {"prediction": "v", "residual": 1.0, "clip": 6.0}})
    learning = Stage1(config, training=True)
    start_at_nothing(learning)
    stage1 = Stage1(config)
    stage1.load_state_dict(inference_weights(learning))
    x, lr = torch.randn(1, 3, 32, 32), torch.rand(1, 3, 8, 8)
    ctx, k = stage1.encode(lr)
    level = torch.tensor([[0.3]])
    assert torch.allclose(stage1.clean(x, level, stage1.ema(x, level, ctx, k)), 0.3 * x)


@pytest.mark.parametrize("precision", ["mixed", "float32", "bfloat16"])
def test_published_losses_are_positive_and_reach_every_network(precision):
    torch.manual_seed(0)
    stage1 = Stage1(Stage1Config.from_dict(TINY), training=True).train()
    hr = torch.rand(2, 2, 3, 64, 64)
    lr = published_degrade(hr, Seeds(0, 0, 0).draws(torch.device("cpu")))
    assert lr.shape == (2, 2, 3, 16, 16)
    assert torch.allclose(lr * 255, (lr * 255).round(), atol=1e-3)
    losses = published_losses(stage1, hr[:, 0], lr, torch.Generator().manual_seed(0), precision)
    assert all(float(loss.detach()) > 0 for loss in losses.values())
    sum(losses.values()).backward()
    for part in (stage1.encoder.conv_first, stage1.model.first_conv_x, stage1.E.encoder_q.E[0]):
        assert part.weight.grad is not None, "no gradient arrives"
