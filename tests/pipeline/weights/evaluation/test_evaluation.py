"""Evaluation: data come as their files say, judges do not favour anyone, and what is written is what was found."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from PIL import Image
from rasterio.transform import from_origin

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.networks.fusion.build import build_fusion
from difffusr.kernels.networks.fusion.frame import FusionConfig
from difffusr.kernels.networks.stage1 import (
    DiffusionConfig,
    EncoderConfig,
    RRDBConfig,
    Stage1,
    Stage1Config,
    UNetConfig,
)
from difffusr.kernels.sampling.settings import Sampling
from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.weights.evaluation.data import ImageOptions, find_images, find_scenes, image_pairs
from difffusr.pipeline.weights.evaluation.fusion import CONSISTENT, FUSED, evaluate_fusion
from difffusr.pipeline.weights.evaluation.report import to_markdown, write
from difffusr.pipeline.weights.evaluation.super_resolution import (
    CONTEXT,
    SAMPLE,
    calibration,
    evaluate_super_resolution,
)
from difffusr.pipeline.weights.training.scenes import NativeScene
from difffusr.pipeline.weights.training.wald import squares, view_of

TINY = Stage1Config(
    RRDBConfig(channels=8, blocks=1, growth=4),
    EncoderConfig(widths=(4, 4, 8, 8, 8, 8)),
    UNetConfig(16, (1, 2), 1, (), 4, 4, 8, False),
    DiffusionConfig("v", 1.0, 6.0),
)


@pytest.fixture(scope="module")
def ground():
    """Fields of some brightness with sharp edges, 8 bits, (160, 200, 3)."""
    rng = np.random.default_rng(0)
    pixels = np.full((160, 200, 3), 110, dtype=np.uint8)
    for _ in range(80):
        row, col, height, width = rng.integers(0, 160), rng.integers(0, 200), *rng.integers(6, 40, 2)
        pixels[row : row + height, col : col + width] = rng.integers(60, 220, 3)
    return pixels


@pytest.fixture
def folder(tmp_path, ground):
    Image.fromarray(ground).save(tmp_path / "fields.png")
    (tmp_path / "index.csv").write_text("file,gsd_m\nfields.png,2.0-3.0 (estimated)\n")
    with rasterio.open(
        tmp_path / "town.tif", "w", driver="GTiff", width=300, height=240, count=4, dtype="uint16", crs="EPSG:32631",
        transform=from_origin(5e5, 5e6, 1.25, 1.25),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(1).integers(300, 3000, (4, 240, 300)).astype("uint16"))
    return tmp_path


def test_a_file_says_its_own_gsd_radiometry_and_place(folder):
    png, tif = find_images(folder, ImageOptions())
    assert (png.gsd_m, png.full_scale, png.display) == (2.5, 255.0, True)
    assert (tif.gsd_m, tif.full_scale, tif.display) == (1.25, 10_000.0, False)
    assert [file.place for file in find_images(folder, ImageOptions(held_out=("town*",)))] == ["town"]


def test_an_image_that_does_not_say_its_gsd_is_refused_in_one_line(folder):
    (folder / "index.csv").unlink()
    with pytest.raises(ConfigError, match=r"fields.png: how many metres a pixel\? State it with --gsd"):
        find_images(folder, ImageOptions())
    assert find_images(folder, ImageOptions(gsd_m=2.0))[0].gsd_m == 2.0


def test_folders_without_images_and_broken_images_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        find_images(tmp_path / "none", ImageOptions())
    with pytest.raises(ConfigError, match="no image to judge on"):
        find_images(tmp_path, ImageOptions())
    (tmp_path / "broken.tif").write_bytes(b"II*\0 no more than that")
    with pytest.raises(ReadError, match=r"broken.tif: cannot be read"):
        find_images(tmp_path, ImageOptions())


@pytest.mark.parametrize("degradation", ["sensor", "gaussian"])
def test_pairs_show_the_same_ground_at_both_scales(folder, degradation):
    pairs = image_pairs(find_images(folder, ImageOptions()), 96, 2, degradation)
    assert {pair.place for pair in pairs} == {"fields", "town"}
    for pair in pairs:
        assert pair.hr.shape[-1] == 4 * pair.lr.shape[-1]
        inner = slice(2, -2)
        mean = F.avg_pool2d(pair.hr, 4)[:, inner, inner]
        shifts = {
            (dy, dx): float((pair.lr.roll((dy, dx), (1, 2))[:, inner, inner] - mean).abs().mean())
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        }
        assert min(shifts, key=shifts.__getitem__) == (0, 0)
    again = image_pairs(find_images(folder, ImageOptions()), 96, 2, degradation)
    assert all(torch.equal(a.lr, b.lr) for a, b in zip(pairs, again, strict=True))


def test_every_way_is_judged_on_every_pair_and_the_page_stands_alone(folder, tmp_path):
    torch.manual_seed(0)
    stage1 = Stage1(TINY)
    pairs = image_pairs(find_images(folder, ImageOptions()), 96, 2)
    found = evaluate_super_resolution(stage1, pairs, Sampling(steps=4, denoised=True), {"weights": "tiny"}, samples=3)
    table = found.tables[0]
    assert set(table.each) == {pair.name for pair in pairs}
    assert {"nearest", "bicubic", CONTEXT, SAMPLE, f"{SAMPLE} + bp"} <= set(table.mean)
    for name in ("bicubic", CONTEXT, SAMPLE):
        assert table.mean[f"{name} + bp"]["residual"] < table.mean[name]["residual"]
    as_json, page = write(found, tmp_path / "out")
    read = json.loads(as_json.read_text())
    assert read["tables"][0]["mean"]["bicubic"]["psnr"] == table.mean["bicubic"]["psnr"]
    assert len(read["calibration"]["std"]) == 10
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 6 * len(found.crops)
    assert "http" not in text
    assert to_markdown(table).count("\n") == len(table.mean) + 1


def test_calibration_sees_whether_errors_grow_with_the_spread():
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(50_000, generator=generator)
    noise = torch.randn(50_000, generator=generator)
    honest, blind = calibration(spread, spread * noise, 8), calibration(spread, noise, 8)
    assert honest["rmse"] == sorted(honest["rmse"])
    assert honest["rank_correlation"] > 0.4
    assert abs(blind["rank_correlation"]) < 0.03


@pytest.fixture(scope="module")
def scene():
    """1.44 km of ground whose bands are mixtures of three materials, on native grids."""
    generator = torch.Generator().manual_seed(2)
    cover = F.interpolate(torch.rand((1, 3, 36, 36), generator=generator), size=(144, 144), mode="nearest")[0]
    spectra = dict(zip(sum(GROUPS.values(), ()), torch.rand((12, 3), generator=generator), strict=True))
    bands = {}
    for gsd, names in GROUPS.items():
        for name in names:
            fine = (spectra[name][:, None, None] * cover).sum(0) / 5 + 0.02
            bands[name] = F.avg_pool2d(fine[None, None], gsd // 10)[0, 0]
    return NativeScene("mixtures", bands)


def test_walds_protocol_keeps_the_ground_and_needs_enough_of_it(scene):
    (ten,), (twenty,) = squares(view_of(scene, 10)), squares(view_of(scene, 20))
    assert (ten.measured.shape, ten.truth.shape) == ((4, 36, 36), (4, 144, 144))
    assert (twenty.measured.shape, twenty.truth.shape) == ((6, 9, 9), (6, 72, 72))
    assert twenty.others[10].shape == (4, 18, 18)
    assert squares(view_of(scene, 60)) == []  # 24 pixels of 60 m are one coarse pixel
    assert torch.allclose(twenty.measured.mean((1, 2)), twenty.truth.mean((1, 2)), rtol=0.05)
    assert torch.equal(ten.guide, ten.truth[:3])


def test_fusion_is_judged_beside_every_classical_method(scene, tmp_path):
    torch.manual_seed(0)
    network = build_fusion(FusionConfig("folded", 8, 1, 1))
    found = evaluate_fusion(network, [scene], {"weights": "tiny"})
    assert [table.title for table in found.tables] == ["10 m bands", "20 m bands"]
    for table in found.tables:
        assert {"Brovey", "IHS", "PCA", "Gram-Schmidt", "GSA", "HPF", "SFIM", "ATWT", "MTF-GLP", "MTF-GLP-HPM"} <= set(
            table.mean
        )
        # a network that knows nothing yet is the bicubic enlargement
        assert table.mean[FUSED]["ergas"] == pytest.approx(table.mean["bicubic"]["ergas"], rel=1e-3)
        assert table.mean[CONSISTENT]["ergas"] < table.mean[FUSED]["ergas"]
    margins = found.extra["against_the_best"]["20 m bands"]["guided by RGB"]
    assert margins["ergas_relative"] > 0  # of mixtures, the classical methods know more
    write(found, tmp_path)


def test_a_folder_without_scenes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no 12-band scene"):
        find_scenes([tmp_path])
