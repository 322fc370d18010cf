"""One shard as a task: blended, and written to the cube whole.

Workers import this module: it must not import what only the driver needs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from difffusr.pipeline.assemble.blend import ChipSource, blend_shard
from difffusr.pipeline.chips import ChipError, is_whole
from difffusr.pipeline.cube import OvertakenError
from difffusr.pipeline.geo import ChipIndex, Grid, ShardIndex
from difffusr.pipeline.publish import Receipt, ShardWriter
from difffusr.pipeline.storage import Storage


@dataclass(frozen=True)
class WrittenShard:
    """What a task returns.

    Attributes:
        receipt: the store's; empty where nothing was written.
        valid_share: share of pixels with data.
        seconds: of CPU time.
        broken: staged objects of chips that have to be computed again first; then nothing was written.
        overtaken: whether somebody else has written there meanwhile; then not all was written.
    """

    receipt: Receipt
    valid_share: float
    seconds: float
    broken: tuple[str, ...] = ()
    overtaken: bool = False


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
    """Blend one shard and write it whole, unless a staged chip is missing or not as it was written.

    Args:
        chips: the staged chips that touch it.
        gaps: places of failed chips; pixels there that no neighbour fills are flagged.

    Raises:
        StoreError: the staging folder or the store fails.
    """
    begun = time.process_time()
    try:
        data = blend_shard(grid, index, chips, staging, with_std=with_std, with_looks=with_looks, gaps=gaps)
    except ChipError as error:
        broken = {error.object_name, *_broken(staging, (chip.object_name for chip in chips))}
        return WrittenShard(Receipt({}), 0.0, time.process_time() - begun, tuple(sorted(broken)))
    try:
        receipt = writer.write(epsg, index, data)
    except OvertakenError:
        return WrittenShard(Receipt({}), 0.0, time.process_time() - begun, overtaken=True)
    valid = float((data.source > 0).mean())
    return WrittenShard(receipt, round(valid, 6), time.process_time() - begun)


def _broken(staging: Storage, object_names: Iterable[str]) -> set[str]:
    """Those that are not whole: all of a shard at once, so that they are computed again together."""
    return {name for name in object_names if not is_whole(staging, name)}
