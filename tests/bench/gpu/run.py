"""Whole runs of the demonstration's world on Ray, one actor pinned to the GPU; their cubes beside the CPU's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.bare import missing
from gpu.parts import NotHereError, Row, Setting, no_time
from gpu.samples import Samples

HERE = Path(__file__).resolve().parent

#: What a run imports, as Python calls it.
NEEDED = (
    "aiohttp", "dask", "fsspec", "geopandas", "humanize", "lazy_loader", "numcodecs", "odc.geo", "pandas", "pyarrow",
    "pydantic", "pyproj", "pystac", "pystac_client", "rasterio", "ray", "requests", "rich", "safetensors", "scipy",
    "shapely", "stac_geoparquet", "tenacity", "typer", "urllib3", "xarray", "yaml", "zarr",
)  # fmt: skip

#: In float32 a cube of the GPU differs from the CPU's by so many DN at the most, in every band.
MOST_DN = 2

#: Of its middle so much of the world's width and height is computed.
SHARE = 0.75

#: Seconds that a run may take.
RUN_S = 110.0


def rows(setting: Setting) -> Iterator[Row]:
    """The world, then runs: on the GPU and on the CPU in float32, how they differ, and the GPU in bfloat16."""
    if lacking := missing(NEEDED):
        raise NotHereError(f"not installed: {', '.join(lacking)}")
    if setting.dry and not setting.with_run:
        raise NotHereError("a dry run leaves it out; --with-run has it, on the CPU")
    begun = time.time()
    world = _world(setting.folder / "world")
    yield {"what": "making the world", "total_s": time.time() - begun}
    gpus = 0 if setting.device == "cpu" else 1
    runs = {"float32": ("float32", gpus), "on cores": ("float32", 0), "bfloat16": ("bfloat16", gpus)}
    cubes: dict[str, Path] = {}
    for name, (precision, used) in runs.items():
        what = f"{'GPU' if used else 'CPU'}, {precision}"
        if not setting.has(20):
            yield no_time(what)
            continue
        row, cubes[name] = _run(setting, world, name, precision, used)
        yield {"what": what, **row}
        if name == "on cores" and "float32" in cubes:
            yield {"what": "float32, GPU and CPU", **compared(cubes["float32"], cubes[name], MOST_DN)}
    if {"bfloat16", "on cores"} <= set(cubes):
        yield {"what": "bfloat16, GPU and CPU's float32", **compared(cubes["bfloat16"], cubes["on cores"], None)}


def _world(folder: Path) -> Any:
    from difffusr.pipeline.scenes.synthetic import write_demo_world

    return write_demo_world(folder)


def config_of(world: Any, folder: Path, precision: str, gpus: int) -> dict[str, Any]:
    """The demonstration's configuration, over the middle of its world; the batch as it finds it."""
    west, south, east, north = map(float, world.bbox)
    dx, dy = (east - west) * (1 - SHARE) / 2, (north - south) * (1 - SHARE) / 2
    cores = len(os.sched_getaffinity(0))
    return {
        "name": "demo",
        "area": {"bbox": [round(edge, 6) for edge in (west + dx, south + dy, east - dx, north - dy)]},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog)},
        "store": {"url": str(folder / "cube.zarr")},
        "compute": {
            "gpus_per_actor": gpus, "precision": precision,
            **({"actors_max": 1} if gpus else {"actors_max": max(1, cores // 2)}),
        },
    }  # fmt: skip


def _run(setting: Setting, world: Any, name: str, precision: str, gpus: int) -> tuple[Row, Path]:
    """A run's row, and where its cube is."""
    import yaml

    folder = setting.folder / f"run {name}"
    folder.mkdir()
    config = folder / "demo.yaml"
    config.write_text(yaml.safe_dump(config_of(world, folder, precision, gpus), sort_keys=False))
    log, begun = folder / "log.txt", time.time()
    with Samples() if gpus else Samples(lambda: (0.0, 0.0)) as samples, log.open("w") as said:
        asked = [sys.executable, str(HERE / "one_run.py"), str(config), str(begun)]
        try:
            limit = max(min(RUN_S, setting.left), 5.0) if not setting.dry else 900.0
            done = subprocess.run(
                asked, stdout=subprocess.PIPE, stderr=said, text=True, timeout=limit, env=_environment(folder, gpus)
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the run did not end within {limit:.0f} s; {_last_line(log)}") from None
    if done.returncode:
        raise RuntimeError(f"the run ended with exit code {done.returncode}: {_last_line(log)}")
    told = json.loads(done.stdout.splitlines()[-1])
    return row_of(told, begun, samples if gpus else None), folder / "cube.zarr"


def _environment(folder: Path, gpus: int) -> dict[str, str]:
    """Kernels are compiled anew, as on a machine that has just started. Without an actor on it, nobody sees the GPU."""
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, "TRITON_CACHE_DIR": str(folder / "triton"), **hidden}


def row_of(told: Mapping[str, Any], begun: float, samples: Samples | None) -> Row:
    """Seconds from the command to everything that users wait for, seconds by stage, and how busy the GPU was."""
    at = told["at"]
    row: Row = {
        "gpu": samples is not None, "total_s": told["ended"] - begun, "imports_s": told["imports_s"],
        "planned_s": at["plan last"] - begun, "first_chip_s": at["chips first"] - begun,
        "last_chip_s": at["chips last"] - begun, "chips": told["chips"],
        "stages_s": {stage: round(seconds, 2) for stage, seconds in told["seconds"].items()},
    }  # fmt: skip
    if samples is not None:
        row |= {
            "busy_between_chips": samples.busy(at["chips first"], at["chips last"]),
            "busy_in_all": samples.busy(begun, told["ended"]),
            "gpu_memory_gb": samples.memory_gb(),
        }
        if not samples.taken:
            row["note"] = samples.why_none or "no sample was taken"
    return row


def compared(one: Path, other: Path, most: int | None) -> Row:
    """How the reflectance of two cubes differs, in DN. Pixels that only one has are a failure, whatever `most`."""
    greatest: list[int] = []
    total = count = apart = 0
    for path, array in _reflectance(one).items():
        first, second = array.astype(np.int32), _reflectance(other)[path].astype(np.int32)
        both = (first > 0) & (second > 0)
        apart += int(((first > 0) != (second > 0)).sum())
        difference = np.where(both, np.abs(first - second), 0)
        bands = tuple(axis for axis in range(difference.ndim) if axis != difference.ndim - 3)
        greatest = np.maximum(difference.max(bands), greatest or 0).tolist()
        total, count = total + int(difference.sum()), count + int(both.sum())
    if not count:
        raise RuntimeError(f"{one}: its cube holds no pixel")
    row: Row = {
        "difference_max": max(greatest), "difference_mean": total / count, "by_band": greatest, "pixels_apart": apart,
        "allowed": "stated" if most is None else f"{most} DN", "ok": not apart,
    }  # fmt: skip
    if most is not None:
        row["ok"] = not apart and max(greatest) <= most
    return row


def _reflectance(cube: Path) -> dict[str, NDArray[np.uint16]]:
    """The 2.5 m arrays of a cube by zone."""
    import zarr

    root = zarr.open_group(str(cube), mode="r")
    found = {}
    for zone, group in root.groups():
        found[zone] = np.asarray(group["0/reflectance"][:])
    return found


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
