"""The training of the fusion network: Sentinel-2 made coarser, so that its own bands are the truth."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.learning import fuse, fusion_loss, start_as_injection
from difffusr.kernels.networks.fusion import FusionNetwork, build_fusion
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.weights.training.samples import Sample
from difffusr.pipeline.weights.training.scenes import load_scenes
from difffusr.pipeline.weights.training.validation import evaluate_fusion
from difffusr.pipeline.weights.training.wald import STAND_INS, View, WaldSample, random_square, squares, view_of

if TYPE_CHECKING:
    from difffusr.pipeline.weights.training.settings import FusionSettings

#: By native GSD in metres, the samples of a step, on the CPU.
Batch = dict[int, list[WaldSample]]


@dataclass
class FusionTask:
    """`loop.Task` for the fusion network; `learning` and `average` as there."""

    settings: FusionSettings
    device: torch.device
    name: str = "fusion"
    terms: tuple[str, ...] = tuple(f"{gsd} m" for gsd in GROUPS)
    decibels: tuple[str, ...] = ()
    betas: tuple[float, float] = (0.9, 0.99)
    learning: FusionNetwork = field(init=False)
    average: FusionNetwork = field(init=False)

    def build(self) -> None:
        """Make the network, the same for the same seed, and read the scenes.

        Raises ConfigError if no scene is large enough for a group.
        """
        settings = self.settings
        scenes, self._held_out = load_scenes(settings.data, Path(settings.root))
        self._views: dict[int, tuple[list[View], NDArray[np.float64]]] = {}
        for gsd, kinds in STAND_INS.items():
            drawn = [(view_of(s, gsd, of, names), weight) for s in scenes for of, names, weight in kinds]
            usable = [(view, weight * view.size[0] * view.size[1]) for view, weight in drawn if view.enough]
            if not usable:
                raise ConfigError(f"data: no scene is large enough for the {gsd} m bands (3 coarse pixels a side)")
            share = np.sqrt([size for _, size in usable])
            self._views[gsd] = [view for view, _ in usable], share / share.sum()
        torch.manual_seed(settings.seed)
        network = build_fusion(settings.network)
        if settings.network.generation == "v2":
            start_as_injection(network)
        self.learning = network.to(self.device).train()
        self.average = copy.deepcopy(network).requires_grad_(False).eval()

    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the optimiser."""
        return [{"params": list(self.learning.parameters())}]

    def batch(self, step: int, rank: int) -> Batch:
        """What a worker learns from in a step; depends only on seed, step and rank."""
        settings = self.settings
        rng = np.random.default_rng((settings.seed, step, rank))

        def sample(gsd: int) -> WaldSample:
            views, share = self._views[gsd]
            size = settings.truth_px if gsd < 60 else settings.truth_px * 3 // 2  # coarse pixels are six times as large
            return random_square(views[rng.choice(len(views), p=share)], size, rng, wide=settings.variation == "wide")

        return {gsd: [sample(gsd) for _ in range(settings.batch)] for gsd in GROUPS}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of each group, and their sum "total". Samples of one size go through the network together."""
        settings = self.settings
        whole = torch.autocast(self.device.type, torch.bfloat16) if settings.precision == "bfloat16" else nullcontext()
        terms: dict[str, Tensor] = {}
        with whole:
            for gsd, samples in batch.items():
                loss = torch.zeros((), device=self.device)
                for alike in _by_shape(samples):
                    guide, measured, truth, others = self._stacked(alike)
                    published = settings.loss == "published"
                    one = fusion_loss(self.learning, gsd, guide, measured, truth, others, published=published)
                    loss = loss + one * len(alike) / len(samples)
                terms[f"{gsd} m"] = loss
        return {"total": sum(terms.values(), torch.zeros((), device=self.device)), **terms}

    def _stacked(self, samples: Sequence[WaldSample]) -> tuple[Tensor, Tensor, Tensor, dict[int, Tensor]]:
        def of(parts: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(parts)).to(self.device)

        others = {g: of([sample.others[g] for sample in samples]) for g in samples[0].others}
        return of([s.guide for s in samples]), of([s.measured for s in samples]), of([s.truth for s in samples]), others

    def settle(self) -> None:
        """Nothing is asked of the weights."""

    def weights(self) -> Mapping[str, Tensor]:
        """The learning weights under the names of `average`."""
        return self.learning.state_dict()

    def validate(self, _thorough: bool, /) -> dict[str, dict[str, float]]:
        """Decibels by group and way; always of all held-out scenes."""
        return {f"{gsd} m": scores for gsd, scores in evaluate_fusion(self.average, self._held_out).items()}

    @torch.no_grad()
    def samples(self) -> list[Sample]:
        """The groups of two held-out scenes, three bands of each: as measured, enlarged, predicted, true."""
        shown = []
        for scene in self._held_out[:2]:
            for gsd in GROUPS:
                for sample in squares(view_of(scene, gsd))[:1]:
                    guide, measured, truth, others = self._stacked([sample])
                    fused = fuse(self.average, gsd, guide, measured, others)
                    enlarged = F.interpolate(measured, size=truth.shape[-2:], mode="bicubic", align_corners=False)
                    images = {"measured": measured, "bicubic": enlarged, "predicted": fused, "truth": truth}
                    three = [0, 1, 2] if truth.shape[1] > 2 else [0, 1, 1]
                    rows = {label: x[0, three].cpu() for label, x in images.items()}
                    shown.append(Sample(f"{scene.name[:24]} · {gsd} m", rows))
        return shown

    def facts(self) -> dict[str, str]:
        """What the exported weights state about themselves."""
        settings = self.settings
        return {
            "config": json.dumps(asdict(settings.network)),
            "batch": str(settings.batch),
            "seed": str(settings.seed),
        }


def _by_shape(samples: Sequence[WaldSample]) -> list[list[WaldSample]]:
    alike: dict[tuple[tuple[int, ...], ...], list[WaldSample]] = {}
    for sample in samples:
        alike.setdefault(sample.shapes(), []).append(sample)
    return list(alike.values())
