"""Patches of a cube as a Ray dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.readers.access.facts import CubeFacts
from difffusr.pipeline.readers.access.patches import USABLE, PatchReader, Shard

if TYPE_CHECKING:
    import ray.data

#: Patches in a batch that a task hands on: 50 MB of 256 pixels and 12 bands.
_TOGETHER = 16


def ray_patches(
    cube: CubeFacts | str,
    size: int = 256,
    *,
    bands: str | Sequence[str] | None = None,
    periods: str | Sequence[str] | None = None,
    quality: Sequence[str] = USABLE,
    least: float = 0.9,
    area: BaseGeometry | None = None,
    fill: float = 0.0,
    labels: Sequence[str] = (),
    seed: int | None = 0,
    shards_per_task: int = 4,
) -> ray.data.Dataset:
    """Patches of a cube as rows of a Ray dataset, read by its workers shard by shard as they are asked for.

    Args:
        cube, size, bands, periods, quality, least, area, fill, labels: as of `CubePatches`.
        seed: of the order of shards; None for the cube's own order.
        shards_per_task: read by one task, one after the other.

    Returns:
        Columns `reflectance` (bands, size, size) float32, `quality`, `zone`, `period`, `x`, `y`.

    Raises:
        ConfigError: something is not understood.
        StoreError: the cube cannot be read.
    """
    import ray.data

    reader = PatchReader.of(cube, size, bands, periods, quality, least, area, fill, labels)
    shards = list(reader.shards)
    if seed is not None:
        np.random.default_rng(seed).shuffle(shards)
    tasks = max(1, -(-len(shards) // shards_per_task))
    rows = ray.data.from_items([asdict(shard) for shard in shards], override_num_blocks=tasks)
    return rows.map_batches(_Read(reader), batch_size=shards_per_task, batch_format="numpy")


class _Read:
    """Reads the patches of some shards."""

    def __init__(self, reader: PatchReader) -> None:
        self.reader = reader

    def __call__(self, batch: dict[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
        for zone, period, row, col in zip(*(batch[name] for name in ("zone", "period", "row", "col")), strict=True):
            patches = self.reader.patches(Shard(int(zone), str(period), int(row), int(col)))
            for start in range(0, len(patches), _TOGETHER):
                items = self.reader.read(patches[start : start + _TOGETHER])
                yield {name: np.stack([item[name] for item in items]) for name in items[0]}
