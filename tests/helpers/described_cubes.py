"""Cubes that are described as STAC, and the command that does it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from small_cubes import GRID, finish, label, month, write

from difffusr.pipeline.commands import cli
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.geo.grid import PixelWindow, ShardIndex
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.storage.objects import Storage

#: Near 16° N 105° E, and in the next zone, south of the equator, near 16° S 111° E.
ZONES = {
    32648: (PixelWindow(-720_000, 200_000, 128, 128), "48PWC", "one"),
    32749: (PixelWindow(704_000, 200_000, 128, 128), "49KDA", "two"),
}
CONFIG = {
    "source": {"stac_api": "https://example.com/v1/"},
    "grid": {"chip_px": 192},
    "model": {"preset": "small", "seed": 3, "stage1": "https://example.com/last.ckpt?sig=secret", "fusion": None},
}
PROVENANCE = {
    "software": {"difffusr": "0.1.0", "torch": "2.13.0+cpu"},
    "model": "abc123",
    "weights": {"stage1": "ab" * 32, "fusion": "cd" * 32},
    "sampling": {"solver": "ddim", "steps": 10, "temperature": 0.25},
    "config": CONFIG,
}


def make(home: Path, name: str, extents: Mapping[int, PixelWindow], months: Sequence[int]) -> None:
    """Publish a cube in which every pixel has data."""
    storage, staging = Storage(str(home / f"{name}.zarr")), Storage(str(home / f"{name}.staging"))
    for number in months:
        scenes = [
            {"id": f"{name}{number}", "tile": tile, "collection": "l2a", "datetime": f"2023-{number:02d}-10T03:00:00Z"}
            for _, tile, name in ZONES.values()
        ]
        draft = draft_cube(storage, GRID, extents, month(number), scenes, PROVENANCE)
        target = open_target(storage, staging, draft, label(number))
        planned = set()
        for epsg, window in extents.items():
            first = ShardIndex(window.row // 64, window.col // 64)
            shards = [ShardIndex(first.row + i, first.col + j) for i in (0, 1) for j in (0, 1)]
            write(target, 10 * number, shards, [epsg])
            planned |= {(epsg, shard) for shard in shards}
        finish(target, staging, planned, planned)
        target.publish(shards_written=len(planned), keep=1)


def describe(*words: object) -> int:
    """The command's exit code."""
    before, sys.argv = sys.argv, ["difffusr", "stac", *map(str, words)]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
    return 0
