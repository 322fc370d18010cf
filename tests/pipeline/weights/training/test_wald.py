"""Wald's protocol keeps the ground: what is measured is the mean of the truth."""

from __future__ import annotations

import torch
from mixed_scene import mixed_scene

from difffusr.pipeline.weights.training.wald import squares, view_of


def test_walds_protocol_keeps_the_ground_and_needs_enough_of_it():
    scene = mixed_scene()
    (ten,), (twenty,) = squares(view_of(scene, 10)), squares(view_of(scene, 20))
    assert (ten.measured.shape, ten.truth.shape) == ((4, 36, 36), (4, 144, 144))
    assert (twenty.measured.shape, twenty.truth.shape) == ((6, 9, 9), (6, 72, 72))
    assert twenty.others[10].shape == (4, 18, 18)
    assert squares(view_of(scene, 60)) == []  # 24 pixels of 60 m are one coarse pixel
    assert torch.allclose(twenty.measured.mean((1, 2)), twenty.truth.mean((1, 2)), rtol=0.05)
    assert torch.equal(ten.guide, ten.truth[:3])
