"""What serves, exports and reports a cube loads no torch, no Ray and no GeoPandas."""

from __future__ import annotations

import subprocess
import sys

#: Imports one module after another and prints, for each, what heavy ones came with it.
CODE = """
import importlib, sys
for name in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module("difffusr.pipeline." + name)
    print(name, *sorted({"torch", "ray", "geopandas"} & set(sys.modules) - before))
"""

MODULES = (
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
)


def test_no_module_loads_torch_or_ray_or_geopandas() -> None:
    ended = subprocess.run([sys.executable, "-c", CODE, *MODULES], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout.split("\n")) == (0, [*MODULES, ""]), ended.stderr
