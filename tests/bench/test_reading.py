"""How fast readers get patches and time series from cubes of different layouts, on disk and from an object store.

`make bench-guards` runs it; it leaves `reading.json` and `reading.png` beside this file.

The object store is a folder served in the S3 protocol on loopback. A request takes `LATENCY_MS`, and what it sends
`MB_PER_S` more: about what a bucket in the same region gives to one connection. Requests and bytes are exact whatever
the machine; rates compare layouts, which take turns, and clients.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import zarr
from file_bucket import FileBucket, serve
from machine import machine
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from difffusr.pipeline.config.sections import GridSection
from difffusr.pipeline.scenes.synthetic.world import generate_world

HERE = Path(__file__).resolve().parent

LATENCY_MS, MB_PER_S = 30.0, 90.0

#: Pixels of a side, and bands; steps of time, all of the same pixels.
SIDE, BANDS, STEPS = 4096, 12, 6

#: Readers at a time, as many as a DataLoader's workers keep going; reads of a turn; turns of each layout.
READERS, READS, TURNS = 8, 16, 3


@dataclass(frozen=True)
class Layout:
    """How an array is cut: sides in pixels of an object and of what is read at least, and bands of the latter."""

    name: str
    shard: int
    chunk: int
    bands: int = BANDS

    @property
    def folder(self) -> str:
        """Where its array lies in the bucket."""
        return f"{self.shard}-{self.chunk}-{self.bands}"


CUBE = Layout("the cube", GridSection().shard_px, GridSection().chunk_px)
LAYOUTS = (
    CUBE,
    Layout("inner chunks of 128", 2048, 128),
    Layout("inner chunks of 512", 2048, 512),
    Layout("shards of 1024", 1024, 256),
    Layout("shards of 4096", 4096, 256),
    Layout("inner chunks of one band", 2048, 256, 1),
    Layout("no shards", 256, 256),
    Layout("no shards, chunks of one band", 256, 256, 1),
)

#: What is read: its index into (time, band, y, x), from two random places.
PATTERNS: dict[str, Callable[[int, int], tuple[Any, ...]]] = {
    "patch on the chunks": lambda y, x: (
        0,
        slice(None),
        *(slice(a // 256 * 256, a // 256 * 256 + 256) for a in (y, x)),
    ),
    "patch anywhere": lambda y, x: (0, slice(None), slice(y, y + 256), slice(x, x + 256)),
    "RGB patch anywhere": lambda y, x: (0, slice(1, 4), slice(y, y + 256), slice(x, x + 256)),
    "pixel, 6 periods": lambda y, x: (slice(None), slice(None), y, x),
}
REMOTE = ("s3fs", "obstore")
CLIENTS = ("local files", *REMOTE)


@pytest.mark.bench
def test_no_layout_of_as_few_objects_gives_patches_much_faster_from_an_object_store(tmp_path, capsys):
    rows = measure(tmp_path)
    with capsys.disabled():
        show(rows)
    for client, pattern in product(REMOTE, ("patch on the chunks", "patch anywhere")):
        rates = {row["layout"]: row["per_s"] for row in rows if (row["client"], row["pattern"]) == (client, pattern)}
        rivals = [row["layout"] for row in rows if row["objects_a_gpx"] <= 4 * rows[0]["objects_a_gpx"]]
        assert rates[CUBE.name] >= 0.7 * max(rates[name] for name in rivals), (client, pattern, rates)


def measure(folder: Path) -> list[dict[str, Any]]:
    """A row for each layout, client and pattern; leaves figures and picture beside this file."""
    pixels = ground()
    objects = {layout: write(folder / "bucket" / layout.folder, layout, pixels) for layout in LAYOUTS}
    with serve(folder, LATENCY_MS, MB_PER_S) as bucket:
        arrays = {
            (layout, client): opened(folder, layout, client, bucket) for layout, client in product(LAYOUTS, CLIENTS)
        }
        rows = [
            {"layout": layout.name, "shard": layout.shard, "chunk": layout.chunk, "bands": layout.bands,
             "objects_a_gpx": round(objects[layout] / (SIDE**2 / 1e9)), "client": client, "pattern": pattern,
             **figures}
            for pattern, client in product(PATTERNS, CLIENTS)
            for layout, figures in take_turns({lay: arrays[lay, client] for lay in LAYOUTS}, pattern, pixels, bucket)
        ]  # fmt: skip
    told = {"latency_ms": LATENCY_MS, "mb_per_s": MB_PER_S, "readers": READERS, "machine": machine(), "rows": rows}
    (HERE / "reading.json").write_text(json.dumps(told, indent=1))
    draw(rows, HERE / "reading.png")
    return rows


def take_turns(
    arrays: dict[Layout, zarr.Array], pattern: str, pixels: NDArray[np.uint16], bucket: FileBucket
) -> list[tuple[Layout, dict[str, Any]]]:
    """Each layout reads the same places in every turn: reads a second, the median of its turns, and what one costs."""
    rates: dict[Layout, list[float]] = {layout: [] for layout in arrays}
    costs = {}
    places = np.random.default_rng(0).integers(0, SIDE - 256, (TURNS, READS, 2))
    for turn in places:
        for layout, array in arrays.items():
            bucket.counted()
            begun = time.perf_counter()
            with ThreadPoolExecutor(READERS) as readers:
                found = list(readers.map(lambda place, array=array: array[PATTERNS[pattern](*place)], turn))
            rates[layout].append(READS / (time.perf_counter() - begun))
            counted = bucket.counted()
            costs[layout] = len(counted.requests) / READS, counted.sent / READS
            assert np.array_equal(found[0], stepped(pixels)[PATTERNS[pattern](*turn[0])])
    return [
        (lay, {"per_s": round(statistics.median(rates[lay]), 1), "requests": round(costs[lay][0], 2),
               "mb": round(costs[lay][1] / 1e6, 3)})
        for lay in arrays
    ]  # fmt: skip


def ground() -> NDArray[np.uint16]:
    """(12, SIDE, SIDE): the made-up world's truth, side by side until it is large enough; stored numbers."""
    truth = np.rint(generate_world(size_m=(1920, 1920)).reflectance * 10_000).astype(np.uint16)
    times = -(-SIDE // truth.shape[1])
    return np.tile(truth, (1, times, times))[:, :SIDE, :SIDE]


def stepped(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """(STEPS, 12, SIDE, SIDE) without copying."""
    return np.broadcast_to(pixels, (STEPS, *pixels.shape))


def write(path: Path, layout: Layout, pixels: NDArray[np.uint16]) -> int:
    """Write an array as the cube's is written, and count a step's objects; the other steps are links to the first."""
    sharded = layout.shard > layout.chunk
    array = zarr.create_array(
        LocalStore(path),
        shape=(STEPS, BANDS, SIDE, SIDE),
        shards=(1, BANDS, layout.shard, layout.shard) if sharded else None,
        chunks=(1, layout.bands, layout.chunk, layout.chunk),
        dtype="uint16",
        fill_value=0,
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
    )
    array[0] = pixels
    for step in range(1, STEPS):
        (path / "c" / str(step)).symlink_to("0")
    return sum(len(files) for _, _, files in os.walk(path / "c" / "0"))


def opened(folder: Path, layout: Layout, client: str, bucket: FileBucket) -> zarr.Array:
    """A layout's array through one of the clients."""
    from obstore.store import S3Store

    name = layout.folder
    stores = {
        "local files": lambda: LocalStore(folder / "bucket" / name, read_only=True),
        "s3fs": lambda: FsspecStore.from_url(
            f"s3://bucket/{name}", storage_options=bucket.s3fs_options, read_only=True
        ),
        "obstore": lambda: ObjectStore(S3Store("bucket", prefix=name, **bucket.obstore_options), read_only=True),
    }
    return zarr.open_array(stores[client](), mode="r", zarr_format=3)


def show(rows: list[dict[str, Any]]) -> None:
    """The rows as tables, one a pattern."""
    for pattern in PATTERNS:
        print(
            f"\n{pattern:30}{'objects/Gpx':>12}{'requests':>9}{'MB':>8}" + "".join(f"{c + '/s':>15}" for c in CLIENTS)
        )
        for layout in LAYOUTS:
            by = {row["client"]: row for row in rows if (row["layout"], row["pattern"]) == (layout.name, pattern)}
            cost = by["obstore"]
            print(
                f"{layout.name:30}{cost['objects_a_gpx']:12}{cost['requests']:9.1f}{cost['mb']:8.2f}"
                + "".join(f"{by[client]['per_s']:15.1f}" for client in CLIENTS)
            )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Reads a second of each layout, a panel a pattern."""
    picture, panels = plt.subplots(1, len(PATTERNS), figsize=(12, 3.6), sharey=True, layout="constrained")
    colours = dict(zip(CLIENTS, ("#999999", "#e69f00", "#0072b2"), strict=True))
    places = np.arange(len(LAYOUTS))
    for axes, pattern in zip(panels, PATTERNS, strict=True):
        for number, client in enumerate(CLIENTS):
            found = {r["layout"]: r["per_s"] for r in rows if (r["client"], r["pattern"]) == (client, pattern)}
            rates = [found[layout.name] for layout in LAYOUTS]
            axes.barh(places + (number - 1) * 0.27, rates, 0.25, color=colours[client], label=client)
        axes.set(xlabel="a second", title=pattern)
        axes.title.set_fontsize(10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(places, [layout.name for layout in LAYOUTS])
    panels[0].invert_yaxis()
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    picture.suptitle(
        f"{READERS} readers at a time; a request takes {LATENCY_MS:g} ms + 1 s per {MB_PER_S:g} MB", fontsize=10
    )
    picture.savefig(path, dpi=90)
    plt.close(picture)
