"""One shard of an overview from the four of the level below, as a small Dask graph; written to the cube whole.

Workers import this module: it must not import what only the driver needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dask.threaded
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from difffusr.kernels.images import average_2x, mode_2x
from difffusr.pipeline.assemble.facts import read_facts
from difffusr.pipeline.cube import CubeDraft, ShardData, encoding_bytes, read_window, shard_bytes
from difffusr.pipeline.engine import WORKER_BYTES
from difffusr.pipeline.geo import Grid, OverviewIndex, PixelWindow
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.pixels import STD_FILL
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.publish import Receipt, ShardWriter
from difffusr.pipeline.storage import Storage, store_failures


class ShardError(StoreError):
    """A shard is missing, or not as it was written: it has to be written again."""


def write_overview(
    writer: ShardWriter,
    epsg: int,
    at: OverviewIndex,
    children: Sequence[OverviewIndex],
    staging: Storage | None = None,
    entries: Mapping[OverviewIndex, str] | None = None,
) -> Receipt:
    """Make one shard of an overview and write it whole.

    Args:
        children: its existing ones of four.
        staging: the run's folder, with the ledger.
        entries: object of the ledger's entry of each child; the checksums of others are not compared.

    Raises:
        ShardError: a shard below is missing, or not as it was written.
        StoreError: the store fails.
    """
    draft, sums = writer.draft, dict[str, str]()
    for child, name in (entries or {}).items():
        assert staging is not None
        sums |= read_facts(staging, name).at(draft.shard_objects(epsg, child)).objects
    return writer.write(epsg, at, halve_shards(draft, writer.store(), epsg, children, sums=sums))


def halve_memory(grid: Grid, *, with_std: bool, with_looks: bool = False) -> int:
    """Most bytes that a task takes to make and write one shard of an overview: the shard, and the larger of the objects
    of two shards below, one loading while the other is read, and the encoding."""
    shard = shard_bytes(grid.shard_px, with_std=with_std, with_looks=with_looks)
    return WORKER_BYTES + shard + max(2 * shard, encoding_bytes(grid.shard_px))


def halve_shards(
    draft: CubeDraft,
    store: Store,
    epsg: int,
    children: Sequence[OverviewIndex],
    strip_px: int = 512,
    sums: Mapping[str, str] | None = None,
) -> ShardData:
    """One shard of an overview.

    The graph has one task to fetch each shard below, whole, and one to halve each strip of its rows; in memory at once:
    the new shard, 27 bytes a pixel (24 more with the standard deviation, one with looks), two shards as stored, and
    a strip (see `halve_memory`).

    Reflectance is the mean of the valid pixels, per band; a standard deviation is the mean of those below, an upper
    bound for the mean's. Quality, source and looks are the most frequent values among the pixels with data.

    Args:
        children: its existing ones of four, of one level.
        strip_px: rows halved at a time, even.
        sums: sha256 by path of objects that are to be compared with it.

    Raises:
        ShardError: a shard below is missing, or not as it was written.
        StoreError: the store fails.
    """
    side, zone = draft.grid.shard_px, draft.zones[epsg]
    made = ShardData.empty(side, with_std=zone.uncertainty_samples > 0, with_looks=zone.composite != "none")
    graph: dict[tuple[Any, ...], Any] = {}
    strips = []
    for child in children:
        graph["objects", *child] = (partial(_fetch, draft, store, epsg, child, sums or {}),)
        row, col = child.row % 2 * side // 2, child.col % 2 * side // 2
        for top in range(0, side, strip_px):
            rows = slice(row + top // 2, row + min(top + strip_px, side) // 2)
            quarter = made.part(rows, slice(col, col + side // 2))
            strips.append(("strip", *child, top))
            graph[strips[-1]] = (partial(_halve, quarter, draft, epsg, child, top), ("objects", *child))
    dask.threaded.get(graph, strips, num_workers=1)
    return made


def _fetch(
    draft: CubeDraft, store: Store, epsg: int, shard: OverviewIndex, sums: Mapping[str, str]
) -> dict[str, Buffer]:
    """A shard's objects, by path."""
    objects = {}
    for path in draft.shard_objects(epsg, shard):
        try:
            found = sync(store.get(path, default_buffer_prototype()))
        except store_failures() as error:
            raise StoreError(f"{draft.storage.url}/{path}: cannot be read ({first_line(error)}); run again") from None
        if found is None:
            raise ShardError(f"{draft.storage.url}/{path}: is missing; run again")
        if path in sums and hashlib.sha256(found.as_buffer_like()).hexdigest() != sums[path]:
            raise ShardError(f"{draft.storage.url}/{path}: is not as it was written; run again")
        objects[path] = found
    return objects


def _halve(
    out: ShardData, draft: CubeDraft, epsg: int, shard: OverviewIndex, top: int, objects: Mapping[str, Buffer]
) -> None:
    """Halve rows of a shard from `top` on into `out`, as many as fill it. Past the level's edge there is no data."""
    zone, side = draft.zones[epsg], draft.grid.shard_px
    strip = PixelWindow(shard.row * side + top, shard.col * side, 2 * out.quality.shape[0], side)
    store = MemoryStore(dict(objects))

    def read(name: str) -> NDArray[Any]:
        array = draft.array(store, f"{zone.level_path(shard.level)}/{name}")
        return read_window(array, zone.step, strip, PixelWindow(0, 0, *array.shape[-2:]))

    source = read("source")
    out.source[:] = mode_2x(source, source > 0)
    out.quality[:] = mode_2x(read("quality"), source > 0)
    out.reflectance[:] = average_2x(read("reflectance"), 0)
    if out.std is not None:
        out.std[:] = average_2x(read("reflectance_std"), STD_FILL)
    if out.looks is not None:
        out.looks[:] = mode_2x(read("looks"), source > 0)
