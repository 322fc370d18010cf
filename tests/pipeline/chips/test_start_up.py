"""A worker's process imports only what its step needs: more would take longer than reading its first chips."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from ray import cloudpickle

from difffusr.pipeline.chips.reading import read_chips
from difffusr.pipeline.chips.resolver import PinnedResolver
from difffusr.pipeline.chips.resolving import SuperResolve
from difffusr.pipeline.chips.storing import stage_rows
from difffusr.pipeline.chips.table import ChipTable
from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.scenes.item import Asset, Scene
from difffusr.pipeline.storage.objects import Storage

#: What takes a worker longest to import. Ray Data brings pandas and pyarrow by itself.
HEAVY = (
    "torch",
    "rasterio",
    "geopandas",
    "pystac",
    "pystac_client",
    "zarr",
    "dask",
    "xarray",
    "icechunk",
    "odc",
    "ray.data",
)

LOADED = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')); print(*sys.modules)"


def loaded_by(sent: Any, folder: Path) -> set[str]:
    """Which of `HEAVY` a new process has loaded once it has unpickled what is sent to a worker."""
    (folder / "sent").write_bytes(cloudpickle.dumps(sent))
    command = [sys.executable, "-c", LOADED, str(folder / "sent")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return set(HEAVY) & set(ended.stdout.split())


def table() -> ChipTable:
    asset = Asset("/a.tif", 10.0, 0, 0, (10, 10), (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), "GTiff")
    scene = Scene(
        "S2A", "sentinel-2-l2a", dt.datetime(2023, 6, 1, tzinfo=dt.UTC), "32TMT", 32632, "05.09", 0.0, "test",
        shapely.box(8, 47, 9, 48), {"B02": asset}, None, None, None, None, None, None,
    )  # fmt: skip
    one = np.zeros(1, np.int32)
    return ChipTable(one, one, one, one[None], np.zeros((1, 10), np.uint8), (scene,), Grid(), True, ())


def test_a_reader_imports_rasterio_and_nothing_of_models_catalogues_or_cubes(tmp_path):
    assert loaded_by((read_chips, table()), tmp_path) == {"rasterio"}


def test_a_stager_imports_neither_models_nor_rasters(tmp_path):
    assert loaded_by((stage_rows, Storage(str(tmp_path)), ("june", "2024-06")), tmp_path) == set()


def test_an_actor_imports_torch_and_nothing_of_rasters_catalogues_or_cubes(tmp_path, loaded):
    assert loaded_by((PinnedResolver, loaded(), Storage(str(tmp_path))), tmp_path) == {"torch"}


def test_the_class_that_the_driver_sends_imports_nothing_until_it_is_made(tmp_path):
    assert loaded_by(SuperResolve, tmp_path) == set()


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("watch.log", ("ray", "numpy")),
        ("watch.pulse", ("ray", "numpy")),
        ("watch.reasons", ("ray", "numpy")),
        ("watch.progress", ("ray", "numpy")),
        ("engine.pool", ("ray", "numpy")),
        ("engine.session", ("ray", "torch")),
        ("run.cost.estimates", ("ray", "torch")),
        ("run.cost.words", ("ray", "torch")),
        ("run.execution", ("ray.data", "torch")),
        ("run.compute", ("torch",)),
        ("chips.stream", ("torch",)),
        ("plan.decision", ("torch",)),
    ],
)
def test_a_process_imports_only_what_it_uses(module, unneeded):
    code = f"import difffusr.pipeline.{module}, json, sys; print(json.dumps(list(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert not set(unneeded) & set(json.loads(ended.stdout))
