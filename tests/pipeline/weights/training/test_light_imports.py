"""A machine with torch, NumPy and matplotlib can train: planning, reading and Ray are for those who ask for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import difffusr.pipeline.weights.training as training

#: What a GPU machine may lack, and what takes seconds to import.
HEAVY = (
    "ray", "pystac", "pystac_client", "dask", "odc", "xarray", "zarr", "pydantic", "rasterio", "geopandas", "shapely",
    "scipy", "pandas", "fsspec", "yaml", "typer", "tensorboard",
)  # fmt: skip

#: Modules for users of the whole package, and what they alone may import.
ALLOWED = {"launch": HEAVY, "settings": ("pydantic", "yaml")}

MODULES = sorted(path.stem for path in Path(training.__path__[0]).glob("*.py") if path.stem != "__init__")


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """By module, which heavy packages are there once it is imported, each time in a fork of a bare interpreter."""
    asked = f"""
import os, sys
import torch, numpy, matplotlib.figure
for name in {MODULES}:
    if os.fork() == 0:
        __import__("difffusr.pipeline.weights.training." + name)
        os.write(1, (name + " " + " ".join(set({HEAVY}) & set(sys.modules)) + chr(10)).encode())
        os._exit(0)
    os.wait()
"""
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    return {words[0]: set(words[1:]) for words in map(str.split, said.splitlines())}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_training_imports_what_it_computes_with(module: str, loaded: dict[str, set[str]]):
    assert loaded[module] <= set(ALLOWED.get(module, ())), module
