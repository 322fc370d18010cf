"""However the ground is varied, what is measured is what its sensor sees of the truth."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mixed_scene import mixed_scene
from varied_ground import ground

from difffusr.kernels.bands import GROUPS, RGB
from difffusr.kernels.networks.fusion import upscale_factor
from difffusr.pipeline.weights.training.draws import Seeds
from difffusr.pipeline.weights.training.variation import (
    LOST,
    MIXED,
    SHIFT_PX,
    GroundSource,
    WaldBatch,
    observed,
    related_anew,
    shifted,
    varied,
)
from difffusr.pipeline.weights.training.wald import squares, view_of

CPU = torch.device("cpu")


def drawn(gsd: int, seed: int, *, wide: bool, batch: int = 3, scenes: tuple = ()) -> list[WaldBatch]:
    views = [(view_of(scene, gsd), 1.0) for scene in scenes or (mixed_scene(),)]
    return GroundSource.of(gsd, views, 48, CPU).draw(Seeds(seed, 0, 0), batch, wide=wide)


@pytest.mark.parametrize("gsd", [10, 20])
@pytest.mark.parametrize("wide", [False, True])
def test_what_is_drawn_depends_on_the_seed_alone(gsd: int, wide: bool):
    (one,), (again,), (other,) = (drawn(gsd, seed, wide=wide) for seed in (5, 5, 6))
    assert torch.equal(one.truth, again.truth)
    assert torch.equal(one.measured, again.measured)
    assert torch.equal(one.guide, again.guide)
    assert not torch.equal(one.truth, other.truth)


@pytest.mark.parametrize("gsd", [10, 20])
@pytest.mark.parametrize("seed", range(3))
def test_varied_ground_is_still_what_its_sensor_sees(gsd: int, seed: int):
    (batch,) = drawn(gsd, seed, wide=True)
    assert (batch.truth > 0).all()
    means = F.avg_pool2d(batch.truth, batch.truth.shape[-1] // batch.measured.shape[-1])
    for seen, mean in zip(batch.measured.flatten(0, 1), means.flatten(0, 1), strict=True):
        assert torch.corrcoef(torch.stack([seen.flatten(), mean.flatten()]))[0, 1] > 0.6


@pytest.mark.parametrize(("gsd", "side"), [(10, 24), (10, 72), (20, 72)])
def test_scenes_smaller_than_a_square_give_smaller_ones(gsd: int, side: int):
    small = min(48, side * 10 // gsd) // upscale_factor(gsd) * upscale_factor(gsd)
    batches = drawn(gsd, 1, wide=False, batch=96, scenes=(ground(0), ground(1), ground(2, side)))
    sides = {batch.truth.shape[-1]: len(batch.truth) for batch in batches}
    assert sum(sides.values()) == 96
    if small == 48:
        assert sides == {48: 96}
    else:
        assert 18 <= sides[small] <= 46, "about a third"


def test_without_draws_a_band_has_its_own_mtf():
    (sample,) = squares(view_of(mixed_scene(), 20))
    off = observed(sample.truth[None], 20, Seeds(0, 0, 0).draws(CPU))[0]
    torch.testing.assert_close(observed(sample.truth[None], 20)[0], sample.measured)
    assert 0.001 < (off - sample.measured).abs().max() / sample.measured.std() < 1


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, 0.0), (0.0, -0.3), (0.2, 0.1), (-0.25, 0.25)])
def test_a_group_is_moved_by_a_part_of_a_pixel_and_colours_stay(shift: tuple[float, float]):
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(40.0), indexing="ij")
    ramp = (rows + 3 * columns).expand(2, 4, -1, -1) / 200
    moved = shifted(ramp, torch.tensor([shift, (0.0, 0.0)]), 10)
    assert torch.equal(moved[:, :3], ramp[:, :3])
    expected = ramp[0] + (shift[0] + 3 * shift[1]) / 200
    torch.testing.assert_close(moved[0, 3, 4:-4, 4:-4], expected[3, 4:-4, 4:-4], atol=1e-3, rtol=0)  # 0.07 px
    torch.testing.assert_close(moved[1], ramp[1])


def test_gains_haze_and_lost_bands_come_as_often_as_stated():
    bands = {g: x[:, :16, :16].expand(2000, -1, -1, -1) for g, x in view_of(mixed_scene(), 20).bands.items()}
    draws = varied(bands, Seeds(0, 0, 0).draws(CPU))
    lost = (draws[10].std((2, 3)) < 1e-6).float().mean(0)
    nir = GROUPS[10].index("B08")
    assert abs(float(lost[nir]) - LOST) < 0.015
    assert all(float(lost[GROUPS[10].index(band)]) == 0 for band in RGB)
    assert not (draws[20].std((2, 3)) < 1e-6).any(), "the group itself is never lost"
    added = draws[10].mean((2, 3)) - bands[10].mean((2, 3))
    assert added[:, GROUPS[10].index("B02")].std() > 1.2 * added[:, nir].std(), "haze is blue"
    assert SHIFT_PX == 0.3


@pytest.mark.parametrize("gsd", [10, 20])
def test_bands_are_mixed_and_bent_as_often_as_stated_and_colours_only_bent(gsd: int):
    bands = {g: x[:, ::6, ::6].expand(300, -1, -1, -1) for g, x in view_of(mixed_scene(), gsd).bands.items()}
    for g, drawn in related_anew(bands, Seeds(0, gsd, 0).draws(CPU)).items():
        assert (drawn > 0).all()
        ratio = drawn.mean((2, 3)) / bands[g].mean((2, 3))
        assert ratio.min() > 0.7
        assert ratio.max() < 1.4
        # whether pixels keep their order
        along = drawn.flatten(2).gather(2, bands[g].flatten(2).argsort(stable=True))
        steps = along.diff() / drawn.flatten(2).std(2, keepdim=True)
        kept = (steps > -1e-3).all(2).float().mean(0)
        for name, share in zip(GROUPS[g], kept.tolist(), strict=True):
            if name in RGB:
                assert share == 1, "a power keeps the order of pixels"
            else:
                assert abs(1 - share - MIXED) < 0.12
