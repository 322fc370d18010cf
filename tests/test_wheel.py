"""The wheel, installed where another distribution brings a top-level package called kernels, plans a run."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import yaml
from beside import ROOT
from PIL import Image
from random_cubes import random_cube, window_around

from difffusr.pipeline.scenes.synthetic.world import write_demo_world
from difffusr.pipeline.storage.objects import Storage


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


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel, without extras, and the other kernels."""
    home = tmp_path_factory.mktemp("venv")
    uv("venv", "--quiet", "--python", sys.executable, home / "venv")
    python = home / "venv" / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt", wheel, "kernels")
    return python


def test_it_plans_beside_the_other_kernels_without_torch_and_ray(python, tmp_path):
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


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two zones on both sides of 12° E."""
    storage = Storage(str(tmp_path_factory.mktemp("cube") / "cube.zarr"))
    random_cube(storage, {zone: window_around(zone, 12.0, 48.0, (5, 7)) for zone in (32632, 32633)}, months=(1,))
    return storage.url


def script(python: Path, name: str, folder: Path, **environment: str) -> str:
    """What one of the scripts prints."""
    ended = subprocess.run(
        [python, ROOT / "notebooks" / name],
        cwd=folder, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_ten_lines_sample_and_mosaic_across_a_border_and_draw_without_any_extra(python, cube, tmp_path):
    said = script(python, "read_in_ten_lines.py", tmp_path, CUBE=cube)
    assert re.search(r"NDVI of 1000 of 1000 points -?0\.\d{3}", said), said
    assert "pixels of ETRS89-extended / LAEA Europe" in said
    pixels = np.asarray(Image.open(tmp_path / "across-zones.png"))
    assert (pixels[..., 3] == 255).mean() > 0.9
    assert pixels[..., :3].std() > 20


def test_ten_lines_learn_from_patches_with_torch_added(python, cube, tmp_path):
    # As `pip install torch` would add it, which would fetch 200 MB.
    (tmp_path / "torch").mkdir()
    for name in ("torch", "torchgen", "functorch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock"):
        (found,) = find_spec(name).submodule_search_locations  # type: ignore[union-attr, misc]
        (tmp_path / "torch" / name).symlink_to(found)
    said = script(python, "train_in_ten_lines.py", tmp_path, CUBE=cube, PYTHONPATH=str(tmp_path / "torch"))
    first, last = map(float, re.findall(r"(\d\.\d{3})", said))
    assert last < first
    assert "after 32 batches of 8" in said
    without = subprocess.run(
        [python, "-c", "from difffusr.pipeline.readers import CubePatches"], capture_output=True, text=True, timeout=60
    )
    assert "CubePatches needs PyTorch: pip install torch" in without.stderr
