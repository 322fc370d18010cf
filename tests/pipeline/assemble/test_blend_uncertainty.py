"""A shard's standard deviation is blended from its chips' as its pixels are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from difffusr.kernels.bands import SCALE
from difffusr.pipeline.assemble.blend import ChipSource, blend_shard
from difffusr.pipeline.chips.staging import StagedChip, read_chip, write_chip
from difffusr.pipeline.geo.grid import ChipIndex, Grid, ShardIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.pixels import STD_FILL
from difffusr.pipeline.storage.objects import Storage

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
    with pytest.raises(StoreError, match=r"\.chip has no standard deviation; run again"):
        blend_shard(GRID, ShardIndex(0, 0), sources, staging, with_std=True)
