"""How long a plan takes and how much memory, from a province to a continent.

`make bench` runs it; it leaves `plan-scaling.png` and `plan-scaling.json` beside this file.
"""

from __future__ import annotations

import json
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
import shapely
import yaml
from shapely.geometry import box, mapping, shape
from wide_archive import GERMANY, write_archive

HERE = Path(__file__).resolve().parent

#: A piece of Europe of about two million chips, and smaller ones inside it.
PLACES = {
    "Germany": GERMANY,
    "a quarter of a million": box(5, 45, 15.5, 51.5),
    "half a million": box(0, 43, 15.5, 51.5),
    "a million": box(-5, 41, 20, 52.5),
    "two million": box(-10, 38, 30, 56),
}


@pytest.mark.bench
@pytest.mark.parametrize("largest", ["Germany", "two million"])
def test_time_grows_with_the_number_of_chips_and_memory_does_not_run_away(largest, tmp_path, capsys):
    area = PLACES[largest]
    items = json.loads(write_archive(tmp_path, area, dates=12, patterns_a_tile=2).read_text())
    names = [name for name in PLACES if PLACES[name].area <= area.area] if largest != "Germany" else ["Germany"]
    figures = []
    for name in names:
        figures.append(measure(tmp_path, name, PLACES[name], items))
        with capsys.disabled():
            print(f"\n{figures[-1]}")
    last = figures[-1]
    assert last["peak_gb"] <= (2 if largest == "Germany" else 4)
    if len(figures) > 2:
        # Linear: a chip more costs about the same everywhere between the smallest and the largest plan.
        chips, seconds = (np.array([figure[key] for figure in figures], float) for key in ("chips", "seconds"))
        slopes = np.diff(seconds) / np.diff(chips)
        assert slopes.max() <= 2 * np.median(slopes)
        (HERE / "plan-scaling.json").write_text(json.dumps(figures, indent=1))
        draw(figures, HERE / "plan-scaling.png")


def measure(folder: Path, name: str, area: shapely.Geometry, items: dict[str, Any]) -> dict[str, Any]:
    """Plan a place with the command that a user calls; wall clock, and memory of it and of Ray together (PSS)."""
    run = folder / name.replace(" ", "-")
    run.mkdir()
    wanted = [item for item in items["features"] if shape(item["geometry"]).intersects(area)]
    (run / "items.json").write_text(json.dumps({**items, "features": wanted}))
    (run / "area.geojson").write_text(json.dumps(mapping(area)))
    config = {
        "area": {"geojson": "area.geojson"},
        "period": {"start": "2023-06-01", "end": "2023-07-31"},
        "source": {"items": "items.json"},
        "store": {"url": "cube.zarr"},
    }
    (run / "run.yaml").write_text(yaml.safe_dump(config))
    others = {process.pid for process in psutil.process_iter()}
    begun = time.monotonic()
    process = subprocess.Popen([Path(sys.executable).with_name("difffusr"), "plan", run / "run.yaml"],
                               stdout=subprocess.DEVNULL)  # fmt: skip
    peak = Peak(others)
    assert process.wait() == 0
    seconds = time.monotonic() - begun
    manifest = json.loads(next(run.glob("cube.staging/runs/*/plan/manifest.json")).read_text())
    return {
        "place": name,
        "scenes": len(wanted),
        "chips": manifest["chips"],
        "shards": manifest["shards"],
        "borders": manifest["borders"],
        "seconds": round(seconds, 1),
        "peak_gb": round(peak.stop() / 1e9, 2),
    }


class Peak:
    """The most memory that all processes begun since then held at a time."""

    def __init__(self, others: set[int]) -> None:
        self._others, self._most, self._done = others, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            held = 0
            for process in psutil.process_iter():
                if process.pid in self._others:
                    continue
                try:
                    held += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                    continue
            self._most = max(self._most, held)

    def stop(self) -> int:
        """Bytes."""
        self._done.set()
        self._thread.join()
        return self._most


def draw(figures: list[dict[str, Any]], path: Path) -> None:
    """Seconds and memory over chips."""
    chips = np.array([figure["chips"] for figure in figures]) / 1e6
    seconds = np.array([figure["seconds"] for figure in figures])
    memory = [figure["peak_gb"] for figure in figures]
    picture, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    slope, start = np.polyfit(chips, seconds, 1)
    left.plot([0, chips[-1]], [start, start + slope * chips[-1]], color="0.7", zorder=0)
    left.plot(chips, seconds, "o", color="#1f6f8b")
    left.set(xlabel="chips (millions)", ylabel="wall clock (s)", ylim=(0, None), xlim=(0, None))
    left.set_title(f"{start:.0f} s + {slope:.0f} µs a chip", fontsize=10)
    right.plot(chips, memory, "o-", color="#b5532a")
    right.set(xlabel="chips (millions)", ylabel="peak memory, Ray included (GB)", ylim=(0, None), xlim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    picture.suptitle("difffusr plan on two cores: 12 dates of every tile", fontsize=11)
    picture.savefig(path, dpi=110)
    plt.close(picture)
