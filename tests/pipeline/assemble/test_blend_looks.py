"""A shard's numbers of observations are those of the chip that its source is from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from difffusr.kernels.bands import SCALE
from difffusr.pipeline.assemble.blend import ChipSource, blend_memory, blend_shard
from difffusr.pipeline.assemble.halving import halve_memory
from difffusr.pipeline.assemble.writing import write_shard
from difffusr.pipeline.chips.staging import StagedChip, write_chip
from difffusr.pipeline.geo.grid import ChipIndex, Grid, ShardIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage.objects import Storage

GRID = Grid(48, 12, 384, 96)
SHARD = ShardIndex(0, 0)


def staged(folder: Path, with_looks: bool = True, holes: bool = True) -> tuple[Storage, list[ChipSource]]:
    """Chips over a shard; in each, source s has 3 + s looks, times ten of the chip's row and column."""
    staging, sources = Storage(str(folder)), []
    side, rng = GRID.chip_px * SCALE, np.random.default_rng(3)
    for row in range(-1, 3):
        for col in range(-1, 3):
            index = ChipIndex(row, col)
            if not GRID.chip_window(index).overlaps(GRID.shard_window(SHARD)):
                continue
            source = rng.integers(0 if holes else 1, 4, (GRID.chip_px,) * 2).astype(np.uint16)
            looks = np.where(source > 0, 3 + source + 10 * (row + 1) + 50 * (col + 1), 0).astype(np.uint8)
            dn = rng.integers(1, 65535, (12, side, side)).astype(np.uint16)
            chip = StagedChip(dn, (source > 0).astype(np.uint8), source, None, looks if with_looks else None)
            write_chip(staging, f"{row}_{col}.chip", chip)
            numbers = tuple(100 * (row + 1) + 10 * (col + 1) + n for n in (1, 2, 3))
            sources.append(ChipSource(index, f"{row}_{col}.chip", numbers))
    return staging, sources


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("holes", [True, False])
@pytest.mark.parametrize("strip_px", [64, 384])
def test_looks_are_of_the_chip_that_the_source_is_of(tmp_path, holes, order, strip_px):
    staging, sources = staged(tmp_path, holes=holes)
    made = blend_shard(GRID, SHARD, sources[::order], staging, strip_px, with_looks=True)
    assert made.looks is not None
    row, col, source = made.source // 100, made.source % 100 // 10, made.source % 10
    assert len(np.unique(made.source // 10)) == len(sources)
    assert np.array_equal(made.looks, np.where(made.source > 0, 3 + source + 10 * row + 50 * col, 0))


def test_looks_change_nothing_else_and_are_not_there_unless_wanted(tmp_path):
    staging, sources = staged(tmp_path)
    plain, full = (blend_shard(GRID, SHARD, sources, staging, 64, with_looks=wanted) for wanted in (False, True))
    assert plain.looks is None
    for name in ("reflectance", "quality", "source"):
        assert np.array_equal(getattr(plain, name), getattr(full, name)), name


def test_a_staged_chip_without_the_looks_that_are_needed_is_named(tmp_path):
    staging, sources = staged(tmp_path, with_looks=False)
    with pytest.raises(StoreError, match=r"\.chip has no number of observations; run again to compute it again"):
        blend_shard(GRID, SHARD, sources, staging, with_looks=True)


@pytest.mark.parametrize("memory", [blend_memory, halve_memory])
def test_a_task_declares_the_byte_a_pixel_that_looks_take(memory):
    grown = memory(GRID, with_std=False, with_looks=True) - memory(GRID, with_std=False)
    assert grown >= GRID.shard_px**2


@pytest.mark.parametrize("broken", [(0,), (3,), (0, 1, 5), tuple(range(9))])
def test_a_shard_of_broken_chips_is_not_written_and_all_of_them_are_named(tmp_path, broken):
    staging, sources = staged(tmp_path)
    names = [sources[i].object_name for i in broken if i < len(sources)]
    for number, name in enumerate(names):
        data = staging.read(f"chips/{name}")
        staging.write(f"chips/{name}", (b"", data[:-1], data[:-5] + b"x" + data[-4:])[number % 3])
    staging.delete(f"chips/{names[-1]}")
    written = write_shard(cast(Any, None), GRID, 32632, SHARD, sources, [], staging, False, True)
    assert written.broken == tuple(sorted(names))
    assert not written.receipt.objects
