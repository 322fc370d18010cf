"""The wheel, installed where another distribution brings a top-level package called kernels, plans a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from beside import ROOT

from difffusr.pipeline.scenes.synthetic.world import write_demo_world


def uv(*words: str | Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("uv"), *words], cwd=ROOT, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--out-dir", folder)  # by way of the sdist: what an earlier build left does not count
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_and_every_file_beside_them(wheel):
    tracked = subprocess.run(["git", "ls-files", "kernels", "pipeline"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    wanted = {f"difffusr/{name}" for name in tracked.stdout.split() if (ROOT / name).exists()}
    held = {name for name in ZipFile(wheel).namelist() if name.startswith("difffusr/")}
    assert held == wanted - {"difffusr/pipeline/README.md"}


def test_it_takes_no_name_of_others(wheel):
    tops = {name.split("/")[0] for name in ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"difffusr"}


def test_it_plans_beside_the_other_kernels_without_torch_and_ray(wheel, tmp_path):
    uv("venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt", wheel, "kernels")
    world = write_demo_world(tmp_path / "world", seed=11, size_m=(1200, 1800))
    config = {
        "area": {"bbox": [float(edge) for edge in world.bbox]},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog)},
        "grid": {"chip_px": 96, "overlap_px": 24, "shard_px": 512, "chunk_px": 256},
        "store": {"url": "run.zarr"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    planned = subprocess.run(
        [python.with_name("difffusr"), "plan", "run.yaml", "--map", "plan.png"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    assert (tmp_path / "run.staging/runs/2023-06-01_2023-07-31/plan/chips.parquet").exists()
    assert (tmp_path / "plan.html").exists()
    code = "import kernels, importlib.metadata as m; print(kernels.__file__); print(m.version('kernels'))"
    other = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    assert other.returncode == 0, other.stderr
    missing = subprocess.run(
        [python.with_name("difffusr"), "run", "run.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert missing.returncode == 2
    assert "pip install 'difffusr[run]'" in missing.stderr
