"""Wald's protocol keeps the ground: what is measured is the mean of the truth, however the ground is varied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mixed_scene import mixed_scene

from difffusr.kernels.bands import GROUPS, RGB
from difffusr.pipeline.weights.training.wald import (
    LOST,
    MIXED,
    SHIFT_PX,
    random_square,
    seen_from_afar,
    squares,
    view_of,
)
from difffusr.pipeline.weights.training.wald import _related_anew as related_anew
from difffusr.pipeline.weights.training.wald import _shifted as shifted
from difffusr.pipeline.weights.training.wald import _varied as varied


def test_walds_protocol_keeps_the_ground_and_needs_enough_of_it():
    scene = mixed_scene()
    (ten,), (twenty,) = squares(view_of(scene, 10)), squares(view_of(scene, 20))
    assert (ten.measured.shape, ten.truth.shape) == ((4, 36, 36), (4, 144, 144))
    assert (twenty.measured.shape, twenty.truth.shape) == ((6, 9, 9), (6, 72, 72))
    assert twenty.others[10].shape == (4, 18, 18)
    assert squares(view_of(scene, 60)) == []  # 24 pixels of 60 m are one coarse pixel
    assert torch.allclose(twenty.measured.mean((1, 2)), twenty.truth.mean((1, 2)), rtol=0.05)
    assert torch.equal(ten.guide, ten.truth[:3])


@pytest.mark.parametrize("gsd", [10, 20])
@pytest.mark.parametrize("wide", [False, True])
def test_what_is_drawn_depends_on_the_seed_alone(gsd: int, wide: bool):
    view = view_of(mixed_scene(), gsd)
    one, again, other = (random_square(view, 48, np.random.default_rng(seed), wide=wide) for seed in (5, 5, 6))
    assert torch.equal(one.truth, again.truth)
    assert torch.equal(one.measured, again.measured)
    assert not torch.equal(one.truth, other.truth)


@pytest.mark.parametrize("gsd", [10, 20])
@pytest.mark.parametrize("seed", range(3))
def test_varied_ground_is_still_what_its_sensor_sees(gsd: int, seed: int):
    sample = random_square(view_of(mixed_scene(), gsd), 48, np.random.default_rng(seed), wide=True)
    assert (sample.truth > 0).all()
    plain = random_square(view_of(mixed_scene(), gsd), 48, np.random.default_rng(seed))
    assert plain.shapes() == sample.shapes()
    factor = sample.truth.shape[-1] // sample.measured.shape[-1]
    means = F.avg_pool2d(sample.truth, factor)
    for seen, mean in zip(sample.measured, means, strict=True):
        assert torch.corrcoef(torch.stack([seen.flatten(), mean.flatten()]))[0, 1] > 0.6


def test_plain_draws_know_no_other_mtf():
    bands = view_of(mixed_scene(), 20).bands
    plain, again = (seen_from_afar("", 20, bands) for _ in range(2))
    off = seen_from_afar("", 20, bands, np.random.default_rng(0))
    assert torch.equal(plain.measured, again.measured)
    assert torch.equal(plain.truth, off.truth)
    assert 0.001 < (off.measured - plain.measured).abs().max() / plain.measured.std() < 1


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, 0.0), (0.0, -0.3), (0.2, 0.1), (-0.25, 0.25)])
def test_a_group_is_moved_by_a_part_of_a_pixel_and_colours_stay(shift: tuple[float, float]):
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(40.0), indexing="ij")
    ramp = (rows + 3 * columns)[None].expand(4, -1, -1) / 200
    moved = shifted(ramp, np.array(shift), 10)
    assert torch.equal(moved[:3], ramp[:3])
    expected = ramp + (shift[0] + 3 * shift[1]) / 200
    torch.testing.assert_close(moved[3, 4:-4, 4:-4], expected[3, 4:-4, 4:-4], atol=1e-3, rtol=0)  # 0.07 px


def test_gains_haze_and_lost_bands_come_as_often_as_stated():
    bands = view_of(mixed_scene(), 20).bands
    draws = [varied(bands, np.random.default_rng(seed)) for seed in range(300)]
    contrast = torch.stack([draw[10].std((1, 2)) for draw in draws])
    lost = (contrast < 1e-6).float().mean(0)
    nir = GROUPS[10].index("B08")
    assert abs(float(lost[nir]) - LOST) < 0.04
    assert all(float(lost[GROUPS[10].index(band)]) == 0 for band in RGB)
    assert not (torch.stack([draw[20].std((1, 2)) for draw in draws]) < 1e-6).any(), "the group itself is never lost"
    added = torch.stack([draw[10].mean((1, 2)) for draw in draws])
    assert added[:, GROUPS[10].index("B02")].std() > added[:, nir].std() * 0.3
    assert SHIFT_PX == 0.3


@pytest.mark.parametrize("gsd", [10, 20])
def test_bands_are_mixed_and_bent_as_often_as_stated_and_colours_only_bent(gsd: int):
    bands = {g: x[:, ::6, ::6] for g, x in view_of(mixed_scene(), gsd).bands.items()}
    like: dict[str, list[float]] = {name: [] for g in bands for name in GROUPS[g]}
    for seed in range(200):
        for g, drawn in related_anew(bands, np.random.default_rng(seed)).items():
            assert (drawn > 0).all()
            for name, new, old in zip(GROUPS[g], drawn, bands[g], strict=True):
                assert 0.7 < new.mean() / old.mean() < 1.4
                ranks = torch.stack([x.flatten().argsort().argsort().float() for x in (new, old)])
                like[name].append(float(torch.corrcoef(ranks)[0, 1]))
    for name, found in like.items():
        kept = np.mean(np.array(found) > 0.999)
        if name in RGB:
            assert kept == 1, "a power keeps the order of pixels"
        else:
            assert abs(1 - kept - MIXED) < 0.12
            assert min(found) < 0, "some are upside down"
