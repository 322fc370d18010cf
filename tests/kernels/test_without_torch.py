"""What planning, assembling and reading need of the kernels, they import without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = [
    "",
    ".bands",
    ".images",
    ".images.blending",
    ".images.pyramid",
    ".measures",
    ".networks",
    ".networks.fusion",
    ".sampling",
    ".sampling.settings",
    ".weights",
    ".weights.errors",
    ".weights.packaged",
]


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """By module: the heavy packages that are loaded after importing it and those above it in `LIGHT`."""
    program = f"""
import importlib, sys
for name in {LIGHT!r}:
    importlib.import_module("difffusr.kernels" + name)
    print(name, *({{"torch", "scipy", "fsspec", "pandas"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    return {name: heavy for name, *heavy in lines}


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_loads_no_torch(loaded, module):
    assert loaded[module] == []


def test_all_kernels_need_torch_numpy_and_safetensors_alone():
    program = """
import importlib, pkgutil, sys
from difffusr import kernels
for module in pkgutil.walk_packages(kernels.__path__, "difffusr.kernels."):
    if not module.name.endswith("noise_triton"):
        importlib.import_module(module.name)
foreign = {"fsspec", "scipy", "shapely", "pandas", "pyarrow", "xarray", "zarr", "ray", "rasterio", "pydantic"}
print(sorted(foreign & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr[-2000:]
