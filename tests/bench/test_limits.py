"""Reading, staging and assembly against the speed of their libraries; `make bench` leaves `limits.json` beside this
file."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import limits
import psutil
import pytest
import rasterio

HERE = Path(__file__).resolve().parent

#: What work may take, in its limit's seconds. Zarr writes what is blended, too: assembly keeps 70 % of its speed.
MOST = {
    "reading": 1.5,
    "reading, clouds filled from a second scene": 1.5,
    "staging": 1.5,
    "reading what is staged": 1.5,
    "assembly": 1 / 0.7,
}


@pytest.mark.bench
def test_reading_staging_and_assembly_are_near_their_limits(tmp_path, capsys):
    rows = limits.measure(tmp_path)
    with capsys.disabled():
        print(f"\n{'MB/s of a core':44}{'here':>8}{'alone':>8}{'ratio':>7}")
        for row in rows:
            print(f"{row['what']:44}{row['mb_per_s']:8.0f}{row['limit_mb_per_s']:8.0f}{row['ratio']:7.2f}")
    (HERE / "limits.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    found = {row["what"]: row["ratio"] for row in rows}
    assert {what: ratio for what, ratio in found.items() if ratio > MOST.get(what, float("inf"))} == {}
    assert set(MOST) <= set(found)


def machine() -> dict[str, Any]:
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in names if line.startswith("model name")), platform.processor())
    packages = ("numpy", "rasterio", "numcodecs", "zarr", "dask")
    return {
        "cpu": model,
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "gdal": rasterio.__gdal_version__,
        **{name: version(name) for name in packages},
    }
