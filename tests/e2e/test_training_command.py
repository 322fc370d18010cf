"""`difffusr train`: on real Ray Train workers, through kills and interruptions, and what it says when it cannot."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from beside import ROOT, SHARED
from tiny_training import TINY

from difffusr.kernels.networks.fusion.build import fusion_from_weights
from difffusr.kernels.networks.stage1 import Stage1
from difffusr.kernels.weights.checkpoints import load_weights
from difffusr.pipeline.weights.training import launch
from difffusr.pipeline.weights.training.scenes import load_scenes
from difffusr.pipeline.weights.training.settings import SceneSource

SHARED_DATA = SHARED / "data"
EXAMPLES = ROOT / "pipeline" / "config" / "examples"

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

STEPS = 12


def write_fields(path: Path, seed: int) -> None:
    """An aerial picture of fields, 160 × 160 pixels."""
    rng = np.random.default_rng(seed)
    pixels = np.full((3, 160, 160), 100, np.uint8)
    for _ in range(80):
        row, col, height, width = rng.integers(0, 160, 4)
        pixels[:, row : row + height // 4 + 4, col : col + width // 4 + 4] = rng.integers(50, 220, (3, 1, 1))
    with rasterio.open(path, "w", driver="GTiff", width=160, height=160, count=3, dtype="uint8") as file:
        file.write(pixels)


@pytest.fixture
def describe(tmp_path):
    """A configuration of a tiny training on three made-up pictures; keys can be replaced."""
    (tmp_path / "hr").mkdir()
    for seed in range(3):
        write_fields(tmp_path / "hr" / f"fields-{seed}.tif", seed)

    def write(name: str = "train", **changes: Any) -> Path:
        content = {
            "out": name,
            "data": [{"path": "hr", "gsd_m": 2.5, "held_out_every": 3}],
            "network": TINY,
            "steps": STEPS,
            "batch": 2,
            "lr_px": 16,
            "warm_up": 2,
            "checkpoint_every": 4,
            "samples_every": 100,
            "validation_px": 64,
            **changes,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write


def losses_of(out: Path) -> list[list[str]]:
    """The table of losses without its last column, the seconds."""
    with (out / "losses.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


def start(config: Path, after_step: int) -> subprocess.Popen[str]:
    """The command in a session of its own, once it has done so many steps."""
    command = [
        sys.executable,
        "-c",
        "from difffusr.pipeline.commands.cli import main; main()",
        "train",
        "sr",
        str(config),
    ]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    table = config.with_suffix("") / "losses.csv"
    until = time.monotonic() + 600
    while not table.exists() or len(table.read_text().splitlines()) <= after_step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "not so many steps were done in ten minutes"
        time.sleep(0.02)
    return process


@pytest.mark.slow
def test_a_killed_training_goes_on_with_the_same_losses(difffusr, describe):
    undisturbed = describe("undisturbed", validate_every=3)
    ended = difffusr("train", "sr", undisturbed)
    assert ended.code == 0, ended.err
    out = undisturbed.with_suffix("")
    assert f"{STEPS} steps" in ended.out
    assert str(out / "stage1.safetensors") in ended.out
    Stage1.from_weights(load_weights(out / "stage1.safetensors"))

    killed = describe("killed", validate_every=3)
    process = start(killed, after_step=6)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(losses_of(killed.with_suffix(""))) < STEPS + 1, "killed too late to show anything"
    ended = difffusr("train", "sr", killed)
    assert ended.code == 0, ended.err
    assert losses_of(killed.with_suffix("")) == losses_of(out)
    assert (killed.with_suffix("") / "validation.csv").read_bytes() == (out / "validation.csv").read_bytes()


@pytest.mark.slow  # what each worker does is tested with one; the slow tests below have two, also when one is lost
def test_two_workers_train_together(difffusr, describe):
    config = describe("two", workers={"count": 2}, steps=3)
    ended = difffusr("train", "sr", config)
    assert ended.code == 0, ended.err
    assert [row[0] for row in losses_of(config.with_suffix(""))] == ["step", "1", "2", "3"]


@pytest.mark.slow
def test_a_lost_worker_is_started_again_and_changes_no_loss(difffusr, describe):
    undisturbed, disturbed = (describe(name, workers={"count": 2}, steps=30) for name in ("undisturbed", "disturbed"))
    assert difffusr("train", "sr", undisturbed).code == 0
    out = disturbed.with_suffix("")
    killed: list[int] = []

    def kill_the_first_worker() -> None:
        while not (out / "losses.csv").exists() or len(losses_of(out)) < 8:
            time.sleep(0.02)
        killed.append(int((out / ".lock").read_text()))
        os.kill(killed[0], signal.SIGKILL)

    assassin = threading.Thread(target=kill_the_first_worker, daemon=True)
    assassin.start()
    ended = difffusr("train", "sr", disturbed)
    assert ended.code == 0, ended.err
    assert int((out / ".lock").read_text()) != killed[0], "nobody was killed"
    assert losses_of(out) == losses_of(undisturbed.with_suffix(""))


@pytest.mark.slow
def test_ctrl_c_ends_in_one_line_and_can_be_continued(describe):
    config = describe("stopped", steps=400)
    process = start(config, after_step=5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    done = len(losses_of(config.with_suffix(""))) - 1
    assert f"stopped at step {done}; run the same command to continue" in err
    assert (config.with_suffix("") / "checkpoint" / "state.pt").exists()


@pytest.mark.slow
def test_a_diverging_training_says_so(difffusr, describe):
    ended = difffusr("train", "sr", describe("wild", rate=1e30, clip=1e30, warm_up=1))
    assert ended.code == 1
    assert "the loss is not a number any more" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("example", ["train-fusion-small.yaml"])
def test_the_fusion_trains_on_real_scenes(difffusr, tmp_path, example):
    if not SHARED_DATA.exists():
        pytest.skip(f"no scenes at {SHARED_DATA}")
    config = tmp_path / "fusion.yaml"
    content = yaml.safe_load((EXAMPLES / example).read_text())
    config.write_text(yaml.safe_dump(content | {"batch": 1, "truth_px": 48, "workers": {"cpus": 1}}))
    ended = difffusr("train", "fusion", config, "--data", SHARED_DATA, "--out", tmp_path / "f", "--steps", 3)
    assert ended.code == 0, ended.err
    weights = load_weights(tmp_path / "f" / "fusion.safetensors")
    assert weights.metadata["steps"] == "3"
    fusion_from_weights(weights)


def test_the_fusion_learns_from_the_chips_of_a_run(configure):
    sources = [SceneSource(run=str(configure(grid={"chip_px": 48, "overlap_px": 12})), chips=6, held_out_every=2)]
    training, held_out = load_scenes(sources, Path.cwd())
    assert training
    assert held_out
    for scene in (*training, *held_out):
        assert {len(scene.bands[band]) for band in ("B02", "B05", "B09")} == {48, 24, 8}
        assert all(0 < float(values.mean()) < 1 for values in scene.bands.values()), "reflectance"


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"degredation": "mixed"}, 2, "degredation: unknown key, did you mean 'degradation'?"),
        ({"out": None}, 2, "out: missing, expected the folder of the training"),
        ({"data": [{"path": "nowhere", "gsd_m": 2.5}]}, 2, "nowhere: no such folder"),
        ({"data": [{"path": ".", "gsd_m": 2.5}]}, 2, "no images there"),
        ({"data": [{"path": "hr", "gsd_m": 2.5, "rgb": [1, 2, 4]}]}, 2, "3 band(s), expected at least 4"),
        ({"workers": {"count": 64}}, 2, "workers.cpus: 64 × 1 CPU asked for, this machine has"),
        ({"workers": {"gpu": True}}, 2, "workers.gpu: 1 × 1 GPU asked for, this machine has 0"),
        ({"start": "none.ckpt"}, 1, "none.ckpt: cannot be read"),
        ({"out": "s3://bucket/run"}, 2, "expected a folder that every worker sees"),
    ],
)
def test_what_cannot_be_trained_is_named_in_one_line(difffusr, describe, changes, code, said):
    ended = difffusr("train", "sr", describe(**changes))
    assert (ended.code, ended.err.count("error:"), "Traceback" in ended.err) == (code, 1, False), ended.err
    assert said in ended.err


def test_a_missing_extra_is_named(difffusr, describe, monkeypatch):
    monkeypatch.setattr(launch, "_EXTRA", ("matplotlib", "no_such_module"))
    ended = difffusr("train", "sr", describe())
    assert ended.code == 2
    assert "error: train needs the package no_such_module: pip install 'difffusr[train]'" in ended.err
