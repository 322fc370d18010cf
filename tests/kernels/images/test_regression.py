"""Coarse bands from fine guides: what the guides explain comes out, what they do not is neither lost nor made up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.images.consistency import sensor_matrix
from difffusr.kernels.images.regression import FITS, Fit, regress

MTF = (0.23, 0.30)
RATIOS = {4: 16, 8: 10, 24: 6}  # pixels along the coarse grid
LOOSE = Fit(sigma_px=1.5, shrink=0.5, damp=1e-6)


def ground(channels: int, size: int, batch: int = 1, seed: int = 0) -> Tensor:
    """Fields with sharp edges on slopes, every channel of its own: reflectance (B, C, size, size)."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 0.004, (batch, channels, size, size)) + 0.2
    images += np.linspace(0, 0.05, size)[:, None] * rng.normal(0, 1, (batch, channels, 1, 1))
    for image in images.reshape(-1, size, size):
        for _ in range(25):
            row, col = rng.integers(0, size, 2)
            height, width = rng.integers(size // 12 + 1, size // 3, 2)
            image[row : row + height, col : col + width] += rng.uniform(-0.06, 0.1)
    return torch.from_numpy(images).float().clamp_min(0.01)


def seen(fine: Tensor, ratio: int, mtf: float) -> Tensor:
    rows, columns = (torch.from_numpy(sensor_matrix(n // ratio, ratio, mtf)) for n in fine.shape[-2:])
    return (rows @ fine.double() @ columns.mT).float()


def measured(bands: Tensor, ratio: int) -> Tensor:
    return torch.cat([seen(bands[:, i : i + 1], ratio, MTF[i]) for i in range(bands.shape[1])], 1)


def rmse(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


MIXES = {
    "one guide": [[1.0, 0, 0], [0, 0, 1.0]],
    "a mean": [[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]],
    "against a guide": [[-0.8, 0, 0], [0, -0.4, -0.3]],
    "large weights": [[3.0, -2.0, 0.5], [0.5, 2.0, -1.5]],
    "nothing": [[0.0, 0, 0], [0, 0, 0]],
}


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
def test_a_mix_of_the_guides_comes_out_as_that(ratio: int, mix: list[list[float]]):
    guides = ground(3, RATIOS[ratio] * ratio)
    truth = torch.einsum("ck,bkhw->bchw", torch.tensor(mix), guides) + 0.3
    found = regress(measured(truth, ratio), guides, MTF, fit=LOOSE)
    assert rmse(found, truth) < 0.02 * max(float(truth.std()), 0.01)


@pytest.mark.parametrize("ratio", RATIOS)
def test_what_is_withheld_by_default_is_little_beside_what_is_gained(ratio: int):
    guides = ground(3, RATIOS[ratio] * ratio)
    truth = torch.einsum("ck,bkhw->bchw", torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.6]]), guides)
    ms = measured(truth, ratio)
    bicubic = F.interpolate(ms, size=truth.shape[-2:], mode="bicubic", align_corners=False)
    assert rmse(regress(ms, guides, MTF), truth) < 0.35 * rmse(bicubic, truth)


@pytest.mark.parametrize("ratio", RATIOS)
def test_guides_that_explain_nothing_do_no_harm(ratio: int):
    guides, truth = ground(3, RATIOS[ratio] * ratio, seed=1), ground(2, RATIOS[ratio] * ratio, seed=2)
    ms = measured(truth, ratio)
    bicubic = F.interpolate(ms, size=truth.shape[-2:], mode="bicubic", align_corners=False)
    assert rmse(regress(ms, guides, MTF, fit=FITS[24]), truth) < 1.35 * rmse(bicubic, truth)


@pytest.mark.parametrize("guide", [0.0, 0.1, 0.9])
def test_guides_without_contrast_leave_the_bicubic_enlargement(guide: float):
    ms = measured(ground(2, 64), 4)
    found = regress(ms, torch.full((1, 3, 64, 64), guide), MTF)
    low = regress(ms.mean((-2, -1), keepdim=True).expand_as(ms), torch.full((1, 3, 64, 64), guide), MTF)
    assert torch.isfinite(found).all()
    assert rmse(measured(found, 4), ms) < 0.6 * float(ms.std())
    assert float(low.std((-2, -1)).max()) < 1e-6


@pytest.mark.parametrize("level", [0.0, 0.0001, 0.05, 0.4, 1.3])
def test_a_constant_image_stays_constant_whatever_its_guides_show(level: float):
    found = regress(torch.full((1, 2, 12, 12), level), ground(4, 48), MTF)
    torch.testing.assert_close(found, torch.full((1, 2, 48, 48), level), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_sensor_sees_most_of_the_measurement_again(ratio: int):
    bands = ground(2, RATIOS[ratio] * ratio, seed=3)
    guides = bands.flip(1) + 0.2 * ground(2, bands.shape[-1], seed=4)
    ms = measured(bands, ratio)
    again = rmse(measured(regress(ms, guides, MTF), ratio), ms)
    bicubic = F.interpolate(ms, size=bands.shape[-2:], mode="bicubic", align_corners=False)
    assert again < 0.8 * rmse(measured(bicubic, ratio), ms)


@pytest.mark.parametrize("hidden", ["a corner", "a row", "scattered", "all but one", "all"])
def test_nothing_is_learned_from_pixels_without_data(hidden: str):
    bands, guides = ground(2, 64, seed=6), ground(3, 64, seed=7)
    ms = measured(bands, 4)
    valid = torch.ones(1, 1, 16, 16)
    if hidden == "a corner":
        valid[..., :7, 9:] = 0
    elif hidden == "a row":
        valid[..., 3, :] = 0
    elif hidden == "scattered":
        valid = (torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.3).float()
    else:
        valid[:] = 0
        valid[..., 8, 8] = float(hidden == "all but one")
    one, other = (regress(torch.where(valid > 0, ms, filled), guides, MTF, valid) for filled in (0.0, 0.7))
    assert torch.isfinite(one).all()
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("ratio", RATIOS)
def test_an_image_comes_out_the_same_in_any_company(ratio: int):
    guides, bands = ground(3, RATIOS[ratio] * ratio, 3), ground(2, RATIOS[ratio] * ratio, 3, seed=8)
    ms = measured(bands * torch.tensor([0.2, 1.0, 3.0]).view(3, 1, 1, 1), ratio)
    together = regress(ms, guides, MTF)
    for i in range(3):
        torch.testing.assert_close(together[i], regress(ms[i : i + 1], guides[i : i + 1], MTF)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("ms", "guides"), [((10, 10), (42, 40)), ((10, 10), (40, 80)), ((10, 10), (8, 8))])
def test_sizes_that_do_not_fit_are_refused(ms: tuple[int, int], guides: tuple[int, int]):
    with pytest.raises(ValueError, match="whole number of times"):
        regress(torch.ones(1, 2, *ms), torch.ones(1, 3, *guides), MTF)


@pytest.mark.parametrize("size", [(24, 40), (40, 24)])
def test_equals_the_plain_form_pixel_by_pixel(size: tuple[int, int]):
    fit, ratio, mtf = Fit(sigma_px=1.2, shrink=0.6, damp=0.15), 4, 0.27
    guides = ground(3, 40, seed=9)[..., : size[0], : size[1]]
    ms = seen(ground(1, 40, seed=10)[..., : size[0], : size[1]], ratio, mtf)
    expected = _plain(ms[0, 0].double().numpy(), guides[0].double().numpy(), ratio, mtf, fit)
    torch.testing.assert_close(regress(ms, guides, [mtf], fit=fit)[0, 0].double(), torch.from_numpy(expected),
                               atol=2e-5, rtol=1e-4)  # fmt: skip


def _plain(ms: np.ndarray, guides: np.ndarray, ratio: int, mtf: float, fit: Fit) -> np.ndarray:
    """The same with a loop over windows and NumPy's solver."""
    (h, w), k = ms.shape, len(guides)
    rows, columns = (sensor_matrix(n, ratio, mtf) for n in (h, w))
    x = np.stack([rows @ g @ columns.T for g in guides])
    centred, y = (x - x.mean((1, 2), keepdims=True)).reshape(k, -1), (ms - ms.mean()).ravel()
    all_xx, all_xy = centred @ centred.T / y.size, centred @ y / y.size
    overall = np.linalg.solve(all_xx + fit.damp * np.diag(np.diag(all_xx)) + 1e-7 * np.eye(k), all_xy)
    r, c = np.mgrid[:h, :w]
    weights, level = np.zeros((k, h, w)), np.zeros((h, w))
    windows = {}
    for i in range(h):
        for j in range(w):
            g = np.exp(-((r - i) ** 2 + (c - j) ** 2) / (2 * fit.sigma_px**2)).ravel()
            g = windows[i, j] = g / g.sum()
            dx, dy = centred - (centred @ g)[:, None], y - y @ g
            xx = (dx * g) @ dx.T + fit.shrink * (all_xx + 1e-7 * np.eye(k))
            xy = (dx * g) @ dy + fit.shrink * (all_xx + 1e-7 * np.eye(k)) @ overall
            weights[:, i, j] = np.linalg.solve(xx, xy)
    left = ms - (weights * x).sum(0)
    for place, g in windows.items():
        level[place] = g @ left.ravel()

    def enlarged(z: np.ndarray, mode: str) -> np.ndarray:
        size = (h * ratio, w * ratio)
        return F.interpolate(torch.from_numpy(z)[None, None], size=size, mode=mode, align_corners=False)[0, 0].numpy()

    predicted = sum(enlarged(weight, "bilinear") * g for weight, g in zip(weights, guides, strict=True))
    predicted = predicted + enlarged(level, "bilinear")
    return predicted + enlarged(ms - rows @ predicted @ columns.T, "bicubic")
