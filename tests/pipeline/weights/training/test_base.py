"""Both networks of `base` are trained within a time, where little but torch is installed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_training import TINY, write_image
from torch import nn

from difffusr.kernels.networks.fusion import FusionConfig, build_fusion, fusion_from_weights
from difffusr.kernels.networks.fusion.frame import BASE as FUSION_BASE
from difffusr.kernels.networks.stage1 import BASE, Stage1
from difffusr.kernels.weights.checkpoints import load_weights
from difffusr.pipeline.weights.training.base import learn, main
from difffusr.pipeline.weights.training.packing import pack
from difffusr.pipeline.weights.training.settings import FusionSettings, SuperResolutionSettings

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

#: What a machine with a GPU lacks.
MISSING = (
    "ray", "pydantic", "rasterio", "zarr", "dask", "pystac", "odc", "xarray", "typer", "yaml", "fsspec", "tensorboard"
)  # fmt: skip

#: Runs the script as if those were not installed.
SCRIPT = f"""
import sys
sys.modules.update(dict.fromkeys({MISSING}))
from difffusr.pipeline.weights.training.base import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def packed(tmp_path: Path, scenes: Path) -> Path:
    for name in ("north", "south", "west"):
        write_image(tmp_path / "hr" / f"{name}.png")
    given = {"out": str(tmp_path), "root": str(tmp_path), "batch": 2, "warm_up": 2}
    images = [{"path": "hr", "gsd_m": 2.5, "held_out": ["west*"]}]
    sizes = TINY | {"diffusion": {"prediction": "v", "residual": 1.0, "clip": 6.0}}
    stage1 = given | {"data": images, "network": sizes, "lr_px": 16, "validation_px": 64}
    network = {"generation": "corrected", "channels": 8, "blocks": 1, "growth": 4}
    fusion = given | {"data": [{"path": str(scenes), "held_out": ["three"]}], "network": network, "truth_px": 48}
    pack(
        SuperResolutionSettings.model_validate(stage1),
        FusionSettings.model_validate(fusion | {"variation": "wide"}),
        tmp_path / "base.zip",
    )
    return tmp_path / "base.zip"


def test_a_few_seconds_leave_weights_tables_curves_and_a_sheet(packed: Path, tmp_path: Path):
    out = tmp_path / "made"
    asked = [sys.executable, "-c", SCRIPT, "--data", packed, "--out", out, "--minutes", "0.05", "--device", "cpu"]
    done = subprocess.run(list(map(str, asked)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {
        "stage1.safetensors", "stage1-losses.csv", "stage1.png",
        "fusion.safetensors", "fusion-losses.csv", "fusion.png", "sheet.png", "made.json",
    }  # fmt: skip
    assert max(path.stat().st_size for path in out.iterdir()) < 16 * 2**20
    assert Stage1.from_weights(load_weights(out / "stage1.safetensors")).config.rrdb.channels == 8
    assert fusion_from_weights(load_weights(out / "fusion.safetensors")).passes_rgb
    made = json.loads((out / "made.json").read_text())
    for name in ("stage1", "fusion"):
        with (out / f"{name}-losses.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == made[name]["steps"] >= 1
        assert made[name]["held_out"]
        assert Image.open(out / f"{name}.png").size[0] > 100


class Ticking:
    """A clock whose steps take as long as they are said to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


class Counted:
    """A `loop.Task` that learns nothing, and knows how long everything takes."""

    name, terms, decibels, betas, waits = "stage1", ("all",), (), (0.9, 0.99), False

    def __init__(self, clock: Ticking, step_s: float, look_s: float) -> None:
        self.clock, self.step_s, self.look_s, self.looks = clock, step_s, look_s, 0

    def build(self) -> None:
        self.learning, self.average = Slope(), Slope()
        self.clock.now += 1

    def groups(self):
        return [{"params": list(self.learning.parameters())}]

    def batch(self, step: int, rank: int) -> None:
        self.clock.now += self.step_s

    def losses(self, batch: None):
        loss = (self.learning.weight**2).sum()
        return {"total": loss, "all": loss}

    def settle(self) -> None: ...

    def weights(self):
        return self.learning.state_dict()

    def validate(self, thorough: bool, /):
        self.looks += 1
        self.clock.now += self.look_s
        return {"set": {"bicubic": 1.0}}

    def samples(self):
        return []

    def facts(self):
        return {"config": "{}"}


@pytest.mark.parametrize(
    ("step_s", "look_s", "ends"),
    [(0.25, 2, (60, 61)), (0.5, 0, (60, 61)), (3, 5, (60, 64)), (40, 1, (60, 101)), (1, 30, (110, 125))],
)
def test_the_rate_follows_the_time_whatever_the_speed(tmp_path: Path, step_s: float, look_s: float, ends):
    clock = Ticking()
    task, settings = Counted(clock, step_s, look_s), FusionSettings.model_construct(rate=1.0, warm_up=5, clip=1.0)
    learned = learn(task, settings, 60.0, torch.device("cpu"), tmp_path, clock=clock)
    assert ends[0] <= clock.now <= ends[1]
    with (tmp_path / "losses.csv").open(newline="") as file:
        rates = [float(row["rate"]) for row in csv.DictReader(file)]
    assert len(rates) == learned.steps
    if learned.steps > 10:
        assert max(rates) > 0.8
        assert rates[-1] < 0.1
        assert rates.index(max(rates)) <= 6
        assert task.looks == 3
    assert (tmp_path / "stage1.safetensors").exists()


@pytest.mark.parametrize("asked", [["--minutes", "0"], ["--minutes", "-1"], ["--share", "1"], ["--share", "0"]])
def test_impossible_times_are_refused(tmp_path: Path, asked: list[str], capsys):
    with pytest.raises(SystemExit) as exit_code:
        main(["--data", str(tmp_path / "none.zip"), "--out", str(tmp_path), *asked])
    assert exit_code.value.code == 2


def test_a_missing_pack_is_named(tmp_path: Path, capsys):
    assert main(["--data", str(tmp_path / "none.zip"), "--out", str(tmp_path)]) == 2
    assert "none.zip: is no pack" in capsys.readouterr().err


def test_base_is_of_the_size_that_ships():
    with torch.device("meta"):
        stage1, fusion = Stage1(BASE), build_fusion(FUSION_BASE)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (stage1, fusion)]
    assert 6e6 < sizes[0] < 8e6
    assert 2 * sum(sizes) < 16e6, "bytes in half precision"


@pytest.mark.parametrize("gsd", [10, 20, 60])
def test_branches_in_bfloat16_give_nearly_the_same_image_and_learn(gsd: int):
    from difffusr.pipeline.weights.training.fusion import convolve_in_bfloat16

    torch.manual_seed(gsd)
    network = build_fusion(FusionConfig("corrected", 8, 1, 4))
    for branch in (network.branch(g) for g in (10, 20, 60)):
        nn.init.normal_(branch.last.weight, std=0.2)
    given = {10: torch.rand(1, 4, 48, 48), 20: torch.rand(1, 6, 24, 24), 60: torch.rand(1, 2, 8, 8)}
    guide = torch.rand(1, 3, 192, 192)
    exact = network(given, guide)[gsd]
    convolve_in_bfloat16(network, torch.device("cpu"))
    lowered = network(given, guide)[gsd]
    assert lowered.dtype == torch.float32
    assert 0 < (lowered - exact).abs().max() < 0.1
    lowered.square().mean().backward()
    assert network.branch(gsd).fine.weight.grad.abs().max() > 0
