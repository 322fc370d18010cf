"""How sure a result is: streamed without holding the samples, and never at the expense of the result itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.kernels.model import load_model
from difffusr.kernels.sampling.noise import ground_noise
from difffusr.kernels.sampling.settings import Sampling
from difffusr.kernels.sampling.uncertainty import sample_spread
from difffusr.pipeline.assemble.blend import ChipSource, blend_shard
from difffusr.pipeline.chips.actor import SuperResolver
from difffusr.pipeline.chips.staging import StagedChip, read_chip, write_chip
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.geo.grid import ChipIndex, Grid, ShardIndex
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.ground.pixels import STD_FILL
from difffusr.pipeline.plan.keys import ContentKeys
from difffusr.pipeline.storage.objects import Storage

MINIMAL: dict[str, Any] = {
    "name": "a",
    "area": {"bbox": [103.7, 17.87, 103.76, 17.97]},
    "period": {"start": "2020-02-01", "end": "2020-02-29"},
    "source": {"static_catalog": "/a/catalog.json"},
    "store": {"url": "/out/cube.zarr"},
}


def configured(**model: Any) -> RunConfig:
    return RunConfig.model_validate({**MINIMAL, "model": {"sampler_steps": 2, **model}})


# ---- the arithmetic -------------------------------------------------------------------------------------------------


@given(count=st.integers(2, 12), seed=st.integers(0, 2**31), offset=st.floats(-10, 10), size=st.floats(1e-4, 1))
@settings(max_examples=40, deadline=None)
def test_the_streamed_spread_is_the_standard_deviation_of_the_stack(count, seed, offset, size):
    generator = torch.Generator().manual_seed(seed)
    stack = offset + size * torch.randn(count, 2, 3, 5, generator=generator, dtype=torch.float64)
    kept = stack.clone()
    first, std = sample_spread(iter(stack))
    torch.testing.assert_close(std, stack.std(dim=0, correction=1), rtol=1e-9, atol=1e-12)
    assert torch.equal(first, kept[0])
    assert torch.equal(stack, kept)


def test_float32_is_enough_for_reflectance():
    generator = torch.Generator().manual_seed(1)
    stack = 0.3 + 1e-3 * torch.randn(32, 12, 16, 16, generator=generator)
    _, std = sample_spread(stack)
    torch.testing.assert_close(std, stack.double().std(dim=0).float(), rtol=1e-3, atol=1e-7)


def test_equal_samples_have_no_spread_and_one_sample_has_none_to_tell():
    sample = torch.rand(3, 4)
    assert torch.equal(sample_spread([sample] * 5)[1], torch.zeros(3, 4))
    for too_few in ([], [sample]):
        with pytest.raises(ValueError, match=f"{len(too_few)} sample.* expected at least 2"):
            sample_spread(too_few)


# ---- the model ------------------------------------------------------------------------------------------------------


def read_batch(chips: int = 1, px: int = 24, seed: int = 2) -> dict[str, Any]:
    """Chips side by side, half overlapping, as the reader would hand them over; one corner of each without data."""
    rng = np.random.default_rng(seed)
    batch: dict[str, Any] = {
        "name": np.array([f"chip {i}" for i in range(chips)], object),
        "error": np.array([""] * chips, object),
        "epsg": np.full(chips, 32648),
        "pixel_row": np.full(chips, -8_000),
        "pixel_col": 4_000 + np.arange(chips) * px * SCALE // 2,
        "quality": np.ones((chips, px, px), np.uint8),
        "source": np.ones((chips, px, px), np.uint16),
    }
    for gsd, bands in GROUPS.items():
        n = px * 10 // gsd
        batch[f"dn{gsd}"] = rng.integers(500, 4000, (chips, len(bands), n, n)).astype(np.uint16)
        batch[f"valid{gsd}"] = np.ones((chips, n, n), np.uint8)
        batch[f"valid{gsd}"][:, : n // 4, : n // 4] = 0
    return batch


def tensors(batch: dict[str, Any]) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    bands = {gsd: torch.from_numpy(batch[f"dn{gsd}"] / np.float32(1e4)) for gsd in GROUPS}
    return bands, {gsd: torch.from_numpy(batch[f"valid{gsd}"] > 0)[:, None] for gsd in GROUPS}


def test_the_model_is_called_once_a_sample_and_its_first_is_the_result():
    model = load_model("small", sampling=Sampling(steps=2))
    bands, valid = tensors(read_batch())
    noises = [ground_noise(0, 32648, 0, 0, 96, 96, stream=i)[None] for i in range(3)]
    results = torch.stack([model(bands, valid, noise) for noise in noises])
    calls = iter(noises)
    result, std = model.with_spread(bands, valid, calls)
    assert next(calls, None) is None
    assert torch.equal(result, results[0])
    torch.testing.assert_close(std, results.std(dim=0), rtol=1e-3, atol=1e-6)
    assert float(std.median()) > 1e-5


def test_without_chance_there_is_no_spread():
    model = load_model("small", sampling=Sampling(steps=2, temperature=0.0))
    bands, valid = tensors(read_batch())
    noises = (ground_noise(0, 32648, 0, 0, 96, 96, stream=i)[None] for i in range(2))
    assert not model.with_spread(bands, valid, noises)[1].any()


# ---- the actor ------------------------------------------------------------------------------------------------------


def test_uncertainty_leaves_every_pixel_of_the_result_as_it_is():
    without = SuperResolver(configured(sampler_steps=2))(read_batch(2))
    with_it = SuperResolver(configured(sampler_steps=2, uncertainty_samples=2))(read_batch(2))
    assert "std" not in without
    assert np.array_equal(without["dn"], with_it["dn"])
    assert with_it["std"].dtype == np.uint16
    assert with_it["std"].shape == with_it["dn"].shape
    assert 0 < with_it["std"].mean() < 10_000  # below 0.1 reflectance


def test_a_chip_that_failed_passes_through():
    batch = read_batch(2)
    batch["error"][0] = "unreadable"
    out = SuperResolver(configured(uncertainty_samples=2))(batch)
    assert not out["std"][0].any()
    assert out["std"][1].any()


@pytest.mark.parametrize("sample", [0, 1, 7])
def test_overlapping_chips_have_the_same_noise_in_every_sample(sample):
    actor = SuperResolver(configured(seed=5, uncertainty_samples=8))
    left, right = actor.noise(read_batch(2), [0, 1], sample)
    half = left.shape[-1] // 2
    assert torch.equal(left[..., half:], right[..., :half])
    assert torch.equal(left, ground_noise(5, 32648, -8_000, 4_000, 96, 96, stream=sample))
    assert torch.equal(actor.noise(read_batch(2), [0, 1])[0], left) == (sample == 0)


# ---- staging and assembly -------------------------------------------------------------------------------------------

GRID = Grid(48, 12, 384, 96)


def staged(rng: np.random.Generator, with_std: bool) -> StagedChip:
    side = GRID.chip_px * SCALE
    source = np.ones((GRID.chip_px, GRID.chip_px), np.uint16)
    source[:10, :20] = 0
    dn = rng.integers(1, 65535, (12, side, side)).astype(np.uint16)
    std = rng.integers(0, 2000, (12, side, side)).astype(np.uint16) if with_std else None
    return StagedChip(dn, (source > 0).astype(np.uint8), source, std)


@pytest.mark.parametrize("with_std", [True, False])
def test_a_staged_chip_has_a_standard_deviation_or_does_not(tmp_path: Path, with_std: bool):
    chip = staged(np.random.default_rng(0), with_std)
    write_chip(Storage(str(tmp_path)), "a.chip", chip)
    read = read_chip(Storage(str(tmp_path)), "a.chip")
    assert (read.std is not None) == with_std
    for name in ("dn", "quality", "source", "std"):
        assert np.array_equal(getattr(read, name), getattr(chip, name)), name


def written_shard(tmp_path: Path, with_std: bool) -> tuple[Storage, list[ChipSource]]:
    rng = np.random.default_rng(3)
    staging = Storage(str(tmp_path))
    shard = GRID.shard_window(ShardIndex(0, 0))
    sources = []
    for row in range(-1, 2):
        for col in range(-1, 2):
            index = ChipIndex(row, col)
            if GRID.chip_window(index).overlaps(shard):
                write_chip(staging, f"{row}_{col}.chip", staged(rng, with_std))
                sources.append(ChipSource(index, f"{row}_{col}.chip", (4,)))
    return staging, sources


def test_a_shard_s_deviation_is_blended_like_its_pixels_and_missing_where_they_are(tmp_path: Path):
    staging, sources = written_shard(tmp_path, with_std=True)
    shard = ShardIndex(0, 0)
    plain = blend_shard(GRID, shard, sources, staging, 64)
    full = blend_shard(GRID, shard, sources, staging, 64, with_std=True)
    assert plain.std is None
    assert full.std is not None
    for name in ("reflectance", "quality", "source"):
        assert np.array_equal(getattr(plain, name), getattr(full, name)), name
    seen = full.source > 0
    assert not seen.all()
    assert (full.std[:, ~seen] == STD_FILL).all()
    assert full.std[:, seen].max() < 2000
    # where one chip alone has weight, its own deviation
    index = sources[-1].index
    window, here = GRID.chip_window(index), GRID.shard_window(shard)
    chip = read_chip(staging, sources[-1].object_name)
    assert chip.std is not None
    inside = GRID.overlap_px * SCALE
    row, col = window.row - here.row + inside, window.col - here.col + inside
    size = min(40, here.height - row, here.width - col)
    assert size > 0
    expected = chip.std[:, inside : inside + size, inside : inside + size]
    valid = chip.source.repeat(SCALE, 0).repeat(SCALE, 1)[inside : inside + size, inside : inside + size] > 0
    assert np.array_equal(full.std[:, row : row + size, col : col + size][:, valid], expected[:, valid])


def test_a_staged_chip_without_the_deviation_that_is_needed_is_named(tmp_path: Path):
    staging, sources = written_shard(tmp_path, with_std=False)
    with pytest.raises(StoreError, match=r"\.chip has no standard deviation; delete it"):
        blend_shard(GRID, ShardIndex(0, 0), sources, staging, with_std=True)


# ---- configuration and keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, -1, 33, 2.5, "many", True, None])
def test_a_wrong_number_of_samples_is_refused_by_name(tmp_path: Path, value: Any):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, "model": {"uncertainty_samples": value}}))
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith("config.yaml: model.uncertainty_samples: found ")
    assert "expected 0 (off) or an integer from 2 to 32" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 2, 32])
def test_the_allowed_numbers_of_samples(value: int):
    assert configured(uncertainty_samples=value).model.uncertainty_samples == value
    assert configured().model.uncertainty_samples == 0


def test_every_number_of_samples_has_chips_of_its_own():
    def key(samples: int) -> bytes:
        keys = ContentKeys.of(configured(uncertainty_samples=samples), [], "model")
        return keys.table(np.array([[32648, -3, 7]], np.int32), np.array([[-1]], np.int32)).tobytes()

    assert key(0) == key(0)
    assert len({key(samples) for samples in (0, 2, 3)}) == 3
