"""Pansharpening: each baseline keeps what its paper promises, at every ratio that Sentinel-2's bands need."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.images.consistency import sensor_matrix
from difffusr.kernels.measures.pansharpen import (
    METHODS,
    atwt,
    bicubic,
    brovey,
    gram_schmidt_matched,
    gsa,
    hpf,
    ihs,
    mtf_glp,
    mtf_glp_cbd,
    mtf_glp_fs,
    mtf_glp_hpm,
    mtf_glp_hpm_r,
    mtf_glp_reg,
    pan_from_rgb,
    pca,
    sfim,
    synthesised_pan,
)

MTF = 0.27
RATIOS = {4: 24, 8: 12, 24: 6}  # pixels along the coarse grid
SUBSTITUTION = (brovey, ihs, pca, gram_schmidt_matched, gsa)
MULTIRESOLUTION = (hpf, sfim, atwt, mtf_glp, mtf_glp_reg, mtf_glp_fs, mtf_glp_cbd, mtf_glp_hpm, mtf_glp_hpm_r)
PYRAMIDS = (mtf_glp, mtf_glp_reg, mtf_glp_fs, mtf_glp_cbd, mtf_glp_hpm, mtf_glp_hpm_r)


def land(batch: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Fields of mixed materials with sharp edges and some texture: reflectance (B, C, size, size) around 0.05..0.5."""
    rng = np.random.default_rng(seed)
    materials = rng.uniform(0.0, 1.0, (batch, 3, size, size)) * 0.1
    for image in materials:
        for _ in range(40):
            row, col = rng.integers(0, size, 2)
            height, width = rng.integers(size // 16, size // 3, 2)
            image[:, row : row + height, col : col + width] += rng.uniform(-0.3, 0.6, (3, 1, 1))
    spectra = rng.uniform(0.02, 0.2, (channels, 3))
    return torch.from_numpy(0.15 + 0.1 * np.einsum("cm,bmhw->bchw", spectra, materials) / 0.1).float().clamp_min(0.02)


def observed(fine: Tensor, ratio: int, mtf: float = MTF) -> Tensor:
    rows, columns = (torch.from_numpy(sensor_matrix(n // ratio, ratio, mtf)) for n in fine.shape[-2:])
    return (rows @ fine.double() @ columns.mT).float()


def rmse(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("bands", [1, 2, 6])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_sharpens_every_group_of_bands(name: str, bands: int, ratio: int) -> None:
    size = RATIOS[ratio] * ratio
    truth = land(2, bands + 3, size)
    ms, rgb = observed(truth[:, 3:], ratio), truth[:, :3]
    before = ms.clone(), rgb.clone()
    out = METHODS[name](ms, rgb, [MTF] * bands)
    assert out.shape == (2, bands, size, size)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert torch.equal(ms, before[0])
    assert torch.equal(rgb, before[1])


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_two_is_two_singles(name: str) -> None:
    truth = land(2, 7, 48)
    ms, rgb, mtf = observed(truth[:, 3:], 4), truth[:, :3], (0.24, 0.28, 0.30, 0.25)
    together = METHODS[name](ms, rgb, mtf)
    singles = torch.cat([METHODS[name](ms[i : i + 1], rgb[i : i + 1], mtf) for i in range(2)])
    torch.testing.assert_close(together, singles, rtol=0, atol=2e-6)


@pytest.mark.parametrize("level", [0.0, 0.3, 3000.0])
@pytest.mark.parametrize("name", METHODS)
def test_a_constant_image_stays_constant(name: str, level: float) -> None:
    ms, rgb = torch.full((1, 2, 6, 6), level), torch.full((1, 3, 144, 144), 0.7 * level)
    out = METHODS[name](ms, rgb, (0.29, 0.28))
    torch.testing.assert_close(out, torch.full_like(out, level), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_constant_bands_under_a_varied_pan_and_the_reverse_are_finite(name: str) -> None:
    varied = land(1, 5, 48)
    flat_bands = METHODS[name](torch.full((1, 2, 12, 12), 0.2), varied[:, :3], (MTF, MTF))
    flat_pan = METHODS[name](observed(varied[:, 3:], 4), torch.full((1, 3, 48, 48), 0.2), (MTF, MTF))
    assert flat_bands.abs().max() < 1
    assert flat_pan.abs().max() < 1


@pytest.mark.parametrize("name", METHODS)
def test_dark_water_makes_no_ratio_explode(name: str) -> None:
    truth = land(1, 6, 96)
    truth[..., 20:70, 20:70] = 0.0
    out = METHODS[name](observed(truth[:, 3:], 4), truth[:, :3], [MTF] * 3)
    assert out.abs().max() < 2 * truth.max()


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("method", [gsa, gram_schmidt_matched, pca, *PYRAMIDS])
def test_bands_that_rise_with_the_pan_are_recovered_exactly(method, ratio: int) -> None:
    pan = land(2, 1, RATIOS[ratio] * ratio)
    slope, offset = torch.tensor([0.5, 2.0]).view(2, 1, 1), torch.tensor([0.1, 0.02]).view(2, 1, 1)
    truth = slope * pan + offset
    out = method(observed(truth, ratio), pan, (MTF, MTF))
    # at full scale the gain is fitted to the enlarged band and the pan: the same bands, the same gain
    torch.testing.assert_close(out, truth, rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", [gsa, mtf_glp_reg, mtf_glp_fs, mtf_glp_cbd, mtf_glp_hpm_r])
def test_regression_recovers_a_band_that_darkens_as_the_pan_brightens(method) -> None:
    pan = land(1, 1, 96)
    truth = 0.9 - 0.7 * pan
    out = method(observed(truth, 4), pan, (MTF,))
    torch.testing.assert_close(out, truth, rtol=0, atol=2e-5)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", ["GSA-HS", "MTF-GLP-HS", "MTF-GLP-CBD-HS", "MTF-GLP-HPM-HS"])
def test_hypersharpening_recovers_any_mix_of_red_green_and_blue(name: str, ratio: int) -> None:
    rgb = land(2, 3, RATIOS[ratio] * ratio)
    mix = torch.tensor([[0.2, 0.7, 0.1], [1.5, -0.8, 0.1], [0.0, 0.0, 1.0]])
    truth = torch.einsum("kc,bchw->bkhw", mix, rgb) + 0.05
    out = METHODS[name](observed(truth, ratio), rgb, [MTF] * 3)
    torch.testing.assert_close(out, truth, rtol=0, atol=1e-4)


def test_a_synthesised_pan_fits_its_band_better_than_the_mean_of_colours() -> None:
    truth = land(1, 7, 96)
    bands, rgb, mtf = truth[:, 3:], truth[:, :3], (0.24, 0.28, 0.30, 0.25)
    ms = torch.cat([observed(bands[:, i : i + 1], 4, m) for i, m in enumerate(mtf)], 1)
    pans = synthesised_pan(ms, rgb, mtf)
    for i, m in enumerate(mtf):
        own, mean = (observed(p, 4, m).flatten().double() for p in (pans[:, i : i + 1], pan_from_rgb(rgb)))
        band = ms[:, i].flatten().double()
        correlations = [float(torch.corrcoef(torch.stack([band, p]))[0, 1]) for p in (own, mean)]
        assert correlations[0] >= correlations[1]
        assert float(own.mean()) == pytest.approx(float(band.mean()), rel=1e-5)


def test_equal_colours_are_no_obstacle_to_a_synthesised_pan() -> None:
    grey = land(1, 1, 96).expand(1, 3, 96, 96)
    truth = 0.4 * grey[:, :1] + 0.1
    pan = synthesised_pan(observed(truth, 4), grey, (MTF,))
    torch.testing.assert_close(pan, truth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", PYRAMIDS)
def test_what_the_sensor_sees_of_a_pyramids_result_is_nearer_to_the_bands_than_bicubic(method) -> None:
    truth = land(2, 5, 96)
    ms, pan = observed(truth[:, 1:], 4), truth[:, :1]
    seen, plain = (observed(f(ms, pan, [MTF] * 4), 4) for f in (method, bicubic))
    assert rmse(seen, ms) < 0.5 * rmse(plain, ms)
    assert rmse(seen, ms) < 0.1 * float(ms.std())


@pytest.mark.parametrize("name", [n for n in METHODS if n != "bicubic"])
def test_every_method_beats_bicubic_where_bands_follow_the_colours(name: str) -> None:
    truth = land(2, 3, 96)
    ms = observed(truth, 4)
    mtf = [MTF] * 3
    assert rmse(METHODS[name](ms, truth, mtf), truth) < rmse(METHODS["bicubic"](ms, truth, mtf), truth)


def test_each_band_is_low_passed_by_its_own_sensor() -> None:
    pan, mtf = land(1, 1, 96), (0.2, 0.35)
    truth = torch.cat([0.5 * pan, 0.5 * pan], 1)
    ms = torch.cat([observed(pan, 4, m) for m in mtf], 1) / 2
    torch.testing.assert_close(mtf_glp(ms, pan, mtf), truth, rtol=0, atol=2e-5)
    assert rmse(mtf_glp(ms, pan, mtf[::-1]), truth) > 1e-3


@pytest.mark.parametrize("method", MULTIRESOLUTION)
def test_one_pan_for_all_bands_is_that_pan_given_for_each(method) -> None:
    truth = land(1, 4, 96)
    ms, pan, mtf = observed(truth[:, 1:], 4), truth[:, :1], (0.24, 0.28, 0.30)
    torch.testing.assert_close(method(ms, pan, mtf), method(ms, pan.repeat(1, 3, 1, 1), mtf), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [brovey, ihs, pca, gram_schmidt_matched])
def test_substitution_takes_the_mean_of_several_pans(method) -> None:
    truth = land(1, 6, 96)
    ms, pans = observed(truth[:, 3:], 4), truth[:, :3]
    assert torch.equal(method(ms, pans, [MTF] * 3), method(ms, pan_from_rgb(pans), [MTF] * 3))


def test_brovey_and_sfim_keep_the_spectrums_direction() -> None:
    truth = land(1, 4, 96)
    ms, pan = observed(truth[:, 1:], 4), truth[:, :1]
    enlarged = bicubic(ms, pan, [MTF] * 3)
    for method in (brovey, sfim):
        factor = method(ms, pan, [MTF] * 3) / enlarged
        torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), rtol=1e-4, atol=0)


def test_ihs_adds_the_same_to_every_band() -> None:
    truth = land(1, 4, 96)
    ms, pan = observed(truth[:, 1:], 4), truth[:, :1]
    added = ihs(ms, pan, [MTF] * 3) - bicubic(ms, pan, [MTF] * 3)
    torch.testing.assert_close(added, added[:, :1].expand_as(added), rtol=0, atol=1e-6)


def test_substitution_does_not_see_gain_and_offset_of_the_pan() -> None:
    truth = land(1, 4, 96)
    ms, pan = observed(truth[:, 1:], 4), truth[:, :1]
    for method in SUBSTITUTION:
        torch.testing.assert_close(method(ms, 3 * pan + 0.2, [MTF] * 3), method(ms, pan, [MTF] * 3), rtol=0, atol=2e-5)


def test_bicubic_repeats_a_ramp_away_from_the_edges() -> None:
    ramp = torch.arange(96.0).view(1, 1, 1, 96).expand(1, 1, 96, 96)
    out = bicubic(F.avg_pool2d(ramp, 4), ramp, (MTF,))
    # the kernel (a = −0.75) bends a straight line by at most a twentieth of a coarse pixel
    assert (out - ramp)[..., 8:-8].abs().max() < 0.2


@pytest.mark.parametrize("size", [(47, 48), (48, 50), (48, 96), (6, 6)])
@pytest.mark.parametrize("name", METHODS)
def test_a_ratio_that_is_not_whole_or_not_square_is_refused(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"bands 12×12, pan \d+×\d+"):
        METHODS[name](torch.ones(1, 2, 12, 12), torch.ones(1, 3, *size), (MTF, MTF))
