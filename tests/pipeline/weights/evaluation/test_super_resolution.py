"""Judges of stage 1 favour nobody, and what is written is what was found."""

from __future__ import annotations

import json

import pytest
import torch

from difffusr.kernels.networks.stage1 import (
    DiffusionConfig,
    EncoderConfig,
    RRDBConfig,
    Stage1,
    Stage1Config,
    UNetConfig,
)
from difffusr.kernels.sampling.settings import Sampling
from difffusr.pipeline.weights.evaluation.data import ImageOptions, find_images, image_pairs
from difffusr.pipeline.weights.evaluation.report import to_markdown, write
from difffusr.pipeline.weights.evaluation.super_resolution import (
    CONTEXT,
    SAMPLE,
    calibration,
    evaluate_super_resolution,
)

TINY = Stage1Config(
    RRDBConfig(channels=8, blocks=1, growth=4),
    EncoderConfig(widths=(4, 4, 8, 8, 8, 8)),
    UNetConfig(16, (1, 2), 1, (), 4, 4, 8, False),
    DiffusionConfig("v", 1.0, 6.0),
)


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
    grids = read["gridness"][table.title]
    assert set(grids) == {*table.mean, "truth"}
    assert set(grids["truth"]) == {"B04", "B03", "B02"}
    worst = max(band["4"]["share"] for band in grids[SAMPLE].values())
    assert table.mean[SAMPLE]["grid"] == pytest.approx(100 * worst)
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
