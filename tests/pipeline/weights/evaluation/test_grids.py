"""Gridness in evaluations: pooled by power, told by band, and left out where images are too small."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from difffusr.kernels.bands import BANDS, GROUPS, GSD_M
from difffusr.pipeline.weights.evaluation.grids import GRID, Grids, middle_of, product_grid

STRIPES = torch.tensor([1.0, -1, 1, 1]).repeat(64) - 0.5


def image(channels: int, side: int, woven: int | None = None, texture: float = 0.01, seed: int = 0) -> torch.Tensor:
    """Noise, with stripes of 4 pixels in one channel."""
    x = 0.2 + texture * torch.randn((channels, side, side), generator=torch.Generator().manual_seed(seed))
    if woven is not None:
        x[woven] += 0.005 * STRIPES[:side]
    return x


def test_the_band_that_has_most_is_told():
    grids = Grids(("B04", "B03", "B02"))
    told = grids.add("ours", image(3, 256, woven=1))
    by_band = grids.by_band()["ours"]
    assert told[GRID] == pytest.approx(100 * by_band["B03"]["4"]["share"])
    assert by_band["B03"]["4"]["share"] > 20 * max(by_band[band]["4"]["share"] for band in ("B04", "B02"))
    assert by_band["B03"]["4"]["amplitude"] == pytest.approx(0.005 * (2 * 0.75) ** 0.5, rel=0.05)
    assert set(by_band["B03"]) == {"4", "8", "24"}
    json.dumps(by_band, allow_nan=False)


def test_means_are_of_pooled_power_and_other_metrics_stay():
    grids, images = Grids(("B04",)), [image(1, 256, 0, 0.02), image(1, 256, None, 0.002, seed=1)]
    each = [grids.add("ours", x)[GRID] for x in images]
    pooled = grids.pooled({"ours": {"psnr": 30.0, GRID: sum(each) / 2}, "other": {"psnr": 20.0}})
    assert pooled["ours"][GRID] == pytest.approx(each[0], rel=0.03)  # the other has a hundredth of its power
    assert pooled["ours"]["psnr"] == 30
    assert pooled["other"] == {"psnr": 20}


@pytest.mark.parametrize(("side", "periods"), [(20, set()), (40, {"4"}), (120, {"4", "8"}), (200, {"4", "8", "24"})])
def test_what_an_image_is_too_small_for_is_left_out(side, periods):
    grids = Grids(("B01", "B09"))
    assert (GRID in grids.add("ours", image(2, side))) is bool(periods)
    assert set(grids.by_band()["ours"]["B09"]) == periods
    larger = grids.add("ours", image(2, 256, woven=0))
    expected = larger[GRID] / 2 if periods else larger[GRID]  # beside a tile of the same power without a grid
    assert grids.pooled({"ours": {}})["ours"][GRID] == pytest.approx(expected, rel=0.2)
    assert set(grids.by_band()["ours"]["B01"]) == {"4", "8", "24"}


class Folding(torch.nn.Module):
    """Enlarges smoothly, and weaves a grid into one band."""

    def __init__(self, band: str) -> None:
        super().__init__()
        self.band = BANDS.index(band)

    def forward(self, native, valid, noise):
        side = 4 * native[10].shape[-1]
        planes = [
            F.interpolate(native[GSD_M[b]][:, [GROUPS[GSD_M[b]].index(b)]], size=(side, side), mode="bicubic")
            for b in BANDS
        ]
        out = torch.cat(planes, 1)
        out[:, self.band] += 0.003 * STRIPES.repeat(4)[:side]
        assert noise.shape == (1, 3, side, side)
        assert all(bool(mask.all()) for mask in valid.values())
        return out


@pytest.mark.parametrize("band", ["B02", "B8A", "B09"])
def test_the_products_grid_is_found_in_the_band_that_has_it(band):
    generator = torch.Generator().manual_seed(0)
    scene = {b: 0.2 + 0.02 * torch.randn((480 // GSD_M[b],) * 2, generator=generator) for b in BANDS}
    power = product_grid(Folding(band), [middle_of(scene, 48), middle_of(scene, 24)])
    share = power.share(4)
    assert int(share.argmax()) == BANDS.index(band)
    assert power.tiles == 2
    assert float(power.amplitude(4)[BANDS.index(band)]) > 0.003


@pytest.mark.parametrize(("rows", "cols", "side", "found"), [(8, 9, 48, 48), (5, 9, 48, 30), (40, 33, 192, 192)])
def test_a_chip_in_the_middle_is_of_one_ground_in_all_bands(rows, cols, side, found):
    scene = {}
    for band in BANDS:
        f = 60 // GSD_M[band]
        row, col = torch.meshgrid(torch.arange(rows * f) // f, torch.arange(cols * f) // f, indexing="ij")
        scene[band] = (100.0 * row + col)[:, :]
    chip = middle_of(scene, side)
    for gsd, x in chip.items():
        assert x.shape == (1, len(GROUPS[gsd]), found * 10 // gsd, found * 10 // gsd)
        f = 60 // gsd
        assert torch.equal(x[0, 0, ::f, ::f], chip[60][0, 0])
