"""What serves, exports and reports a cube loads no torch, no Ray and no GeoPandas."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*sorted({"torch", "ray", "geopandas"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "module",
    [
        "readers.export.tiling",
        "readers.stac.records",
        "readers.verdicts",
        "readers.view.serve",
        "readers.view.server",
        "readers.report.collect",
        "readers.report.page",
        "plan.diff",
        "plan.files",
        "plan.networks",
        "plan.pictures.page",
        "plan.pictures.picture",
        "plan.tables",
    ],
)
def test_module_loads_neither_torch_nor_ray_nor_geopandas(module: str) -> None:
    command = [sys.executable, "-c", CODE, f"difffusr.pipeline.{module}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr
