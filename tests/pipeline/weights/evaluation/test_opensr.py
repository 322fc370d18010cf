"""opensr-test as an optional extra: what happens without it, and what it says of images known to be good or bad."""

from __future__ import annotations

import importlib
import math
import random
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.pipeline.ground.errors import DifffusrError, WeightsError
from difffusr.pipeline.weights.evaluation import opensr

SHARES = ("hallucination", "omission", "improvement")

with_extra = pytest.mark.skipif(not opensr.available(), reason="the extra is not installed: pip install '.[opensr]'")


@pytest.fixture
def hr() -> Tensor:
    """Fields with edges and texture: reflectance (3, 256, 256)."""
    rng = np.random.default_rng(7)
    fields = np.kron(rng.uniform(0.05, 0.3, (3, 16, 16)), np.ones((16, 16)))
    return torch.from_numpy(fields + rng.normal(0, 0.01, fields.shape)).float().clamp(0, 1)


@pytest.fixture
def lr(hr: Tensor) -> Tensor:
    return F.avg_pool2d(hr, 4)


def bicubic(lr: Tensor) -> Tensor:
    return F.interpolate(lr[None], scale_factor=4, mode="bicubic")[0]


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An AlexNet that nobody trained in place of the one to fetch: distances are 0 for equal images only."""
    opensr._import("lpips")
    models = importlib.import_module("torchvision.models")
    alexnet = models.alexnet

    def seeded(pretrained: bool) -> torch.nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network: torch.nn.Module = alexnet(weights=None)
            return network

    monkeypatch.setattr(models, "alexnet", seeded)
    opensr._lpips_network.cache_clear()
    yield
    opensr._lpips_network.cache_clear()


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, lr: Tensor, hr: Tensor
) -> None:
    monkeypatch.setattr(opensr, "find_spec", lambda name: None)
    opensr._lpips_network.cache_clear()
    assert not opensr.available()
    for ask in (opensr.require, lambda: opensr.opensr_scores(lr, hr, hr), lambda: opensr.lpips_distance(hr, hr)):
        with pytest.raises(DifffusrError, match=r"^[^\n]*pip install 'difffusr\[opensr\]'[^\n]*$"):
            ask()


def test_nothing_of_the_extra_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, difffusr.pipeline.weights.evaluation.opensr as opensr; opensr.available(); "
        "print({'opensr_test', 'lpips', 'torchvision', 'open_clip', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_images_that_do_not_fit_are_refused(lr: Tensor, hr: Tensor) -> None:
    with pytest.raises(ValueError, match="4h, 4w"):
        opensr.opensr_scores(lr, lr, hr)
    with pytest.raises(ValueError, match="at least 48 px"):
        opensr.opensr_scores(lr[:, :8, :8], hr[:, :32, :32], hr[:, :32, :32])
    with pytest.raises(ValueError, match="square"):
        opensr.opensr_scores(lr[:, :32], hr[:, :128], hr[:, :128], distance="lpips")
    with pytest.raises(ValueError, match="one shape"):
        opensr.lpips_distance(lr, hr)


@pytest.mark.parametrize(("side", "border"), [(1024, 64), (484, 64), (448, 64), (256, 36), (128, 16), (48, 4)])
def test_the_border_is_the_published_one_or_a_seventh(side: int, border: int) -> None:
    assert opensr.border_px(torch.empty(3, side, 2048)) == border


@with_extra
def test_scores_have_all_keys_and_their_ranges(lr: Tensor, hr: Tensor) -> None:
    scores = opensr.opensr_scores(lr, bicubic(lr), hr)
    assert tuple(scores) == opensr.KEYS
    assert all(math.isfinite(value) and value >= 0 for value in scores.values())
    assert all(scores[key] <= 1 for key in SHARES)
    assert sum(scores[key] for key in SHARES) == pytest.approx(1, abs=1e-5)


@with_extra
def test_the_truth_improves_bicubic_omits_and_noise_hallucinates(lr: Tensor, hr: Tensor) -> None:
    smooth = bicubic(lr)
    noise = 0.05 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    found = {
        name: opensr.opensr_scores(lr, sr, hr) for name, sr in (("hr", hr), ("up", smooth), ("noise", smooth + noise))
    }
    assert found["hr"]["improvement"] > 0.9
    assert max(found, key=lambda name: found[name]["improvement"]) == "hr"
    assert max(found, key=lambda name: found[name]["omission"]) == "up"
    assert max(found, key=lambda name: found[name]["hallucination"]) == "noise"
    assert found["up"]["synthesis"] < found["noise"]["synthesis"]


@with_extra
def test_a_shift_of_four_fine_pixels_is_one_coarse_pixel(lr: Tensor, hr: Tensor) -> None:
    assert opensr.opensr_scores(lr, hr, hr)["spatial"] == pytest.approx(0, abs=0.05)
    assert opensr.opensr_scores(lr, hr.roll(4, 1), hr)["spatial"] == pytest.approx(1, abs=0.1)


@with_extra
def test_a_brightness_error_is_the_reflectance_score(lr: Tensor, hr: Tensor) -> None:
    plain, brighter = (opensr.opensr_scores(lr, hr + offset, hr) for offset in (0.0, 0.1))
    assert brighter["reflectance"] == pytest.approx(0.1, abs=0.02)
    assert brighter["reflectance"] > 5 * plain["reflectance"]
    assert brighter["improvement"] == pytest.approx(plain["improvement"], abs=1e-3), "harmonised before it is judged"


@with_extra
def test_scoring_leaves_the_random_generators_as_they_were(lr: Tensor, hr: Tensor) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(1))  # noqa: NPY002

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    seed()
    undisturbed = draws()
    seed()
    benchmark = torch.backends.cudnn.benchmark
    opensr.opensr_scores(lr, hr, hr)
    assert draws() == undisturbed
    assert torch.backends.cudnn.benchmark == benchmark


@with_extra
@pytest.mark.usefixtures("untrained")
def test_distances_by_patch_go_through_the_network(lr: Tensor, hr: Tensor) -> None:
    """Which network is not tested here: its weights are a download."""
    lr, hr = lr[:, :16, :16], hr[:, :64, :64]
    right, smooth = (opensr.opensr_scores(lr, sr, hr, distance="lpips") for sr in (hr, bicubic(lr)))
    assert all(math.isfinite(value) for value in (right | smooth).values())
    assert right["improvement"] > 0.9 > smooth["improvement"]
    assert opensr.lpips_distance(hr, hr) == 0
    assert opensr.lpips_distance(bicubic(lr), hr) > 0
    assert opensr.lpips_distance(hr[:, :20, :20], hr[:, 20:40, :20]) > 0, "small images are enlarged"


@with_extra
def test_weights_that_cannot_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch, lr: Tensor, hr: Tensor) -> None:
    opensr._import("lpips")

    def offline(pretrained: bool) -> None:
        raise OSError("<urlopen error\nno such host>")

    monkeypatch.setattr("torchvision.models.alexnet", offline)
    opensr._lpips_network.cache_clear()
    for ask in (lambda: opensr.lpips_distance(hr, hr), lambda: opensr.opensr_scores(lr, hr, hr, distance="lpips")):
        with pytest.raises(WeightsError, match=r"^[^\n]*alexnet[^\n]*no such host[^\n]*$"):
            ask()
