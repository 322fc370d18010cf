"""A chip has the same bits in any batch, at any place in it, beside any other chips, and with any number of threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from smooth_chips import chips
from torch import Tensor, nn

from difffusr.kernels.model import SuperResolution, load_model
from difffusr.kernels.networks.fusion.build import build_fusion
from difffusr.kernels.networks.fusion.frame import FusionConfig
from difffusr.kernels.networks.stage1 import (
    SMALL,
    EncoderConfig,
    RRDBConfig,
    Stage1,
    Stage1Config,
    UNetConfig,
)
from difffusr.kernels.sampling.settings import Sampling
from difffusr.kernels.weights.packaged import shipped_sampling

SIDE_M = 240

#: The published layout in small: attention, several levels, the clean image predicted.
PUBLISHED = Stage1Config(
    RRDBConfig(8, 1, 4),
    EncoderConfig((8, 8, 8, 8, 8, 8)),
    UNetConfig(8, (1, 2, 4), 1, (4,), norm_groups=4, kernel_dim=8),
)

FUSED = {
    "folded": FusionConfig("folded", 16, 1, 1),
    "corrected": FusionConfig("corrected", 16, 1, 8),
    "v1": FusionConfig("v1", 8, 2, 4),
    "v2": FusionConfig("v2", 8, 3, 4),
}

FAST = replace(shipped_sampling().by("fast"), steps=2)

#: Rows of the batch, and threads.
CALLS = (([0], 2), ([1, 0], 1), ([2, 0, 1], 4), ([0, 4, 3, 2, 1], 2))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def model_of(layout: str, sampling: Sampling) -> SuperResolution:
    """The shipped model, one with another fusion network, or the published layout; no weight is zero."""
    if layout == "shipped":
        return load_model("small", sampling=sampling)
    torch.manual_seed(0)
    parts: tuple[nn.Module, nn.Module] = (
        Stage1(PUBLISHED if layout in ("v1", "v2") else SMALL),
        build_fusion(FUSED[layout]),
    )
    for part in parts:
        for weight in part.parameters():
            if not weight.any():
                nn.init.normal_(weight, std=0.05)
    stage1, fusion = parts
    return SuperResolution(stage1, fusion, sampling)


Given = tuple[dict[int, Tensor], dict[int, Tensor], Tensor]


def given(count: int) -> Given:
    bands, valid, noise = chips(count, SIDE_M)
    return dict(bands), dict(valid), noise


def rows_of(batch: Given, rows: Sequence[int]) -> Given:
    bands, valid, noise = batch
    picked = list(rows)
    return {g: x[picked] for g, x in bands.items()}, {g: x[picked] for g, x in valid.items()}, noise[picked]


def alone(model: SuperResolution, batch: Given, row: int) -> Tensor:
    torch.set_num_threads(1)
    return model(*rows_of(batch, [row]))[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["shipped", *FUSED])
def test_whatever_the_batch_the_place_in_it_and_the_number_of_threads(layout, precision):
    model, batch = model_of(layout, replace(FAST, precision=precision)), given(5)
    one = alone(model, batch, 0)
    for rows, threads in CALLS:
        torch.set_num_threads(threads)
        out = model(*rows_of(batch, rows))
        same = [row for row, chip in zip(rows, out, strict=True) if torch.equal(chip, one)]
        assert same == [0], (rows, threads)


def _scaled(factor: float) -> Given:
    bands, valid, noise = given(2)
    return {gsd: factor * x for gsd, x in bands.items()}, valid, noise


def _none_valid() -> Given:
    bands, valid, noise = given(2)
    return bands, {gsd: torch.zeros_like(x) for gsd, x in valid.items()}, noise


def _all_valid() -> Given:
    bands, valid, noise = given(2)
    return bands, {gsd: torch.ones_like(x) for gsd, x in valid.items()}, noise


COMPANIONS = {
    "NaN": lambda: _scaled(float("nan")),
    "infinite": lambda: _scaled(float("inf")),
    "black": lambda: _scaled(0.0),
    "far too bright": lambda: _scaled(1e6),
    "negative": lambda: _scaled(-1.0),
    "without a valid pixel": _none_valid,
    "without a hole": _all_valid,
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("companion", COMPANIONS)
def test_whatever_else_is_in_the_batch(companion, threads):
    model, batch = load_model("small", sampling=FAST), given(1)
    one, (bands, valid, noise) = alone(model, batch, 0), COMPANIONS[companion]()
    beside = (
        {gsd: torch.cat([x[:1], batch[0][gsd], x[1:]]) for gsd, x in bands.items()},
        {gsd: torch.cat([x[:1], batch[1][gsd], x[1:]]) for gsd, x in valid.items()},
        torch.cat([noise[:1], batch[2], noise[1:]]),
    )
    torch.set_num_threads(threads)
    assert torch.equal(model(*beside)[1], one)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["shipped", "corrected"])
def test_how_much_a_chip_varies_with_the_noise_is_the_same_too(layout, precision):
    model, batch = model_of(layout, replace(FAST, precision=precision)), given(3)
    noises = [batch[2], batch[2].flip(-1)]
    torch.set_num_threads(1)
    one = [part[0] for part in model.with_spread(*rows_of(batch, [1])[:2], [noise[[1]] for noise in noises])]
    torch.set_num_threads(4)
    all_three = model.with_spread(*rows_of(batch, [0, 2, 1])[:2], [noise[[0, 2, 1]] for noise in noises])
    for part, whole in zip(one, all_three, strict=True):
        assert torch.equal(whole[2], part)
    assert one[1].any()


def test_with_the_kernels_of_a_gpu_between_the_convolutions():
    fused, batch = load_model("small", sampling=FAST, execution="fused"), given(3)
    one = alone(fused, batch, 1)
    torch.set_num_threads(2)
    assert torch.equal(fused(*rows_of(batch, [0, 2, 1]))[2], one)


@pytest.mark.parametrize("sampler", ["reference", "draft"])
def test_with_every_sampler(sampler):
    model, batch = load_model("small", sampling=replace(shipped_sampling().by(sampler), steps=2)), given(3)
    ones = [alone(model, batch, row) for row in range(3)]
    torch.set_num_threads(2)
    assert torch.equal(model(*batch), torch.stack(ones))
