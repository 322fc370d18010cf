"""One shard as a task: blended, and written to the cube whole.

Workers import this module: it must not import what only the driver needs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from difffusr.pipeline.assemble.blend import ChipSource, blend_shard
from difffusr.pipeline.geo import ChipIndex, Grid, ShardIndex
from difffusr.pipeline.publish import Receipt, ShardWriter
from difffusr.pipeline.storage import Storage


@dataclass(frozen=True)
class WrittenShard:
    """What a task returns: the store's receipt, the share of pixels with data, and CPU seconds."""

    receipt: Receipt
    valid_share: float
    seconds: float


def write_shard(
    writer: ShardWriter,
    grid: Grid,
    epsg: int,
    index: ShardIndex,
    chips: list[ChipSource],
    gaps: list[ChipIndex],
    staging: Storage,
    with_std: bool,
    with_looks: bool = False,
) -> WrittenShard:
    """Blend one shard and write it whole.

    Args:
        chips: the staged chips that touch it.
        gaps: places of failed chips; pixels there that no neighbour fills are flagged.

    Raises:
        StoreError: a staged chip or the store fails.
    """
    begun = time.process_time()
    data = blend_shard(grid, index, chips, staging, with_std=with_std, with_looks=with_looks, gaps=gaps)
    receipt = writer.write(epsg, index, data)
    valid = float((data.source > 0).mean())
    return WrittenShard(receipt, round(valid, 6), time.process_time() - begun)
