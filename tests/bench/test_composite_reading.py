"""What a composite adds to reading: K looks of a chip, made one, against one look.

`make bench` runs it. Both read the same chips in turns, on one core, as a reader does, with no pixel in any cache:
from a bucket, as archives are read, and for comparison from files on this disk.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from file_bucket import serve
from rasterio.transform import from_origin
from remembered_scenes import remembered_scene
from textured_world import ground

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.geo import ChipIndex, Grid, origin_m
from difffusr.pipeline.scenes import ChipRules, Scene, read_chip
from difffusr.pipeline.scenes.item import Asset

#: Looks; chips a side of what they show.
LOOKS, CHIPS = 8, 2

#: What an object store takes for a request, and sends: less than one in the same region does.
LATENCY_MS, MB_PER_S = 10.0, 90.0

GRID = Grid()


def written(folder: Path) -> list[Scene]:
    """Scenes of ground that changes a little from day to day, with a cloud in each; tiled and compressed as archives
    have them."""
    size = ((CHIPS - 1) * GRID.stride_px + GRID.chip_px) // 6 * 6
    rng, scenes = np.random.default_rng(0), []
    fields = {
        band: ground(-(-size * 10 // GSD_M[band] // 6) * 6, np.random.default_rng(i)) for i, band in enumerate(BANDS)
    }
    for number in range(LOOKS):
        scene = remembered_scene(f"look{number}", number + 1)
        cloud = rng.integers(0, size // 2, 2)
        assets = {}
        for band in (*BANDS, "SCL"):
            gsd = GSD_M.get(band, 20)
            side = size * 10 // gsd
            here = tuple(slice(start * 10 // gsd, (start + 60) * 10 // gsd) for start in cloud.tolist())
            if band == "SCL":
                pixels = np.full((side, side), 4, np.uint8)
                pixels[here] = 9
            else:
                changed = fields[band][:side, :side] * rng.normal(1, 0.05) + rng.normal(0, 12, (side, side))
                pixels = changed.clip(2, 20_000).astype(np.uint16)
                pixels[here] = 8000
            path = folder / scene.id / f"{band}.tif"
            path.parent.mkdir(exist_ok=True, parents=True)
            with rasterio.open(
                path, "w", driver="GTiff", dtype=pixels.dtype, count=1, height=side, width=side, crs="EPSG:32632",
                transform=from_origin(0, origin_m(32632), gsd, gsd), tiled=True, blockxsize=512, blockysize=512,
                compress="deflate", predictor=2,
            ) as file:  # fmt: skip
                file.write(pixels, 1)
            assets[band] = replace(scene.scl if band == "SCL" else scene.assets[band], href=str(path))
        scenes.append(replace(scene, scl=assets.pop("SCL"), assets=assets))
    return scenes


def moved(scenes: Sequence[Scene], start: str) -> list[Scene]:
    """The same scenes below another folder or address: no cache knows their pixels."""

    def there(asset: Asset) -> Asset:
        return replace(asset, href="/".join((start, *Path(asset.href).parts[-2:])))

    return [
        replace(scene, scl=there(scene.scl), assets={band: there(asset) for band, asset in scene.assets.items()})
        for scene in scenes
    ]


def seconds(scenes: Sequence[Scene], rules: ChipRules) -> float:
    """Of reading every chip once."""
    begun = time.perf_counter()
    for row in range(CHIPS):
        for col in range(CHIPS):
            read_chip(GRID.chip_window(ChipIndex(row, col)), scenes, rules)
    return time.perf_counter() - begun


@pytest.mark.bench
@pytest.mark.parametrize("composite", ["medoid", "geomedian"])
def test_a_composite_of_eight_looks_takes_little_more_than_reading_them(tmp_path, capsys, composite):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    scenes, alone, made = written(tmp_path / "scenes"), ChipRules(), ChipRules(composite=composite)
    seconds(scenes, made)  # imports torch
    turn = count()

    def fresh(address: str) -> list[Scene]:
        name = f"turn{next(turn)}"
        (tmp_path / name).symlink_to(tmp_path / "scenes")
        return moved(scenes, f"{address}/{name}")

    ratios = {}
    with serve(tmp_path, LATENCY_MS, MB_PER_S) as bucket:
        for where, address, turns in (("disk", str(tmp_path), 5), ("bucket", bucket.url, 1)):
            rows = []
            for _ in range(turns):
                one = sum(seconds([scene], alone) for scene in fresh(address)) / LOOKS
                rows.append((one, seconds(fresh(address), made)))
            one, whole = (1000 * statistics.median(column) / CHIPS**2 for column in zip(*rows, strict=True))
            ratios[where] = whole / one
            with capsys.disabled():
                print(f"\n{composite}, {where}: one look {one:.1f} ms a chip, {LOOKS} looks {whole:.1f} ms", end="")
                print(f", {whole / one:.2f} times")
    torch.set_num_threads(threads)
    assert ratios["bucket"] <= 1.1 * LOOKS, ratios
