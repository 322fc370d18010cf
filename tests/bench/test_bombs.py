"""Memory of whoever meets a bomb: a process of its own reads it, and must end in words within a bound."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from paged_api import Answer, paged_api

pytestmark = pytest.mark.bench

#: Runs a statement, and prints what it raised and by how many MB the process grew meanwhile.
_PROGRAM = """
import sys, time

def peak_kb():
    with open("/proc/self/status") as file:  # not getrusage's, which begins with what the parent had
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

exec(sys.argv[1])
before, began = peak_kb(), time.monotonic()
try:
    exec(sys.argv[2])
    said = "done"
except Exception as error:
    said = f"{type(error).__name__}: {error}"
grown = (peak_kb() - before) * 1024 / 1e6
print(f"{grown:.0f} {time.monotonic() - began:.1f} {said}")
"""


@dataclass(frozen=True)
class Met:
    """How it ended: MB by which the process grew, seconds, words."""

    megabytes: float
    seconds: float
    said: str


def meet(begin: str, statement: str) -> Met:
    """Run a statement in a process of its own, which has imported what it needs before it is measured."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, begin, statement],
        capture_output=True, text=True, timeout=280, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    grown, seconds, said = ended.stdout.strip().split(" ", 2)
    return Met(float(grown), float(seconds), said)


def zeros(gigabytes: float, wbits: int = 31) -> bytes:
    stream, part = zlib.compressobj(9, wbits=wbits), bytes(1 << 24)
    return b"".join(stream.compress(part) for _ in range(int(gigabytes * 64))) + stream.flush()


_FETCH = "from difffusr.pipeline.scenes.requests import PatientIO; from difffusr.pipeline.scenes.answers import json_of"


def of_answer(body: bytes, encoding: str, statement: str) -> Met:
    with paged_api(lambda _: Answer(body, headers={"Content-Encoding": encoding} if encoding else {})) as api:
        return meet(_FETCH, statement.format(f"{api.url}/search"))


def sparse(path: Path, side: int, block: int) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=1, dtype="uint16", crs="EPSG:32648", tiled=True,
        transform=rasterio.Affine(10, 0, 600_000, 0, -10, 1_200_000), blockxsize=block, blockysize=block,
        sparse_ok=True, bigtiff="YES", compress="deflate",
    ):  # fmt: skip
        return path


def of_raster(path: Path) -> Met:
    begin = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / 'helpers')!r})\n"
    begin += "from small_rasters import scene_of; from difffusr.pipeline.scenes.windows import read_overview"
    return meet(begin, f"read_overview(scene_of({str(path)!r}), 'B04', 640)")


def of_checkpoint(path: Path, content: object) -> Met:
    torch.save(content, path)
    return meet("from difffusr.kernels.weights import load_weights", f"load_weights({str(path)!r})")


def of_area(path: Path, points: np.ndarray) -> Met:
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [[*points.tolist(), points[0].tolist()]]}))
    begin = "from difffusr.pipeline.config import AreaSection; from difffusr.pipeline.geo import geometry_of"
    return meet(begin, f"geometry_of(AreaSection(geojson={str(path)!r}))")


_TURN = np.linspace(0, 2 * np.pi, 1_000_000, endpoint=False)
_NOISE = np.random.default_rng(1)

#: By name: what makes the process meet it, and by how many MB it may grow.
BOMBS: dict[str, tuple[Callable[[Path], Met], float]] = {
    "gzip, 6.5 GB of zeros": (lambda _: of_answer(zeros(6.5), "gzip", "PatientIO(20).fetch({!r})"), 1500),
    "deflate, 6.5 GB of zeros": (lambda _: of_answer(zeros(6.5, 15), "deflate", "PatientIO(20).fetch({!r})"), 1500),
    "JSON of 50 million lists": (
        lambda _: of_answer(
            gzip.compress(b"[" + b"[]," * 50_000_000 + b"0]", 1), "gzip", "json_of(PatientIO(20).fetch({!r}))"
        ),
        700,
    ),
    "brotli": (lambda _: of_answer(b"\x00" * 1000, "br", "PatientIO(20).fetch({!r})"), 50),
    "SCL of 400 000²": (lambda folder: of_raster(sparse(folder / "a.tif", 400_000, 4096)), 200),
    "block of 32 768²": (lambda folder: of_raster(sparse(folder / "a.tif", 10_980, 32_768)), 200),
    # No bomb: its pixels are 241 MB, which GDAL's cache holds.
    "a whole tile, 10 980²": (lambda folder: of_raster(sparse(folder / "a.tif", 10_980, 1024)), 400),
    "a whole tile in one block": (lambda folder: of_raster(sparse(folder / "a.tif", 10_980, 10_992)), 700),
    "checkpoint, one number 2 · 10⁹ times": (
        lambda folder: of_checkpoint(folder / "a.ckpt", {"a": torch.zeros(1).expand(2_000_000_000)}),
        100,
    ),
    "coast of 10⁶ corners": (
        lambda folder: of_area(
            folder / "a.geojson",
            np.column_stack([np.cos(_TURN), np.sin(_TURN)]) * (0.5 + 1e-5 * _NOISE.standard_normal((len(_TURN), 1)))
            + [6, 49],
        ),
        1500,
    ),
    "scribble of 10⁶ corners": (
        lambda folder: of_area(folder / "a.geojson", _NOISE.uniform((6, 49), (7, 50), (1_000_000, 2))),
        2000,
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_takes_no_more_memory_than_its_bound(tmp_path, capsys, bomb):
    make, bound = BOMBS[bomb]
    met = make(tmp_path)
    with capsys.disabled():
        print(f"\n{bomb}: {met.megabytes:.0f} MB, {met.seconds:.1f} s: {met.said[:160]}")
    assert met.megabytes < bound
    assert met.seconds < 120
