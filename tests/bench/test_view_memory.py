"""What the map's server takes of memory while eight people pan and zoom in a large cube, ask for spectra and look at
an input scene.

`make bench-guards` runs it; it leaves `view-memory.json` beside this file.

The cube has three zones of 27 × 26 shards of 2048 × 2048 pixels and seven overviews, two periods; all shards are one
and the same object, linked, so that it takes no room on the disk. The scene has a whole tile of 10980 × 10980 pixels.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import psutil
import pytest
from machine import machine
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import Grid, PixelWindow
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.readers.view.maplibre import FILES
from difffusr.pipeline.scenes.synthetic.archive import write_catalog
from difffusr.pipeline.scenes.synthetic.sensor import RenderedScene
from difffusr.pipeline.storage.objects import Storage

HERE = Path(__file__).resolve().parent

#: The most that the server's process may take.
MOST_MB = 600

#: Clients at a time, tiles of all of them, and after how many the memory is looked at.
CLIENTS, TILES, EVERY = 8, int(os.environ.get("TILES", "2000")), 250

GRID = Grid(192, 24, 2048, 256)

ZONES = (32631, 32632, 32633)

SHARDS = (27, 26)

#: North of the equator at 48°, in the middle of a zone.
WINDOW = PixelWindow(-2048 * 1040, 2048 * 90, 2048 * SHARDS[0], 2048 * SHARDS[1])

#: What is answered where the cube ends, or is looked at from too far: no failure.
BEYOND = (b"zoom in", b"does not reach", b"no data in this view", b"no data there")

PERIODS = ("2023-06-01/2023-06-30", "2023-07-01/2023-07-31")

SCENE = "S2A_31UEP_20230605_0_L2A"


@pytest.mark.bench
@pytest.mark.timeout(3600)
def test_the_map_s_server_takes_no_more_than_it_may_however_large_the_cube(tmp_path, capsys):
    told = measure(tmp_path)
    with capsys.disabled():
        show(told)
    assert told["most_mb"] <= MOST_MB
    assert told["failed"] == 0
    # No leak: the second half of the tiles takes hardly more than the first.
    assert told["after"][-1]["mb"] <= told["after"][len(told["after"]) // 2]["mb"] + 60


def measure(folder: Path, keep: Path | None = HERE) -> dict[str, Any]:
    """The figures; left beside this file, unless elsewhere or nowhere."""
    url, size = large_cube(folder)
    with serving(url, folder) as (process, port):
        cube = ask_json(port, "/cube.json")
        begun = psutil.Process(process.pid).memory_info().rss
        visitors = Visitors(port, cube)
        time_begun = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(visitors.stay, range(CLIENTS)))
        seconds = time.perf_counter() - time_begun
        most = peak_mb(process.pid)
        after = [{"tiles": count, "mb": round(mb)} for count, mb in visitors.memory]
    told = {
        "clients": CLIENTS, "tiles": TILES, "shards": SHARDS[0] * SHARDS[1] * len(ZONES), "zones": len(ZONES),
        "cube_gpx": round(size / 1e9, 1), "machine": machine(), "begun_mb": round(begun / 1e6), "most_mb": round(most),
        "after": after, "seconds": round(seconds, 1), "failed": visitors.failed,
        "ms": {kind: by_share(found) for kind, found in sorted(visitors.seconds.items())},
    }  # fmt: skip
    if keep is not None:
        (keep / "view-memory.json").write_text(json.dumps(told, indent=1))
    return told


def show(told: dict[str, Any]) -> None:
    """The figures as text."""
    print(f"\n{told['shards']:,} shards, {told['cube_gpx']} Gpx, {told['clients']} clients, {told['seconds']} s")
    print(f"MB when begun {told['begun_mb']}, the most {told['most_mb']}, not answered {told['failed']}")
    print("MB after tiles: " + ", ".join(f"{one['tiles']} {one['mb']}" for one in told["after"]))
    for kind, ms in told["ms"].items():
        print(f"{kind:14} {ms['count']:6} ms: half {ms['half']:7.0f}, of twenty nineteen {ms['most']:7.0f}")


def by_share(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "count": len(ordered),
        "half": round(1e3 * statistics.median(ordered), 1),
        "most": round(1e3 * ordered[int(0.95 * (len(ordered) - 1))], 1),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Those who look at the map
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Visitors:
    """Clients that ask for what a page asks for."""

    port: int
    cube: dict[str, Any]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: list[tuple[int, float]] = field(default_factory=list)
    failed: int = 0
    tiles: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    def stay(self, number: int) -> None:
        """One of them: goes to a place, zooms, pans, looks at layers, clicks."""
        rng, line = random.Random(number), http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        first, last = self.cube["zooms"]
        names = [layer["name"] for layer in self.cube["layers"]]
        for _ in range(TILES // CLIENTS):
            west, south, east, north = rng.choice(self.cube["zones"])["extent"]
            lon, lat = rng.uniform(west, east), rng.uniform(south, north)
            zoom, period = rng.randint(first, last + 1), rng.choice(self.cube["periods"])["label"]
            self.ask(line, self.path(rng, names, period, zoom, lon, lat), "tile")
            self.count()
            if rng.random() < 0.1:
                self.ask(line, "/spectrum?" + urlencode({"lon": lon, "lat": lat}), "spectrum")
            if rng.random() < 0.05:
                half = 0.2 / 2 ** rng.randint(0, 6)
                box = {"west": lon - half, "south": lat - half, "east": lon + half, "north": lat + half}
                self.ask(line, f"/scenes/{period}?{urlencode(box)}", "scenes in view")
                self.ask(line, f"/range/ndvi/{period}?{urlencode(box)}", "range")
            if rng.random() < 0.2:
                z, x, y = tile_at(rng.uniform(3.0, 4.4), rng.uniform(48.7, 49.5), rng.randint(9, 15))
                layer = rng.choice(["true-colour", "ndvi", "infrared"])
                self.ask(line, f"/scenes/2023-06/1/{layer}/{z}/{x}/{y}.png", "tile of scene")

    def path(self, rng: random.Random, names: Sequence[str], period: str, zoom: int, lon: float, lat: float) -> str:
        z, x, y = tile_at(lon, lat, zoom)
        query = urlencode({"averaged": rng.choice(["true", "false"])})
        return f"/tiles/{rng.choice(names)}/{period}/{z}/{x}/{y}.png?{query}"

    def ask(self, line: http.client.HTTPConnection, path: str, kind: str) -> None:
        begun = time.perf_counter()
        line.request("GET", path)
        answer = line.getresponse()
        text = answer.read()
        with self.guard:
            self.seconds.setdefault(kind, []).append(time.perf_counter() - begun)
            if answer.status not in (200, 204) and not any(word in text for word in BEYOND):
                self.failed += 1
                print(answer.status, path, text[:200], file=sys.stderr)

    def count(self) -> None:
        with self.guard:
            self.tiles += 1
            if self.tiles % EVERY == 0:
                self.memory.append((self.tiles, rss_of_port(self.port)))


_PIDS: dict[int, int] = {}


def rss_of_port(port: int) -> float:
    return psutil.Process(_PIDS[port]).memory_info().rss / 1e6


def peak_mb(pid: int) -> float:
    """The most that a process has had, as the kernel counts it."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def tile_at(lon: float, lat: float, zoom: int) -> tuple[int, int, int]:
    y = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2
    return zoom, int((lon + 180) / 360 * 2**zoom), int(y * 2**zoom)


@contextmanager
def serving(url: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`difffusr view` of a cube, and its port."""
    maplibre = folder / "maplibre"
    maplibre.mkdir()
    for name in FILES:
        (maplibre / name).write_text("")
    start = "from difffusr.pipeline.commands.cli import main; main()"
    words = [sys.executable, "-c", start, "view", url, "--no-browser", "--maplibre", str(maplibre)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split("/")[2].split(":")[1])
        _PIDS[port] = process.pid
        try:
            yield process, port
        finally:
            process.terminate()


def ask_json(port: int, path: str) -> Any:
    line = http.client.HTTPConnection("127.0.0.1", port)
    line.request("GET", path)
    return json.loads(line.getresponse().read())


# ---------------------------------------------------------------------------------------------------------------------
# The cube
# ---------------------------------------------------------------------------------------------------------------------


def large_cube(folder: Path) -> tuple[str, int]:
    """Publish it; its URL and pixels of all periods and zones."""
    storage = Storage(str(folder / "cube.zarr"))
    catalog = write_catalog([whole_scene()], folder / "archive")
    provenance = {"config": {"source": {"static_catalog": str(catalog)}}}
    pixels = shard()
    for months, (first, last) in enumerate([days(period) for period in PERIODS]):
        scenes = [{"id": SCENE, "datetime": "2023-06-05T10:36:29Z", "tile": "31UEP"}]
        scenes += [{"id": f"scene-{months}-{n}", "datetime": f"{first}T10:00:00Z", "tile": "31UEP"} for n in range(400)]
        draft = draft_cube(
            storage, GRID, dict.fromkeys(ZONES, WINDOW), (first, last), scenes, provenance,
        )  # fmt: skip
        target = open_target(storage, Storage(str(folder / "cube.staging")), draft, f"{first:%Y-%m}")
        target.begin()
        one = next(iter(GRID.shards_touching(WINDOW)))
        target.accept([target.writer().write(ZONES[0], one, pixels)])
        target.settle({(ZONES[0], one)}, {(ZONES[0], one)})
        target.publish(shards_written=1, keep=1)
    link_shards(folder / "cube.zarr")
    return storage.url, len(PERIODS) * len(ZONES) * WINDOW.height * WINDOW.width


def link_shards(cube: Path) -> None:
    """Let every shard of every level, zone and period be the one that is there."""
    for name in ("reflectance", "quality", "source"):
        (there,) = {path.resolve() for path in (cube / f"{ZONES[0]}/0/{name}/c/0").rglob("*") if path.is_file()}
        for array in cube.glob(f"*/*/{name}/zarr.json"):
            shape = json.loads(array.read_text())["shape"]
            rows, cols = (math.ceil(side / 2048) for side in shape[-2:])
            for step, row, col in np.ndindex(shape[0], rows, cols):
                middle = "0/" if len(shape) == 4 else ""
                path = array.parent / f"c/{step}/{middle}{row}/{col}"
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    os.link(there, path)


def shard() -> ShardData:
    """Fields with some noise, labels in patches."""
    rng, side = np.random.default_rng(1), 2048
    fields = np.kron(rng.integers(400, 3000, (len(BANDS), 32, 32)), np.ones((1, 64, 64), int))
    reflectance = (fields + rng.integers(0, 200, fields.shape)).astype(np.uint16)
    patches = np.kron(rng.integers(0, 6, (128, 128)), np.ones((16, 16), int))
    return ShardData(
        reflectance, (patches % 4 + 1).astype(np.uint8), (patches + 1).astype(np.uint16).reshape(side, side)
    )


def whole_scene() -> RenderedScene:
    """A tile as products have it, north-west of the middle of the first zone."""
    rng = np.random.default_rng(2)

    def band(name: str) -> NDArray[np.uint16]:
        side = 109_800 // GSD_M[name]
        small = rng.integers(1500, 4000, (side // 60 + 1,) * 2).astype(np.uint16)
        return np.kron(small, np.ones((60, 60), np.uint16))[:side, :side]

    pixels = {name: band(name) for name in BANDS}
    scl = np.full((5490, 5490), 4, np.uint8)
    return RenderedScene("31UEP", "2023-06-05", "A", 1000, pixels, scl, 499_980, 5_500_020, 32631, None)


def days(period: str) -> tuple[Any, Any]:
    import datetime as dt

    first, last = map(dt.date.fromisoformat, period.split("/"))
    return first, last
