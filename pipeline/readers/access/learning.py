"""Patches of a cube as a PyTorch dataset."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("CubePatches needs PyTorch: pip install torch", name=error.name) from None

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.readers.access.facts import CubeFacts
from difffusr.pipeline.readers.access.patches import USABLE, Patch, PatchReader

#: Added to the epoch where patches are gone through once more: more than epochs that a training comes to.
_TURN = 1_000_003

#: Patches that are read at a time, and how many times so many while those before are learned from.
_AHEAD, _BATCHES = 16, 2


class CubePatches(IterableDataset[dict[str, Any]]):
    """Patches of a cube, over all its zones and periods, for a `DataLoader`.

    Patches lie on the cube's chunks: one request each from an object store, and one more for each of their shards. The
    ground that two zones show is in one of them alone. Shards come in the order of the seed and the epoch; the patches
    of eight shards are shuffled together. Ranks and workers take turns at shards, so no patch comes twice.

    Each item is a dictionary of tensors: `reflectance` (bands, size, size) float32 (and `reflectance_std`, the spread
    among samples, where the cube has it); `quality` uint8 (size, size); `zone`, `period`, and `x`, `y` of the upper
    left corner in the zone's CRS.

    Args:
        cube: an opened one, or a URL.
        size: side of a patch in pixels: a divisor of the chunks' (256), or a multiple of it that divides the shards'.
        bands, periods: names and labels; all by default.
        quality: names of the flags that count as ground.
        least: share of a patch's pixels that must be ground.
        area: polygons in degrees that the middle of a patch lies in, as for a split; everywhere by default.
        fill: what stands for no data.
        labels: further variables, source or looks: a request more each; int32, (size, size).
        seed: of the order; None for the cube's own order.
        count: patches in an epoch, over all ranks, begun anew where there are fewer. Without it an epoch has all, and
            ranks may have unequal numbers: say it wherever ranks wait for each other.
        rank, ranks: of this process; by default what torch.distributed or RANK and WORLD_SIZE say.
        transform: called with each item.

    Raises:
        ConfigError: something is not understood.
        StoreError: the cube cannot be read.
    """

    def __init__(
        self,
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
        count: int | None = None,
        rank: int | None = None,
        ranks: int | None = None,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        super().__init__()
        self.reader = PatchReader.of(cube, size, bands, periods, quality, least, area, fill, labels)
        self.seed, self.count, self.transform, self.epoch = seed, count, transform, 0
        self.rank, self.ranks = _place(rank, ranks)
        self.reader.shards  # noqa: B018  # listed once, here, not by each worker
        if count is not None and count < self.ranks:
            raise ConfigError(f"count: found {count}, expected at least one for each of {self.ranks} ranks")

    def set_epoch(self, epoch: int) -> None:
        """Another order for the next pass. Without it every pass has the order of epoch 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        groups = self._groups(self.rank * workers + worker, self.ranks * workers)
        # While some patches are learned from, the next ones are read, and the quality of the shards after those.
        with ThreadPoolExecutor(1, "quality") as looking, ThreadPoolExecutor(_BATCHES, "patches") as reading:
            found: Iterator[Patch] = chain.from_iterable(_ahead(looking, 1, groups))
            if self.count is not None:
                of_rank = self.count // self.ranks
                found = islice(found, of_rank // workers + (worker < of_rank % workers))
            batches = iter(lambda: list(islice(found, _AHEAD)), [])
            coming: deque[Future[list[tuple[Patch, dict[str, NDArray[Any]]]]]] = deque()
            for batch in chain(batches, [None] * _BATCHES):
                if batch is not None:
                    coming.append(reading.submit(self.reader.stored, batch))
                if coming and (batch is None or len(coming) > _BATCHES):
                    for patch, values in coming.popleft().result():
                        tensors = _as_tensors(self.reader.in_units(patch, values))
                        yield tensors if self.transform is None else self.transform(tensors)

    def _groups(self, part: int, parts: int) -> Iterator[list[Patch]]:
        """Those of this rank and worker; where a number of them is wanted, again and again."""
        for turn in count():
            found = False
            for group in self.reader.in_groups(self.seed, self.epoch + turn * _TURN, part, parts):
                found = found or bool(group)
                yield group
            if self.count is None:
                return
            if not found and parts == 1:
                raise ConfigError(
                    f"{self.reader.cube.url}: no patch of {self.reader.size} pixels has {self.reader.least:.0%} of "
                    f"{' or '.join(self.reader.usable)} ground; lower `least`, or choose smaller patches"
                )
            if not found:  # its shards have too little ground: it takes what all have
                part, parts = 0, 1


def _ahead(pool: ThreadPoolExecutor, number: int, items: Iterator[list[Patch]]) -> Iterator[list[Patch]]:
    """The items of an iterator, so many made ahead by a pool of one thread."""
    coming = deque(pool.submit(next, items, None) for _ in range(number + 1))
    while (item := coming.popleft().result()) is not None:
        coming.append(pool.submit(next, items, None))
        yield item


def _place(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """This process's number among those that learn together, and how many there are."""
    if rank is None and ranks is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        try:
            rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        except ValueError:
            raise ConfigError("RANK and WORLD_SIZE: expected numbers; give rank= and ranks=") from None
    if rank is None or ranks is None or not 0 <= rank < ranks:
        raise ConfigError(f"rank and ranks: found {rank} and {ranks}, expected a number below another")
    return rank, ranks


def _as_tensors(item: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.from_numpy(np.ascontiguousarray(value.astype(np.int32) if value.dtype == np.uint16 else value))
        if isinstance(value, np.ndarray)
        else value
        for name, value in item.items()
    }
