"""A batch drawn as tensors has the distribution of samples drawn one by one: moments, quantiles, spectra, direction."""

from __future__ import annotations

from collections.abc import Callable

import drawn_one_by_one
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from held_image import Held
from likeness import differences
from torch import Tensor
from varied_ground import ground

from difffusr.pipeline.weights.training.degrading import degrade
from difffusr.pipeline.weights.training.draws import Seeds
from difffusr.pipeline.weights.training.imagery import HRImage
from difffusr.pipeline.weights.training.patches import patch_source, with_radiometry
from difffusr.pipeline.weights.training.variation import GroundSource
from difffusr.pipeline.weights.training.wald import STAND_INS, view_of

CPU = torch.device("cpu")

SAMPLES, SIZE, MARGIN = 192, 80, 2


def field(seed: int, display: bool, gap: tuple[slice, slice] | None = None) -> HRImage:
    """Long rectangles with sharp edges, brighter to the right: no turn looks like another."""
    rng = np.random.default_rng(seed)
    pixels = np.full((3, 240, 200), 0.4, np.float32)
    for _ in range(300):
        (row, column), (height, width) = rng.integers(0, 240, 2), rng.integers(4, 40, 2)
        pixels[:, row : row + height, column : column + width // 2] = rng.uniform(0.1, 0.9, (3, 1, 1))
    valid = np.ones(pixels.shape[1:], dtype=bool)
    if gap:
        valid[gap] = False
    return HRImage(str(seed), 2.5, pixels * np.linspace(0.5, 1, 200, dtype=np.float32), valid, display)


@pytest.fixture(scope="module")
def images() -> list[HRImage]:
    return [field(0, True), field(1, False), field(2, True, (slice(100, 140), slice(60, 90)))]


@pytest.fixture(scope="module")
def one_by_one(images: list[HRImage]) -> tuple[Tensor, Tensor]:
    """HR (N, 3, H, W) and LR (N, 3, h, w)."""
    rng = np.random.default_rng(0)
    shares = np.sqrt([image.valid.sum() for image in images])
    pairs = [drawn_one_by_one.pair(images, shares / shares.sum(), SIZE, MARGIN, rng) for _ in range(SAMPLES)]
    return torch.stack([hr[0] for hr, _ in pairs]), torch.stack([lr[0] for _, lr in pairs])


def drawn(images: list[HRImage], memory_gb: float = 1, seed: int = 1) -> tuple[Tensor, Tensor]:
    source = patch_source([Held(image) for image in images], SIZE, CPU, memory_gb)
    seeds = Seeds(seed, 0, 0)
    patches = with_radiometry(*source.draw(seeds, SAMPLES), "mixed", seeds)
    inner = slice(4 * MARGIN, SIZE - 4 * MARGIN)
    return patches[:, 0, :, inner, inner], degrade(patches, seeds.draws(CPU, 0), MARGIN)[:, 0]


def seen(hr: Tensor, lr: Tensor) -> dict[str, Tensor]:
    """What is compared of pairs: both images, and what the coarse one has beside the mean of the fine one."""
    return {"HR": hr, "LR": lr, "residual": lr - F.avg_pool2d(hr, 4)}


@pytest.mark.parametrize(
    ("memory_gb", "seed"), [(1, 1), (1, 2), (1e-9, 3)], ids=["on the device", "again", "from files"]
)
def test_pairs_are_those_drawn_one_by_one(images, one_by_one, memory_gb: float, seed: int):
    ours, theirs = seen(*drawn(images, memory_gb, seed)), seen(*one_by_one)
    for what in ours:
        assert ours[what].shape == theirs[what].shape
        assert differences(ours[what], theirs[what]) == {}, what


@pytest.mark.parametrize(
    "changed",
    [
        lambda hr, lr: (hr * 1.5, lr * 1.5),
        lambda hr, lr: (hr.sort(3).values, lr.sort(3).values),
        lambda hr, lr: ((hr + hr.roll(1, 3)) / 2, lr),
        lambda hr, lr: (hr, lr + 0.004 * torch.randn(lr.shape, generator=torch.Generator().manual_seed(0))),
        lambda hr, lr: (hr, (lr + lr.roll(1, 3)) / 2),
        lambda hr, lr: (hr, lr + 0.02),
    ],
    ids=["brighter", "one way round", "softer", "noisier", "blurred", "offset"],
)
def test_what_differs_is_seen(one_by_one, changed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]):
    one, other = (tuple(x[start::2] for x in one_by_one) for start in (0, 1))
    ours, theirs = seen(*changed(*one)), seen(*other)
    assert any(differences(ours[what], theirs[what]) for what in ours)


@pytest.fixture(scope="module", params=[(10, 48), (20, 48), (60, 72)], ids=["10 m", "20 m", "60 m"])
def views(request: pytest.FixtureRequest) -> tuple[int, int, list]:
    gsd, size = request.param
    of, names, _ = STAND_INS[gsd][-1]
    return gsd, size, [view_of(ground(seed), gsd, of, names) for seed in range(3)]


def compared(guide: Tensor, measured: Tensor, others: dict[int, Tensor], truth: Tensor) -> dict[str, Tensor]:
    """What is compared of squares: all images, what they are beside the guide, and what the coarse ones miss."""
    brightness = guide.mean((1, 2, 3), keepdim=True)
    factor = truth.shape[-1] // measured.shape[-1]
    return {
        "guide": guide,
        "measured": measured,
        "spectrum": truth / brightness,
        "residual": measured - F.avg_pool2d(truth, factor),
        **{f"finer {g}": x / brightness for g, x in others.items()},
    }


@pytest.mark.parametrize("wide", [False, True], ids=["plain", "wide"])
def test_squares_of_scenes_are_those_drawn_one_by_one(views, wide: bool):
    gsd, size, of = views
    rng = np.random.default_rng(0)
    each = [drawn_one_by_one.square([v.bands for v in of], gsd, size, wide, rng) for _ in range(SAMPLES)]
    others = {g: torch.stack([one[2][g] for one in each]) for g in each[0][2]}
    guide, measured, truth = (torch.stack([one[i] for one in each]) for i in (0, 1, 3))
    theirs = compared(guide, measured, others, truth)
    (batch,) = GroundSource.of(gsd, [(view, 1.0) for view in of], size, CPU).draw(Seeds(1, 0, 0), SAMPLES, wide=wide)
    ours = compared(batch.guide, batch.measured, batch.others, batch.truth)
    assert ours.keys() == theirs.keys()
    for what in ours:
        assert differences(ours[what], theirs[what]) == {}, what


def test_plain_and_wide_squares_differ(views):
    gsd, size, of = views
    source = GroundSource.of(gsd, [(view, 1.0) for view in of], size, CPU)
    (plain,), (wide,) = (source.draw(Seeds(1, 0, 0), SAMPLES, wide=wide) for wide in (False, True))
    one, other = (compared(batch.guide, batch.measured, batch.others, batch.truth) for batch in (plain, wide))
    assert differences(one["spectrum"], other["spectrum"])
