"""The machine: what it is, and the peaks that shares are shares of."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import machine as described
import model_speed
import torch

from gpu.parts import NotHereError, Row, Setting

#: Sides of matrices, and megabytes that are copied, of a dry run.
_DRY_SIDES, _DRY_MB = (64,), 1


def rows(setting: Setting) -> Iterator[Row]:
    """The machine's facts, then TFLOP/s by precision, then copied TB/s."""
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise NotHereError(f"torch {torch.__version__} sees no GPU; --dry-run tries the script on the CPU")
    model_speed.exact()
    yield from ({"what": name.replace("_", " "), "value": value} for name, value in facts().items())
    device = torch.device(setting.device)
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        peak = model_speed.matrix_peak(dtype, device, _DRY_SIDES if setting.dry else ())
        yield {"what": f"peak of {name} products, TFLOP/s", "value": peak / 1e12}
    rate = model_speed.copy_rate(device, _DRY_MB if setting.dry else 2000)
    yield {"what": "copy within the device, TB/s", "value": rate / 1e12}


def peak(setting: Setting, precision: str) -> float:
    """FLOP/s, as the first part has found it; measured again where it has not."""
    for row in setting.found.get("machine", []):
        if row["what"] == f"peak of {precision} products, TFLOP/s":
            return float(row["value"]) * 1e12
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]
    return model_speed.matrix_peak(dtype, torch.device(setting.device), _DRY_SIDES if setting.dry else ())


def facts() -> dict[str, Any]:
    """Name, number, memory and driver of the GPU, versions, cores."""
    found = described.machine()
    if torch.cuda.is_available():
        found["gpus"] = torch.cuda.device_count()
        found["driver"] = driver() or "unknown: no nvidia-smi"
    for package in ("triton", "numpy", "ray"):
        found[package] = _version(package)
    return found


def driver() -> str:
    """The driver's version; empty where nvidia-smi is not there or does not say."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return next((line.strip() for line in said.splitlines() if line.strip()), "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
