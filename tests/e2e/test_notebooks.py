"""The notebooks run on a small cube, and what is committed of them is what somebody may see."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from beside import ROOT
from continental import continent_config, publish_continent
from ray import cloudpickle

from difffusr.kernels.bands import BANDS, GROUPS, TARGET_GSD_M
from difffusr.kernels.images import back_project, fill_invalid, sensor_for_group
from difffusr.kernels.networks.fusion import merge_groups
from difffusr.pipeline.chips.batch import Batch
from difffusr.pipeline.chips.resolver import PinnedResolver
from difffusr.pipeline.commands.two_orbits import run_two_orbits
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.cube.published import period_labels
from difffusr.pipeline.run.execution import execute
from difffusr.pipeline.storage.objects import Storage

cloudpickle.register_pickle_by_value(sys.modules[__name__])

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))

#: What a reader needs for the first notebook, and what executes it.
READERS_PACKAGES = ("xarray", "zarr", "matplotlib", "numpy")
EXECUTION = ("nbclient", "ipykernel")

EXECUTE = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


def executed(python: Path | str, name: str, folder: Path, **environment: str | Path) -> dict:
    """A notebook as it is after Python has executed a copy of it in a folder."""
    pytest.importorskip("nbclient", reason="notebooks are executed by nbclient and ipykernel")
    copy = folder / name
    shutil.copy(FOLDER / name, copy)
    told = {key: str(value) for key, value in environment.items()}
    # The kernel is the Python that executes, whatever kernels this machine has installed.
    ended = subprocess.run(
        [python, "-c", EXECUTE, copy], cwd=folder, env={**os.environ, **told}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(copy.read_text())


def printed(notebook: dict) -> str:
    """All that a notebook printed."""
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", []))
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def pictures(notebook: dict) -> int:
    """How many pictures a notebook drew."""
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", []))
    return sum(bool({"image/png", "image/jpeg"} & output.get("data", {}).keys()) for output in outputs)


def test_the_cube_is_read_with_xarray_and_zarr(finished_run, tmp_path):
    notebook = executed(sys.executable, "01-read-the-cube.ipynb", tmp_path, CUBE=finished_run.with_suffix(".zarr"))
    assert "UTM zones: [32632]" in printed(notebook)
    assert pictures(notebook) == 4


def test_a_cube_in_degrees_is_read_the_same_way(finished_run, tmp_path):
    source, cube = finished_run.with_suffix(".zarr"), tmp_path / "degrees.zarr"
    (label,) = period_labels(Storage(str(source)))
    sizes = {"shard_px": 512, "chunk_px": 256}
    publish_continent(continent_config(str(source), str(cube), "EPSG:4326", period=label, **sizes))
    notebook = executed(sys.executable, "01-read-the-cube.ipynb", tmp_path, CUBE=cube)
    assert "one CRS: [4326]" in printed(notebook)
    assert pictures(notebook) == 4


@pytest.mark.slow
def test_the_cube_is_read_where_nothing_else_is_installed(finished_run, tmp_path):
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *READERS_PACKAGES, *EXECUTION],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    if installed.returncode:
        pytest.skip(f"no package index can be reached: {installed.stderr.strip().splitlines()[-1]}")
    nothing = subprocess.run(
        [python, "-c", "import pipeline"], cwd=tmp_path, env={"PYTHONPATH": ""}, capture_output=True
    )
    assert nothing.returncode != 0
    cube = finished_run.with_suffix(".zarr")
    assert pictures(executed(python, "01-read-the-cube.ipynb", tmp_path, CUBE=cube, PYTHONPATH="")) == 4


@pytest.mark.slow
def test_a_network_learns_from_the_cube(finished_run, world, tmp_path):
    cube, places = finished_run.with_suffix(".zarr"), world.landcover.parent
    notebook = executed(sys.executable, "02-train-on-it.ipynb", tmp_path, CUBE=cube, WORLD=places, STEPS="8")
    said = printed(notebook)
    accuracy = re.search(r"accuracy +([\d.]+)% +([\d.]+)%", said)
    assert accuracy is not None, said
    assert "patches/s" in said
    assert pictures(notebook) == 1


def test_the_cube_is_sharper_than_its_input_and_true_to_it(finished_run, world, tmp_path):
    cube, places = finished_run.with_suffix(".zarr"), world.landcover.parent
    notebook = executed(sys.executable, "03-compare-10m-2.5m.ipynb", tmp_path, CUBE=cube, WORLD=places)
    said = printed(notebook)
    residuals = [float(value) for value in re.findall(r"^B\w\w \(\d+ m\) +([\d.]+)", said.replace("( ", "("), re.M)]
    assert len(residuals) == 12
    assert max(residuals) < 0.005
    bicubic, fine = map(
        float, re.findall(r"SAM, .*?([\d.]+)°", said.replace("2.5 m, DiffFuSR", "").replace("10 m, ", ""))
    )
    assert fine < bicubic
    assert pictures(notebook) == 4


@pytest.mark.slow
def test_a_run_is_launched_and_carried_on(world, tmp_path):
    places = world.landcover.parent
    cube = tmp_path / "monthly" / "cube.zarr"
    notebook = executed(sys.executable, "04-launch-and-monitor.ipynb", tmp_path, CUBE=cube, WORLD=places)
    said = printed(notebook)
    assert said.count("ended with exit code 0") == 2
    assert "2023-06" in said
    assert "2023-07" in said
    assert pictures(notebook) == 1


class WithoutNetworks(PinnedResolver):
    """Enlarges bicubically and projects on the measurement: brightness is what is looked at."""

    def _load(self, config: RunConfig) -> Any:
        return None

    def super_resolve(self, batch: Batch, chosen: list[int]) -> dict[str, np.ndarray]:
        groups = {}
        for gsd in GROUPS:
            measured = torch.from_numpy(batch[f"dn{gsd}"][chosen].astype(np.float32) / 1e4)
            valid = torch.from_numpy(batch[f"valid{gsd}"][chosen])[:, None]
            fine = F.interpolate(fill_invalid(measured, valid), scale_factor=gsd / TARGET_GSD_M, mode="bicubic")
            groups[gsd] = back_project(fine, measured, valid, sensor_for_group(gsd, measured.shape[-1]))
        return {"dn": (merge_groups(groups) * 1e4).round().clamp(1, 65535).numpy().astype(np.uint16)}


def demonstrated(difffusr: Callable[..., Any], folder: Path) -> tuple[str, dict[tuple[str, str], tuple[float, float]]]:
    """What `demo --two-orbits` prints, and its table: without balance and with it, by what is measured and band."""
    ended = difffusr("demo", "--two-orbits", "-o", folder)
    assert ended.code == 0, ended.err
    rows = re.findall(r"(difference to the truth|ratio across borders), (B\d\d) +│ +([\d.]+) │ +([\d.]+)", ended.out)
    gained = {(what, band): (float(none), float(full)) for what, band, none, full in rows}
    assert len(gained) == 6, ended.out
    return ended.out, gained


@pytest.mark.slow  # that balance evens a mosaic: test_balanced_run
def test_a_mosaic_of_two_orbits_is_even_once_it_is_balanced(difffusr, tmp_path, monkeypatch):
    monkeypatch.setattr("difffusr.pipeline.commands.two_orbits.execute", partial(execute, resolver=WithoutNetworks))
    smaller = partial(run_two_orbits, size_m=(2400, 3660))
    monkeypatch.setattr("difffusr.pipeline.commands.two_orbits.run_two_orbits", smaller)
    said, gained = demonstrated(difffusr, tmp_path)
    for band, times in (("B02", 3), ("B04", 3), ("B08", 4)):
        none, full = gained["difference to the truth", band]
        assert none > times * full > 0, band
    assert gained["ratio across borders", "B02"][0] > 4
    assert all(full < 1.15 for (what, _), (_, full) in gained.items() if what == "ratio across borders")
    apart = re.search(r"scenes differ by ([\d.]+) .* by ([\d.]+) after", said)
    assert apart is not None
    assert float(apart[1]) > 3 * float(apart[2]) > 0


@pytest.mark.slow  # that balance does its work is shown above
def test_the_notebook_of_the_mosaic_measures_for_itself_and_finds_what_was_told(difffusr, tmp_path):
    _, gained = demonstrated(difffusr, tmp_path)
    said = printed(
        notebook := executed(sys.executable, "05-one-mosaic.ipynb", tmp_path, TWO_ORBITS=tmp_path / "two-orbits")
    )
    assert re.findall(r"^(clean|not clean)\nexit code (\d)", said, re.M) == [("not clean", "1"), ("clean", "0")]
    assert "2 scenes of 10 hazy, 0 of them used" in said
    for what, values in gained.items():
        cells = next(line.split() for line in said.splitlines() if re.match(rf"{what[1]}( +[\d.]+){{6}}$", line))
        told = cells[1:3] if what[0].endswith("truth") else cells[5:7]
        assert [float(value) for value in told] == pytest.approx(values, rel=0.15), what
    assert pictures(notebook) == 7


@pytest.mark.slow
def test_an_area_read_from_zones_is_as_from_the_cube_of_one_crs(difffusr, tmp_path, monkeypatch):
    monkeypatch.setattr("difffusr.pipeline.commands.two_zones.execute", partial(execute, resolver=WithoutNetworks))
    ended = difffusr("demo", "--two-zones", "-o", tmp_path)
    assert ended.code == 0, ended.err
    told = {band: float(ratio) for band, ratio in re.findall(r"(B\d\d) +│ +[\d.]+ │ +([\d.]+)", ended.out)}
    assert told.keys() == {"B02", "B04", "B08"}
    assert all(ratio == pytest.approx(1, abs=1e-3) for ratio in told.values())
    notebook = executed(sys.executable, "06-across-zones.ipynb", tmp_path, TWO_ZONES=tmp_path / "two-zones")
    said = printed(notebook)
    assert "100.0% of the area is shown by both ways" in said
    apart = {band: abs(float(of)) for band, of in re.findall(r"^(B\w\w) +[\d.]+ +[\d.]+ +([+-][\d.e+-]+)", said, re.M)}
    assert apart.keys() == set(BANDS)
    # Each granule has noise of its own: pixels of 60 m are too few for it to average out to less.
    noise = {"B01": 5e-4, "B09": 5e-4}
    assert {band: value for band, value in apart.items() if value > noise.get(band, 1e-4)} == {}
    rms = [float(line.split()[-1]) for line in said.splitlines() if re.match(r"(more than 1 km|within )", line)]
    assert rms[0] < 0.5 < rms[1] < rms[2]
    assert pictures(notebook) == 3


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_committed_is_small_and_tells_nothing_of_a_machine(name):
    path = FOLDER / name
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert path.stat().st_size < 1_000_000
    assert all(cell["execution_count"] == number for number, cell in enumerate(code, 1)), "executed once, in order"
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"], "warnings are mended, not shown"
    told = "".join("".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs)
    assert not re.search(r"(?<![\w.…])/(?:\w+/)+", told), "a path of a machine"
    assert "\x1b" not in told


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_know_nothing_of_the_software_but_what_reads_for_learning(name):
    source = "\n".join(
        "".join(cell["source"])
        for cell in json.loads((FOLDER / name).read_text())["cells"]
        if cell["cell_type"] == "code"
    )
    known = set(re.findall(r"^\s*(?:from|import) ((?:pipeline|kernels|difffusr)\b\S*)", source, re.M))
    assert known == ({"difffusr.pipeline.readers"} if name == "02-train-on-it.ipynb" else set())
