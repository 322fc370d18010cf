"""A hundred thousand chips through plan, run and assembly with a null model: what the engine costs a chip, whether the
driver's memory grows, and how soon a run that is nearly done is at work again.

`make bench` runs it; it leaves `many-chips.png` and `many-chips.json` beside this file. `CHIPS=20000` for a smaller
one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import psutil
import pytest
import rasterio
import yaml
from null_model import NullResolver
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.chips.actor import SuperResolver
from difffusr.pipeline.chips.staging import StagedChip, write_chip
from difffusr.pipeline.chips.table import ChipTable
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.plan.decision import decide
from difffusr.pipeline.storage.objects import Storage

HERE = Path(__file__).resolve().parent
CHIPS = int(os.environ.get("CHIPS", "100000"))

#: 10 m pixels of a chip and of what it shares with the next: small, so that there are many of them.
CHIP_PX, OVERLAP_PX = 24, 6

#: What the engine may add to a chip, in seconds; until a nearly finished run computes its first chip.
OVERHEAD_S, RESUME_S = 0.005, 60.0

DRIVER = """
import json, sys, time
sys.path.insert(0, sys.argv[2])
import null_model
from ray import cloudpickle
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.run.execution import execute
cloudpickle.register_pickle_by_value(null_model)
begun = time.monotonic()
class Told:
    first = None
    def start(self, *_): pass
    def advance(self, stage):
        if stage == "chips" and self.first is None:
            self.first = time.monotonic() - begun
told = Told()
result = execute(load_config(sys.argv[1]), told, null_model.NullResolver)
print(json.dumps({"computed": result.computed, "written": result.written, "failed": len(result.failed),
                  "seconds": result.seconds, "work": dict(result.work), "first": told.first}))
"""


@pytest.mark.bench
def test_a_hundred_thousand_chips(tmp_path, capsys):
    small, large = tmp_path / "small", tmp_path / "large"
    few = run(world(small, CHIPS // 10))
    many = run(world(large, CHIPS))
    with capsys.disabled():
        print("\n", json.dumps({"few": summary(few), "many": summary(many)}, indent=1))
    leave_one_in_a_hundred(large)
    again = run(large / "run.yaml")
    figures = {"few": summary(few), "many": summary(many), "resumed": summary(again)}
    with capsys.disabled():
        print("\n", json.dumps(figures["resumed"], indent=1))
    (HERE / "many-chips.json").write_text(json.dumps(figures, indent=1))
    draw(few, many, HERE / "many-chips.png")
    assert many["told"]["computed"] > 0.9 * CHIPS
    assert many["told"]["failed"] == 0
    assert figures["many"]["overhead_ms"] <= OVERHEAD_S * 1e3
    # flat: ten times the chips, and nearly the same memory while they run
    assert figures["many"]["driver_peak_mb"] < 1.25 * figures["few"]["driver_peak_mb"] + 50
    assert figures["many"]["driver_growth_mb"] < 100
    assert again["told"]["first"] < RESUME_S
    assert again["told"]["computed"] < 0.1 * many["told"]["computed"]


def world(folder: Path, chips: int) -> Path:
    """A scene of so many chips, the same pixels all over, and a job over it."""
    side = round(chips**0.5) * (CHIP_PX - OVERLAP_PX) * 10 // 60 * 60
    item = folder / "items" / "S2A_32TMT_20230605_0_L2A"
    item.mkdir(parents=True)
    left, top, epsg = 399_960, 5_300_040, 32632
    assets = {}
    for band in (*BANDS, "SCL"):
        gsd = 20 if band == "SCL" else GSD_M[band]
        shape = side // gsd, side // gsd
        row = np.arange(shape[0], dtype=np.uint16)[:, None] % 97 + np.arange(shape[1], dtype=np.uint16) % 89 + 1000
        pixels = np.full(shape, 4, np.uint8) if band == "SCL" else row.astype(np.uint16)
        profile: dict[str, Any] = dict(
            driver="GTiff", dtype=pixels.dtype, count=1, height=shape[0], width=shape[1], crs=f"EPSG:{epsg}",
            transform=from_origin(left, top, gsd, gsd), tiled=True, blockxsize=256, blockysize=256, compress="lzw",
            nodata=0,
        )  # fmt: skip
        with rasterio.open(item / f"{band}.tif", "w", **profile) as file:
            file.write(pixels, 1)
        assets[NAMES[band]] = {"href": f"./{band}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
    west, south, east, north = transform_bounds(f"EPSG:{epsg}", "EPSG:4326", left, top - side, left + side, top)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    document = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item.name,
        "collection": "sentinel-2-l2a",
        "bbox": [west, south, east, north],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "datetime": "2023-06-05T10:30:00Z",
            "eo:cloud_cover": 0.0,
            "proj:code": f"EPSG:{epsg}",
            "mgrs:utm_zone": 32, "mgrs:latitude_band": "T", "mgrs:grid_square": "MT",
            "s2:processing_baseline": "02.12",
        },
        "assets": assets,
        "links": [],
    }  # fmt: skip
    (item / f"{item.name}.json").write_text(json.dumps(document))
    links = [{"rel": "item", "href": f"./items/{item.name}/{item.name}.json"}]
    catalog = {"type": "Catalog", "id": "many", "stac_version": "1.0.0", "description": "one scene", "links": links}
    (folder / "catalog.json").write_text(json.dumps(catalog))
    inner = transform_bounds(f"EPSG:{epsg}", "EPSG:4326", left + 300, top - side + 300, left + side - 300, top - 300)
    config = {
        "area": {"bbox": [round(v, 6) for v in inner]},
        "period": {"start": "2023-06-01", "end": "2023-06-30"},
        "source": {"static_catalog": "catalog.json"},
        "grid": {"chip_px": CHIP_PX, "overlap_px": OVERLAP_PX},
        "store": {"url": "cube.zarr"},
        "compute": {"batch": 16},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


#: What Earth Search calls the bands.
NAMES = dict(
    B01="coastal", B02="blue", B03="green", B04="red", B05="rededge1", B06="rededge2", B07="rededge3", B08="nir",
    B8A="nir08", B09="nir09", B11="swir16", B12="swir22", SCL="scl",
)  # fmt: skip


def run(path: Path) -> dict[str, Any]:
    """The job in a process of its own; its memory once a second, and what it told."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, path, HERE], stdout=subprocess.PIPE, text=True, cwd=path.parent
    )
    memory: list[tuple[float, float]] = []
    begun, watched = time.monotonic(), psutil.Process(process.pid)

    def watch() -> None:
        while process.poll() is None:
            try:
                memory.append((time.monotonic() - begun, watched.memory_full_info().uss / 1e6))
            except psutil.Error:
                return
            time.sleep(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate()
    watcher.join()
    assert process.returncode == 0
    wall = time.monotonic() - begun
    told = json.loads(said.splitlines()[-1])
    return {"told": told, "memory": memory, "wall": wall, "work_of_a_chip": work_of_a_chip(path)}


def work_of_a_chip(path: Path) -> float:
    """Core seconds of reading, resolving and staging one chip, in a plain loop over some of them."""
    config = load_config(path)
    plan = decide(config)
    table, staging = ChipTable.of(config, plan), Storage(str(path.parent / "loop"))
    model = object.__new__(NullResolver)
    model.batch, model.samples = 1, 0
    some = np.linspace(0, len(plan.chips) - 1, 400).astype(int).tolist()
    begun = 0.0
    for count, position in enumerate(some):
        if count == 100:  # by now everything is loaded and cached as it is in a worker
            begun = time.process_time()
        row = {name: np.asarray(value)[None] for name, value in table.read(position).items()}
        made = SuperResolver.__call__(model, row)
        write_chip(staging, str(made["object"][0]), StagedChip(made["dn"][0], made["quality"][0], made["source"][0]))
    return (time.process_time() - begun) / (len(some) - 100)


def summary(ran: dict[str, Any]) -> dict[str, Any]:
    told, memory = ran["told"], np.array(ran["memory"])
    cores, chips = psutil.cpu_count() or 1, max(told["computed"], 1)
    engine = told["seconds"].get("chips", 0.0) + told["seconds"].get("shards", 0.0)
    work = ran["work_of_a_chip"] + told["work"].get("shard", 0.0) / chips
    at_work = memory[memory[:, 0] > ran["wall"] - engine - 5][:, 1]
    third = max(len(at_work) // 3, 1)
    return {
        "chips": told["computed"],
        "shards": told["written"],
        "wall_s": round(ran["wall"], 1),
        "first_chip_s": round(told["first"] or 0, 1),
        "seconds": {stage: round(value, 1) for stage, value in told["seconds"].items()},
        "work_ms": round(work * 1e3, 2),
        # all core seconds that were not spent on reading, resolving, staging or blending, idle ones included
        "overhead_ms": round((engine * cores / chips - work) * 1e3, 2),
        "driver_peak_mb": round(float(memory[:, 1].max())),
        "driver_growth_mb": round(float(at_work[-third:].mean() - at_work[third : 2 * third].mean())),
    }


def leave_one_in_a_hundred(folder: Path) -> None:
    """As if the run had been killed near its end: a hundredth of its shards is not entered, nothing is published."""
    entries = sorted((folder / "cube.staging").glob("runs/*/shards/**/*.json"))
    for entry in entries[: max(len(entries) // 100, 1)]:
        entry.unlink()
    for document in (folder / "cube.zarr").rglob("zarr.json"):
        document.unlink()
    for document in (folder / "cube.staging" / "history").glob("*"):
        document.unlink()


def draw(few: dict[str, Any], many: dict[str, Any], path: Path) -> None:
    """The driver's memory over time, for both sizes."""
    picture, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for ran, color in ((few, "#b5532a"), (many, "#1f6f8b")):
        seconds, megabytes = np.array(ran["memory"]).T
        axes.plot(seconds / 60, megabytes, color=color, label=f"{ran['told']['computed']:,} chips")
    axes.set(xlabel="minutes", ylabel="memory of the driver (MB, USS)", ylim=(0, None), xlim=(0, None))
    axes.set_title("plan, run and assembly with a null model, two cores", fontsize=10)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=110)
    plt.close(picture)
